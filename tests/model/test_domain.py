"""The domain document as a whole: identity, what must be there, canonical values, older spellings."""

import pytest

from pyvirtd.errors import ConfigUnsupported, InternalError, InvalidArg, NoName, VirtError, XmlDetail, XmlError
from pyvirtd.model.address import DriveAddress, PciAddress, UsbAddress
from pyvirtd.model.chardev import ChardevType, SocketMode, SocketProtocol, TcpSource, UdpSource
from pyvirtd.model.cpu import CpuFallback, CpuMatch, CpuMode, Placement
from pyvirtd.model.devices import MAX_DEVICES, ControllerModel
from pyvirtd.model.disk import Disk, DiskBus
from pyvirtd.model.domain import DomainDef, DomainType, identity
from pyvirtd.model.graphics import AddressListen, NoneListen, SocketListen, SpiceGraphics, VncGraphics
from pyvirtd.model.metadata import Metadata
from pyvirtd.model.storage import BlockSource, FileSource, NetworkSource
from pyvirtd.xml.element import INACTIVE, LIVE, SECURE, Element, View

UUID = "6a4b2cf4-05e1-4ba4-8e5e-7d2a4c6f0a11"


def domain(devices: str = "", *, top: str = "", view: View = INACTIVE) -> DomainDef:
    return DomainDef.parse(
        f"<domain type='kvm'><name>g</name><os><type>hvm</type></os>{top}<devices>{devices}</devices></domain>", view
    )


def disk(inside: str, attributes: str = "") -> Disk:
    return domain(f"<disk {attributes}>{inside}<target dev='vda' bus='virtio'/></disk>").devices.disk[0]


def refusal(devices: str = "", *, top: str = "") -> str:
    with pytest.raises(VirtError) as caught:
        domain(devices, top=top)
    return str(caught.value)


def printed(part: Element) -> str:
    return part.format(SECURE)


# Identity and what must be there


def test_identity_reads_name_and_uuid_only() -> None:
    rest = "<devices><disk type='?'/></devices>"
    text = f"<domain><bogus/><name>g</name><uuid>{UUID.upper().replace('-', '')}</uuid>{rest}</domain>"
    assert identity(text) == ("g", UUID)
    assert identity("<domain><name>g</name></domain>").uuid is None


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ("<domain/>", NoName),
        ("<domain><name/></domain>", NoName),
        ("<domain><name>a\nb</name></domain>", XmlDetail),
        ("<domain><name>a</name><uuid>x</uuid></domain>", InternalError),
        ("<network/>", XmlError),
        ("<domain>", XmlDetail),
    ],
)
def test_identity_refuses(document: str, error: type[VirtError]) -> None:
    with pytest.raises(error):
        identity(document)


def test_a_name_with_a_newline_is_refused() -> None:
    with pytest.raises(XmlDetail, match="invalid char in name"):
        DomainDef.parse("<domain type='kvm'><name>a\nb</name><os><type>hvm</type></os></domain>")


def test_a_name_may_hold_any_other_character() -> None:
    text = "<domain type='kvm'><name> a'&lt;/\u00e9\U0001f600 </name><os><type>hvm</type></os></domain>"
    assert "<name> a&apos;&lt;/é😀 </name>" in DomainDef.parse(text).format()


def test_type_and_os_type_must_be_there() -> None:
    with pytest.raises(InternalError, match="missing domain type attribute"):
        DomainDef.parse("<domain><name>a</name></domain>")
    with pytest.raises(ConfigUnsupported, match="invalid domain type x"):
        DomainDef.parse("<domain type='x'><name>a</name></domain>")
    with pytest.raises(XmlError, match="an os <type> must be specified"):
        DomainDef.parse("<domain type='kvm'><name>a</name></domain>")


def test_a_title_has_one_line() -> None:
    assert "title can't contain newlines" in refusal(top="<title>a\nb</title>")


