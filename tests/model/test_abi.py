"""What may change in the definition of a guest that runs or is saved, and what may not."""

import re

import pytest

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.errors import ConfigUnsupported
from pyvirtd.model.abi import HOST_SIDE, check_abi, host_side
from pyvirtd.model.domain import DomainDef
from pyvirtd.xml.element import Element
from pyvirtd.xml.plan import flatten

GUEST = """
<domain type='qemu'>
  <name>one</name>
  <uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid>
  <title>first</title>
  <memory unit='KiB'>262144</memory>
  <vcpu current='1'>2</vcpu>
  <cputune><shares>1024</shares></cputune>
  <sysinfo type='smbios'><bios><entry name='vendor'>Acme</entry></bios></sysinfo>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><boot dev='hd'/><smbios mode='sysinfo'/></os>
  <features><acpi/><hyperv mode='custom'><relaxed state='on'/></hyperv></features>
  <cpu mode='custom' match='exact' check='none'><model>qemu64</model><feature policy='require' name='vmx'/></cpu>
  <clock offset='utc'><timer name='rtc' tickpolicy='catchup'/><timer name='hpet' present='no'/></clock>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none'/>
      <source file='/a.qcow2'/>
      <target dev='vda' bus='virtio'/>
      <serial>S1</serial>
      <boot order='1'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x04' function='0x0'/>
    </disk>
    <interface type='network'>
      <mac address='52:54:00:11:22:33'/>
      <source network='default'/>
      <model type='virtio'/>
      <link state='up'/>
    </interface>
    <serial type='pty'><target type='isa-serial' port='0'/></serial>
    <graphics type='vnc' port='5901' autoport='no' listen='127.0.0.1'/>
    <memballoon model='virtio'><stats period='10'/></memballoon>
  </devices>
</domain>
"""


def compare(old: str, new: str, text: str = GUEST) -> None:
    """check_abi of a guest and the same guest with the one text replaced by the other."""
    assert old in text
    check_abi(DomainDef.parse(text), DomainDef.parse(text.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<title>first</title>", ""),
        ("<shares>1024", "<shares>2048"),
        ("<boot dev='hd'/>", "<boot dev='network'/><bootmenu enable='yes'/>"),
        ("<boot order='1'/>", ""),
        ("tickpolicy='catchup'", "tickpolicy='delay'"),
        ("offset='utc'", "offset='localtime'"),
        ("/a.qcow2", "/elsewhere/b.img"),
        ("<disk type='file' device='disk'>", "<disk type='file' device='disk' snapshot='no'>"),
        (" type='qcow2' cache='none'", " type='raw' cache='writeback'"),
        ("<driver name='qemu' type='qcow2' cache='none'/>", ""),
        ("network='default'", "network='other'"),
        ("<link state='up'/>", "<link state='down'/>"),
        ("<serial type='pty'>", "<serial type='file'><source path='/log'/>"),
        ("<graphics type='vnc' port='5901' autoport='no' listen='127.0.0.1'/>", ""),
        ("<stats period='10'/>", ""),
        ("<vcpu current='1'>2</vcpu>", "<vcpu cpuset='0' current='1'>2</vcpu>"),
    ],
)
def test_the_host_may_change(old: str, new: str) -> None:
    compare(old, new)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<name>one", "<name>two", "Target domain name two does not match source one"),
        ("db1809", "db1810", "Target domain uuid c7a5fdbd-edaf-9455-926a-d65c16db1810 does not match source"),
        ("type='qemu'", "type='kvm'", "Target domain virt type kvm does not match source qemu"),
        (">262144<", ">262145<", "Target domain max memory 262145 does not match source 262144"),
        ("<vcpu current='1'>", "<vcpu>", "State of vCPU '1' differs between source and destination"),
        (">2</vcpu>", ">4</vcpu>", "Target domain vCPU max 4 does not match source 2"),
        ("pc-q35-7.2", "pc-q35-7.1", "Target domain machine type pc-q35-7.1 does not match source pc-q35-7.2"),
        ("mode='sysinfo'", "mode='host'", "Target domain SMBIOS mode host does not match source sysinfo"),
        ("<acpi/>", "", "State of feature 'acpi' differs: source: 'on', destination: 'default'"),
        (
            "state='on'",
            "state='off'",
            "HyperV enlightenment feature 'relaxed' differs: source: 'on', destination: 'off'",
        ),
        (">qemu64<", ">Penryn<", "Target CPU model Penryn does not match source qemu64"),
        ("policy='require'", "policy='disable'", "Target CPU feature policy disable does not match source require"),
        ("present='no'", "present='yes'", "timer present yes does not match source no"),
        ("<timer name='hpet' present='no'/>", "", "timer count 1 does not match source 2"),
        ("dev='vda'", "dev='vdb'", "Target disk vdb does not match source vda"),
        ("bus='virtio'", "bus='sata'", "Target disk bus sata does not match source virtio"),
        (">S1<", ">S2<", "Target disk serial S2 does not match source S1"),
        ("slot='0x04'", "slot='0x05'", "Target device pci address 0000:00:05.0 does not match source 0000:00:04.0"),
        ("22:33", "22:34", "Target network card mac 52:54:00:11:22:34 does not match source 52:54:00:11:22:33"),
        ("<model type='virtio'/>", "<model type='e1000'/>", "Target network card model e1000 does not match source"),
        ("<memballoon model='virtio'>", "<memballoon model='none'>", "Target balloon model none does not match source"),
        ("<serial>S1</serial>", "<serial>S1</serial><readonly/>", "Target disk access mode does not match source"),
        ("<devices>", "<devices><hub type='usb'/>", "Target domain hub device count 1 does not match source 0"),
    ],
)
def test_the_guest_would_notice(old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigUnsupported, match=re.escape(message)):
        compare(old, new)


@pytest.mark.parametrize(
    ("old", "new", "domain"),
    [
        (">qemu64<", ">Penryn<", ErrorDomain.CPU),
        (">Acme<", ">Other<", ErrorDomain.SYSINFO),
        (">S1<", ">S2<", ErrorDomain.DOMAIN),
    ],
)
def test_the_error_says_which_part_it_is_about(old: str, new: str, domain: ErrorDomain) -> None:
    with pytest.raises(ConfigUnsupported) as caught:
        compare(old, new)
    assert caught.value.domain == domain


def test_memory_that_is_not_said_to_be_less_is_all_of_it() -> None:
    compare("<vcpu", "<currentMemory unit='KiB'>262144</currentMemory><vcpu")


def test_single_vcpus_stand_for_their_number() -> None:
    compare(
        ">2</vcpu>",
        ">2</vcpu><vcpus><vcpu id='0' enabled='yes' hotpluggable='no'/>"
        "<vcpu id='1' enabled='no' hotpluggable='yes'/></vcpus>",
    )


def classes(kind: type[Element], seen: set[type[Element]]) -> set[type[Element]]:
    """Every class that a document may hold."""
    if kind not in seen:
        seen.add(kind)
        slots, groups = flatten(kind)
        for inner in [*(one for slot in slots for one in slot.shape.classes), *(one for _, one in groups)]:
            if isinstance(inner, type) and issubclass(inner, Element):
                classes(inner, seen)
    return seen


def test_every_rule_is_about_a_field_that_exists() -> None:
    known = classes(DomainDef, set())
    bases = {base for kind in known for base in kind.__mro__}
    for kind, names in HOST_SIDE.items():
        assert kind in bases, kind
        assert names <= {field.attribute for field in kind.fields()}, kind
    assert "source" in host_side(type(DomainDef.parse(GUEST).devices.serial[0]))
