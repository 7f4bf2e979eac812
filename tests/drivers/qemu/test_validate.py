"""Rules that a definition must keep: each row is a refusal of libvirtd 9.0, with its words."""

import pytest

from pyvirtd.constants.error import ErrorNumber as Code
from pyvirtd.errors import VirtError
from tests.drivers.qemu.definitions import checked, document

FILE = "<disk type='file'{0}><source file='/x'/><target dev='{1}' bus='{2}'/>{3}</disk>"
SCSI_LUN = "<disk type='block' device='lun'><source dev='/x'>{}</source><target dev='sda' bus='scsi'/>{}</disk>"
DRIVE = "<address type='drive' controller='{0}' bus='{1}' target='{2}' unit='{3}'/>"
AUDIO = "<audio id='1' type='file'>{}</audio>"
NET = "<interface type='{0}'>{1}</interface>"

RULES: dict[str, tuple[str, Code, str]] = {
    "two drives in one place": (
        FILE.format("", "hda", "ide", DRIVE.format(0, 0, 0, 0))
        + FILE.format("", "hdb", "ide", DRIVE.format(0, 0, 0, 0)),
        Code.CONFIG_UNSUPPORTED,
        "Found duplicate drive address for disk with target name 'hdb'",
    ),
    "ide has no targets": (
        FILE.format("", "hda", "ide", DRIVE.format(0, 0, 1, 0)),
        Code.CONFIG_UNSUPPORTED,
        "target must be 0 for ide controller",
    ),
    "one ide controller": (
        FILE.format("", "hda", "ide", DRIVE.format(1, 0, 0, 0)),
        Code.INTERNAL_ERROR,
        "Only 1 IDE controller is supported",
    ),
    "controller numbers have an end": (
        FILE.format("", "sda", "scsi", DRIVE.format(4294967295, 0, 0, 0)),
        Code.CONFIG_UNSUPPORTED,
        "controller number 4294967295 of a drive address exceeds 255",
    ),
    "floppy names": (
        "<disk type='file' device='floppy'><source file='/x'/><target dev='vda' bus='fdc'/></disk>",
        Code.INTERNAL_ERROR,
        "Invalid floppy device name: vda",
    ),
    "lun with a serial": (
        SCSI_LUN.format("", "<serial>s</serial>"),
        Code.CONFIG_UNSUPPORTED,
        "scsi-block 'lun' devices do not support the serial property",
    ),
    "throttling beyond QEMU": (
        FILE.format("", "vda", "virtio", "<iotune><read_iops_sec>1000000000000001</read_iops_sec></iotune>"),
        Code.ARGUMENT_UNSUPPORTED,
        "block I/O throttle limit must be no more than 1000000000000000 using QEMU",
    ),
    "tls host name": (
        "<disk type='network'><source protocol='gluster' name='a/b' tlsHostname='h'><host name='h'/></source>"
        "<target dev='vda' bus='virtio'/></disk>",
        Code.CONFIG_UNSUPPORTED,
        "'tlsHostname' field is supported only with NBD disks",
    ),
    "secret of another kind": (
        "<disk type='network'><source protocol='iscsi' name='a/1'><host name='h'/><auth username='u'>"
        "<secret type='ceph' usage='s'/></auth></source><target dev='vda' bus='virtio'/></disk>",
        Code.CONFIG_UNSUPPORTED,
        "invalid secret type 'ceph'",
    ),
    "auth without a protocol for it": (
        "<disk type='network'><source protocol='nbd'><host name='h'/><auth username='u'>"
        "<secret type='iscsi' usage='s'/></auth></source><target dev='vda' bus='virtio'/></disk>",
        Code.CONFIG_UNSUPPORTED,
        "authentication is not supported for protocol 'nbd'",
    ),
    "fixed sound without mixing": (
        AUDIO.format("<input fixedSettings='yes'/>"),
        Code.CONFIG_UNSUPPORTED,
        "fixed audio settings requires mixing engine",
    ),
    "reserved memory of an expander": (
        "<controller type='pci' index='1' model='pci-expander-bus'><target busNr='9' memReserve='1'/></controller>",
        Code.CONFIG_UNSUPPORTED,
        "Option 'memReserve' is not valid for PCI controller with index '1', model 'pci-expander-bus'",
    ),
    "two usb controllers of one number": (
        "<controller type='usb' index='0' model='piix3-uhci'/><controller type='usb' index='0' model='nec-xhci'/>",
        Code.XML_ERROR,
        "Duplicate USB controllers with index 0",
    ),
    "companions alone": (
        "<controller type='usb' index='0' model='ich9-uhci1'/><controller type='usb' index='0' model='ich9-uhci2'/>",
        Code.XML_DETAIL,
        "No master USB controller specified",
    ),
    "teaming of the wrong kind": (
        NET.format("user", "<model type='virtio'/><teaming type='persistent' persistent='ua-x'/>"),
        Code.CONFIG_UNSUPPORTED,
        "teaming persistent attribute not allowed if teaming type is 'persistent'",
    ),
    "unmanaged tap": (
        NET.format("bridge", "<source bridge='b'/><target dev='t' managed='no'/>"),
        Code.CONFIG_UNSUPPORTED,
        "unmanaged target dev is not supported on interfaces of type 'bridge'",
    ),
    "two screens of one kind": (
        "<graphics type='vnc'/><video><model type='vga'/></video><video><model type='vga'/></video>",
        Code.CONFIG_UNSUPPORTED,
        "video type 'vga' is only valid as primary video device",
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_rules_of_devices(rule: str) -> None:
    devices, code, message = RULES[rule]
    with pytest.raises(VirtError) as caught:
        checked(document(devices, machine="pc"))
    assert caught.value.code is code
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("timer", "message"),
    [
        ("name='tsc' track='wall'", "timer tsc doesn't support setting of timer track"),
        ("name='kvmclock' tickpolicy='discard'", "timer kvmclock doesn't support setting of timer tickpolicy"),
        ("name='hpet' frequency='1'", "timer hpet doesn't support setting of timer frequency"),
        ("name='rtc' track='boot'", "unsupported rtc timer track 'boot'"),
        ("name='platform'", "unsupported timer type (name) 'platform'"),
        ("name='armvtimer' present='no'", "Configuring the 'armvtimer' timer is not supported"),
    ],
)
def test_rules_of_timers(timer: str, message: str) -> None:
    with pytest.raises(VirtError) as caught:
        checked(document(top=f"<clock offset='utc'><timer {timer}/></clock>"))
    assert caught.value.code is Code.CONFIG_UNSUPPORTED
    assert message in str(caught.value)


def test_a_plain_guest_keeps_all_rules() -> None:
    disk = FILE.format("", "vda", "virtio", "")
    assert checked(document(disk + NET.format("user", "<model type='virtio'/>"), machine="pc")).name == "g"


def test_reserved_memory_is_for_ports_that_can_say_so() -> None:
    port = "<controller type='pci' index='1' model='pcie-root-port'>{}<target memReserve='{}'/></controller>"
    checked(document(port.format("", 4096)))
    with pytest.raises(VirtError, match=r"Option 'memReserve' is not valid for .* and modelName 'ioh3420'"):
        checked(document(port.format("<model name='ioh3420'/>", 4096)))
    with pytest.raises(VirtError, match="PCI controller memReserve '18446744073709551615' out of range"):
        checked(document(port.format("", 2**64 - 1)))


@pytest.mark.parametrize("protocol", ["http", "https", "ftp", "ftps", "ssh"])
@pytest.mark.parametrize("kind", ["iscsi", "ceph"])
def test_accounts_of_other_servers_have_secrets_of_any_kind(protocol: str, kind: str) -> None:
    auth = f"<auth username='u'><secret type='{kind}' usage='s'/></auth>"
    source = f"<source protocol='{protocol}' name='/i'><host name='h'/>{auth}</source>"
    made = checked(document(f"<disk type='network'>{source}<target dev='vda' bus='virtio'/></disk>"))
    assert f"type='{kind}'" in made.format()