def test_a_minimal_domain_prints_what_is_always_there() -> None:
    assert domain().format().splitlines() == [
        "<domain type='kvm'>",
        "  <name>g</name>",
        "  <memory unit='KiB'>0</memory>",
        "  <vcpu placement='static'>1</vcpu>",
        "  <os>",
        "    <type>hvm</type>",
        "  </os>",
        "  <clock offset='utc'/>",
        "  <on_poweroff>destroy</on_poweroff>",
        "  <on_reboot>restart</on_reboot>",
        "  <on_crash>destroy</on_crash>",
        "  <devices>",
        "  </devices>",
        "</domain>",
    ]
    assert domain().type is DomainType.KVM


# General part


def test_memory_is_in_kib_whatever_the_unit() -> None:
    parsed = domain(top="<memory unit='GiB'>2</memory><currentMemory unit='b'>1025</currentMemory>")
    assert (parsed.memory.kib, parsed.current_memory_kib) == (2 << 20, 2)


def test_an_unknown_feature_is_refused() -> None:
    assert refusal(top="<features><warp/></features>") == "unsupported configuration: unexpected feature 'warp'"
    assert "HyperV Enlightenment feature: x" in refusal(top="<features><hyperv><x state='on'/></hyperv></features>")


def test_a_cpu_model_without_mode_is_custom_and_exact() -> None:
    cpu = domain(top="<cpu><model>qemu64</model></cpu>").cpu
    assert cpu is not None
    assert cpu.model is not None
    assert (cpu.mode, cpu.match, cpu.model.fallback) == (CpuMode.CUSTOM, CpuMatch.EXACT, CpuFallback.ALLOW)


def test_automatic_numa_placement_places_vcpus_too() -> None:
    parsed = domain(top="<numatune><memory placement='auto'/></numatune>")
    assert parsed.vcpu.placement is Placement.AUTO


@pytest.mark.parametrize("cpuset", ["^1", "1,^1"])
def test_an_empty_cpu_set_is_refused(cpuset: str) -> None:
    assert refusal(top=f"<vcpu cpuset='{cpuset}'>1</vcpu>").endswith(f"Invalid value of 'cpuset': {cpuset}")


def test_a_wild_cpu_range_is_refused_at_once() -> None:
    with pytest.raises(InvalidArg, match="Failed to parse bitmap"):
        domain(top="<vcpu cpuset='0-4294967295'>1</vcpu>")


def test_smbios_values_stand_in_libvirts_order() -> None:
    parsed = domain(top="<sysinfo type='smbios'><system><entry name='product'>p</entry>"
                        "<entry name='x'>y</entry><entry name='manufacturer'>m</entry></system></sysinfo>")  # fmt: skip
    assert [line.strip() for line in parsed.sysinfo[0].format().splitlines() if "entry" in line] == [
        "<entry name='manufacturer'>m</entry>",
        "<entry name='product'>p</entry>",
    ]


# Metadata


def test_metadata_is_kept_verbatim_one_element_a_namespace() -> None:
    parsed = domain(top="<metadata>text<!-- c --><a:x xmlns:a='u' k='&quot;'><![CDATA[<]]><b/></a:x>"
                        "<plain/><c:x xmlns:c='u'/></metadata>")  # fmt: skip
    assert '  <metadata>\n    <a:x xmlns:a="u" k="&quot;"><![CDATA[<]]><b/></a:x>\n  </metadata>\n' in parsed.format()


def test_metadata_is_found_replaced_and_removed_by_namespace() -> None:
    metadata = domain(top="<metadata><a:x xmlns:a='u'/><b:y xmlns:b='v'/></metadata>").metadata
    assert isinstance(metadata, Metadata)
    assert metadata.get("v") == '<b:y xmlns:b="v"/>\n'
    assert metadata.get("w") is None
    assert metadata.without("u").get("u") is None
    assert metadata.get("u") is not None


# Addresses


def test_addresses_have_classes_of_their_own() -> None:
    parsed = domain(
        "<controller type='scsi'><address type='pci' bus='1' slot='0x1f' multifunction='on'/></controller>"
        "<input type='mouse' bus='usb'><address type='usb' bus='0' port='1.2'/></input>"
        "<disk><target dev='sda'/><address type='drive' unit='3'/></disk>"
    )
    address = parsed.devices.controller[0].info.address
    assert isinstance(address, PciAddress)
    assert (address.domain, address.bus, address.slot, address.multifunction) == (0, 1, 31, True)
    assert isinstance(parsed.devices.input[0].info.address, UsbAddress)
    assert parsed.devices.disk[0].info.address == DriveAddress(unit=3)


def test_a_pci_address_by_type_only_has_no_place_yet() -> None:
    device = domain("<sound model='ich6'><address type='pci'/></sound>").devices.sound[0]
    assert isinstance(device.info.address, PciAddress)
    assert device.info.address.auto
    assert "      <address type='pci'/>" in device.format(indent=4)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("type='pci' function='8'", "Invalid PCI address function=0x8, must be <= 7"),
        ("type='pci' slot='0x20'", "Invalid PCI address slot='0x20', must be <= 0x1F"),
        ("type='pci' bus='0x100'", "Invalid PCI address bus='0x100', must be <= 0xFF"),
        ("type='moon'", "unknown address type 'moon'"),
        ("", "No type specified for device address"),
    ],
)
def test_bad_addresses_are_refused(address: str, message: str) -> None:
    assert message in refusal(f"<sound model='ich6'><address {address}/></sound>")


def test_only_aliases_of_the_user_belong_to_the_definition() -> None:
    devices = "<sound model='ich6'><alias name='{}'/></sound>"
    assert domain(devices.format("sound0")).devices.sound[0].info.alias is None
    assert domain(devices.format("ua-mine")).devices.sound[0].info.alias == "ua-mine"
    assert domain(devices.format("sound0"), view=LIVE).devices.sound[0].info.alias == "sound0"


def test_all_devices_come_in_printing_order() -> None:
    parsed = domain(
        "<sound model='ich6'/><disk><target dev='vda'/></disk><memballoon model='none'/><audio id='1' type='none'/>"
    )
    assert [device.tag for device in parsed.devices.all()] == ["disk", "sound", "memballoon"]


# Disks


def test_the_disks_type_picks_the_source() -> None:
    assert isinstance(disk("<source file='/a'/>").source, FileSource)
    assert isinstance(disk("<source dev='/a'/>", "type='block'").source, BlockSource)
    network = disk("<source protocol='nbd'><host name='h' transport='tcp'/></source>", "type='network'").source
    assert isinstance(network, NetworkSource)
    assert network.host[0].transport is None


def test_a_backing_chain_ends_with_an_empty_element() -> None:
    text = printed(
        disk(
            "<source file='/a'/><backingStore type='file'><format type='raw'/><source file='/b'/>"
            "<backingStore/></backingStore>"
        )
    )
    assert "    <source file='/b'/>\n    <backingStore/>\n  </backingStore>" in text


def test_default_is_the_same_as_nothing() -> None:
    driver = disk("<driver cache='default' detect_zeroes='default'/>").driver
    assert driver is not None
    assert (driver.cache, driver.detect_zeroes) == (None, None)


@pytest.mark.parametrize("name", ["io", "discard", "error_policy", "rerror_policy"])
def test_default_is_no_word_where_libvirt_takes_none(name: str) -> None:
    with pytest.raises(XmlError, match=f"Invalid value for attribute '{name}'"):
        disk(f"<driver {name}='default'/>")


def test_old_and_new_words_are_refused_as_libvirt_says() -> None:
    assert "unknown driver format value 'zip'" in refusal("<disk><driver type='zip'/><target dev='vda'/></disk>")
    assert refusal("<disk><target dev='vda' bus='bus'/></disk>") == (
        "XML error: Invalid value for attribute 'bus' in element 'target': 'bus'."
    )
    assert DiskBus("virtio") is DiskBus.VIRTIO


def test_a_pool_name_must_be_in_an_rbd_name() -> None:
    assert "can't split path 'x'" in refusal("<disk type='network'><source protocol='rbd' name='x'/></disk>")


# Controllers


def test_models_belong_to_a_controller_type() -> None:
    assert domain("<controller type='usb' model='qemu-xhci'/>").devices.controller[0].model is ControllerModel.QEMU_XHCI
    assert refusal("<controller type='ide' model='qemu-xhci'/>").endswith("Unknown model type 'qemu-xhci'")


# Character devices


def test_tcp_is_raw_and_connects_unless_said_otherwise() -> None:
    serial = domain("<serial type='tcp'><source host='h' service='1'/></serial>").devices.serial[0]
    assert (serial.protocol, serial.source) == (
        SocketProtocol.RAW, [TcpSource(mode=SocketMode.CONNECT, host="h", service="1")],
    )  # fmt: skip


def test_udp_binds_first() -> None:
    serial = domain("<serial type='udp'><source mode='connect' service='1'/><source mode='bind' host='b' service='2'/>"
                    "</serial>").devices.serial[0]  # fmt: skip
    assert [source.mode for source in serial.source if isinstance(source, UdpSource)] == ["bind", "connect"]


def test_a_serial_without_type_is_a_pty() -> None:
    assert domain("<serial/>").devices.serial[0].type is ChardevType.PTY


def test_only_udp_has_two_sources() -> None:
    assert "only one source element is allowed" in refusal(
        "<serial type='unix'><source path='/a'/><source path='/b'/></serial>"
    )
    assert "only two source elements" in refusal("<serial type='udp'>" + "<source service='1'/>" * 3 + "</serial>")


def test_a_consoles_tty_is_its_path_while_it_runs() -> None:
    console = domain("<console type='pty'><source path='/dev/pts/4'/></console>", view=LIVE).devices.console[0]
    assert console.format(LIVE).startswith("<console type='pty' tty='/dev/pts/4'>\n  <source path='/dev/pts/4'/>")
    assert console.format() == "<console type='pty'/>\n"


def test_a_serial_console_is_printed_from_the_serial_port() -> None:
    devices = domain("<serial type='pty'><target port='0'/></serial>"
                     "<console type='pty'><target type='serial' port='0'/></console>", view=LIVE).devices  # fmt: skip
    devices.serial[0].info.alias = "serial0"
    console = devices.format(LIVE).partition("<console")[2]
    assert "<alias name='serial0'/>" in console
    assert "<target type='serial' port='0'/>" in console


# Graphics


def vnc(attributes: str, inside: str = "", view: View = INACTIVE) -> VncGraphics:
    found = domain(f"<graphics type='vnc' {attributes}>{inside}</graphics>", view=view).devices.graphics[0]
    assert isinstance(found, VncGraphics)
    return found


def test_the_listen_attribute_becomes_an_element_and_is_printed_as_both() -> None:
    graphics = vnc("port='5901' listen='10.0.0.1'")
    assert graphics.listen == [AddressListen(address="10.0.0.1")]
    assert printed(graphics).startswith("<graphics type='vnc' port='5901' autoport='no' listen='10.0.0.1'>\n")


def test_a_listen_that_contradicts_the_attribute_is_refused() -> None:
    message = refusal("<graphics type='vnc' listen='10.0.0.1'><listen type='address' address='10.0.0.2'/></graphics>")
    assert message.endswith("must match 'address' attribute of first listen element (found '10.0.0.2')")


@pytest.mark.parametrize("attributes", ["", "port='-1'", "autoport='yes'", "port='5900' autoport='yes'"])
def test_an_automatic_port_is_minus_one_until_it_runs(attributes: str) -> None:
    graphics = vnc(attributes)
    assert printed(graphics).startswith("<graphics type='vnc' port='-1' autoport='yes'>")
    graphics.port = 5902
    assert graphics.format(LIVE).startswith("<graphics type='vnc' port='5902' autoport='yes'>")
    assert printed(graphics).startswith("<graphics type='vnc' port='-1' autoport='yes'>")


def test_a_socket_has_no_port() -> None:
    assert printed(vnc("socket='/s' port='1'")) == (
        "<graphics type='vnc' socket='/s'>\n  <listen type='socket' socket='/s'/>\n</graphics>\n"
    )


def test_what_the_daemon_chose_is_not_part_of_the_definition() -> None:
    graphics = vnc("", "<listen type='socket'/>")
    listen = graphics.listen[0]
    assert isinstance(listen, SocketListen)
    listen.socket, listen.origin.auto_generated = "/run/x", True
    assert "socket=" not in graphics.format()
    assert "<listen type='socket' socket='/run/x'/>" in graphics.format(LIVE)


def test_spice_without_a_port_listens_nowhere() -> None:
    graphics = domain("<graphics type='spice'/>").devices.graphics[0]
    assert isinstance(graphics, SpiceGraphics)
    assert graphics.listen == [NoneListen()]


def test_passwords_are_printed_in_the_secure_view_only() -> None:
    graphics = vnc("passwd='p' passwdValidTo='2030-01-01T00:00:00' connected='keep'")
    assert "passwd" not in graphics.format()
    assert "passwd='p' passwdValidTo='2030-01-01T00:00:00' connected='keep'" in printed(graphics)
    assert "cannot parse password validity time 'soon'" in refusal(
        "<graphics type='vnc' passwd='p' passwdValidTo='soon'/>"
    )


# Interfaces and host devices


def test_generated_device_names_are_of_one_run() -> None:
    devices = "<interface type='ethernet'><target dev='vnet3'/></interface>"
    assert domain(devices).devices.interface[0].format() == "<interface type='ethernet'/>\n"
    live = domain(devices, view=LIVE).devices.interface[0]
    assert "vnet3" in live.format(LIVE)
    assert "vnet3" not in live.format()


def test_an_address_family_follows_from_the_address() -> None:
    text = printed(
        domain("<interface type='ethernet'><source><ip address='FE80::1' prefix='64'/></source></interface>")
    )
    assert "<ip address='fe80::1' family='ipv6' prefix='64'/>" in text


def test_bad_routes_say_whose_they_are() -> None:
    route = "<route address='x' gateway='1.2.3.4'/>"
    assert "guest interface: Bad network address 'x'" in refusal(f"<interface type='user'>{route}</interface>")
    assert "interface host IP: Bad" in refusal(f"<interface type='ethernet'><source>{route}</source></interface>")


def test_a_hostdev_is_unmanaged_unless_said_otherwise() -> None:
    text = printed(
        domain("<hostdev type='usb'><source><address bus='1' device='2'/></source></hostdev>").devices.hostdev[0]
    )
    assert text.startswith("<hostdev mode='subsystem' type='usb' managed='no'>")


# Labels


@pytest.mark.parametrize(
    "label", ["<seclabel model='dac'/>", "<seclabel relabel='yes'/>", "<seclabel labelskip='yes'/>"]
)
def test_a_source_label_that_says_nothing_is_dropped(label: str) -> None:
    assert "seclabel" not in printed(disk(f"<source file='/a'>{label}</source>"))


def test_a_dynamic_label_is_of_one_run() -> None:
    text = "<seclabel type='dynamic' model='dac'><label>l</label><imagelabel>i</imagelabel></seclabel>"
    assert domain(top=text).seclabel[0].format() == "<seclabel type='dynamic' model='dac' relabel='yes'/>\n"
    assert "<label>l</label>" in domain(top=text, view=LIVE).seclabel[0].format(LIVE)


def test_a_guest_has_no_more_devices_than_any_hypervisor_takes() -> None:
    assert "devices, a guest can have" in refusal("<hub type='usb'/>" * (MAX_DEVICES + 1))
