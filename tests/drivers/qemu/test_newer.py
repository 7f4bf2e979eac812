"""Elements that came with later versions: kept by every definition, honoured or refused by name at the start."""

import pytest

from pyvirtd.drivers.qemu.limits import check_start
from pyvirtd.errors import ConfigUnsupported
from pyvirtd.model.domain import DomainDef
from tests.drivers.qemu.command_lines import words
from tests.drivers.qemu.definitions import checked, document
from tests.support.domains import bare_domain
from tests.support.host import SystemHost

DOMAIN = (
    "<domain type='qemu'><name>x</name><memory>1024</memory><vcpu>2</vcpu>{top}<os><type>hvm</type>{os}</os>"
    "{after}<devices>{devices}</devices>{end}</domain>"
)
DISK = "<disk type='file' device='disk'>{}<source file='/i'>{}</source><target dev='vda' bus='virtio'/>{}</disk>"
SSH = "<disk type='network'><source protocol='ssh' name='i'><host name='h'/>{}</source><target dev='vda'/></disk>"
PCI = "<source><address domain='0' bus='1' slot='0' function='0'/></source>"
TPM = "<tpm model='tpm-crb'><backend type='emulator'{}>{}</backend></tpm>"
FOLDER = (
    "<filesystem type='mount'><driver type='virtiofs'/><idmap><uid start='0' target='100' count='9'/><gid start='0' "
    "target='100' count='9'/></idmap><source dir='/srv'/><target dir='t'/></filesystem>"
)
ACPI = "<features><acpi/></features>"
SHARED = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
FLASH = "<loader readonly='yes' type='pflash'>/l</loader>"
LKCF = "<crypto model='virtio' type='qemu'><backend model='lkcf'/></crypto>"
VIRTIO_MEM = "<memory model='virtio-mem'><target dynamicMemslots='yes'><size unit='KiB'>1</size></target></memory>"
# The part of the document where it stands, what stands there, what of it must be printed again, the name in the error.
LATER = [
    ("os", "<shim>/shim.efi</shim>", "<shim>/shim.efi</shim>", "<shim>"),
    ("os", "<varstore template='/t' path='/p'/>", "<varstore template='/t' path='/p'/>", "<varstore>"),
    ("after", "<cpu mode='maximum' deprecated_features='off'/>", "deprecated_features='off'", "deprecated_features"),
    ("end", "<launchSecurity type='sev-snp'><policy>0x30000</policy></launchSecurity>", "0x30000", "sev-snp"),
    ("end", "<launchSecurity type='tdx'><mrOwner>abc</mrOwner></launchSecurity>", "<mrOwner>abc", "tdx"),
    ("devices", DISK.format("<driver discard_no_unref='on'/>", "", ""), "discard_no_unref='on'", "discard_no_unref"),
    (
        "devices",
        DISK.format("<driver><iothreads><iothread id='1'><queue id='0'/></iothread></iothreads></driver>", "", ""),
        "<queue id='0'/>",
        "<iothreads>",
    ),
    (
        "devices",
        DISK.format("<driver><statistics><statistic interval='5'/></statistics></driver>", "", ""),
        "<statistic interval='5'/>",
        "<statistics>",
    ),
    (
        "devices",
        "<disk type='vhostvdpa'><source dev='/dev/vhost-vdpa-0'/><target dev='vda'/></disk>",
        "<source dev='/dev/vhost-vdpa-0'",
        "vhostvdpa",
    ),
    ("devices", "<interface type='user'><backend type='passt' hostname='h'/></interface>", "hostname='h'", "hostname"),
    ("devices", "<interface type='user'><backend type='passt' fqdn='h.x'/></interface>", "fqdn='h.x'", "fqdn"),
    ("devices", f"<hostdev type='pci'><driver iommufd='yes'/>{PCI}</hostdev>", "iommufd='yes'", "iommufd"),
    ("devices", TPM.format("", "<profile source='local:x' name='x'/>"), "source='local:x'", "<profile>"),
    ("devices", "<audio id='1' type='pipewire' runtimeDir='/r'/>", "runtimeDir='/r'", "pipewire"),
    ("devices", "<sound model='virtio' streams='2'/>", "streams='2'", "<sound model='virtio'>"),
    ("devices", FOLDER, "<gid start='0' target='100' count='9'/>", "<idmap>"),
    ("devices", LKCF, "<backend model='lkcf'/>", "<backend model='lkcf'>"),
    ("devices", VIRTIO_MEM, "dynamicMemslots='yes'", "dynamicMemslots"),
    ("devices", "<iommu model='intel'><driver xtsup='on'/></iommu>", "xtsup='on'", "xtsup"),
    ("devices", "<iommu model='virtio'><driver granule='4k'/></iommu>", "granule='4k'", "granule"),
]


def domain(place: str, part: str) -> DomainDef:
    parts = dict.fromkeys(("top", "os", "after", "devices", "end"), "") | {place: part}
    return DomainDef.parse(DomainDef.parse(DOMAIN.format(**parts)).format())


@pytest.mark.parametrize(("place", "part", "kept", "named"), LATER)
def test_what_needs_something_newer_is_kept_and_refused_at_the_start(
    place: str, part: str, kept: str, named: str
) -> None:
    live = domain(place, part)
    assert kept in live.format()
    with pytest.raises(ConfigUnsupported, match="cannot start") as refusal:
        check_start(live)
    assert named in refusal.value.message


HYPERV = (
    "<features><hyperv><tlbflush state='on'><direct state='on'/><extended state='on'/></tlbflush>{}</hyperv></features>"
)


@pytest.mark.parametrize(
    ("place", "part", "kept"),
    [
        ("after", "<features><async-teardown enabled='yes'/></features>", "<async-teardown enabled='yes'/>"),
        ("after", "<features><ras state='on'/></features>", "<ras state='on'/>"),
        ("after", "<features><ps2 state='off'/></features>", "<ps2 state='off'/>"),
        ("after", "<features><aia value='aplic'/></features>", "<aia value='aplic'/>"),
        ("after", HYPERV.format("<emsr_bitmap state='on'/>"), "<emsr_bitmap state='on'/>"),
        ("after", HYPERV.format("<xmm_input state='on'/>"), "<extended state='on'/>"),
        ("after", "<cpu><topology sockets='1' dies='1' clusters='2' cores='1' threads='1'/></cpu>", "clusters='2'"),
        ("after", "<cpu mode='maximum'><maxphysaddr mode='passthrough' limit='39'/></cpu>", "limit='39'"),
        ("os", "<loader type='pflash' format='raw'>/l</loader>", "format='raw'"),
        ("devices", "<video><model type='virtio' blob='on'/></video>", "blob='on'"),
        ("devices", "<sound model='usb' multichannel='yes'/>", "multichannel='yes'"),
        ("devices", "<watchdog model='itco' action='reset'/>", "model='itco'"),
        ("devices", "<iommu model='intel'><driver dma_translation='off'/></iommu>", "dma_translation='off'"),
        ("devices", SSH.format("<identity username='u'/>"), "<identity username='u'/>"),
        ("devices", "<disk><target dev='sda' bus='scsi' dpofua='on'/></disk>", "dpofua='on'"),
        (
            "devices",
            "<disk type='network'><source protocol='nbd'><host name='h'/><reconnect delay='9'/></source>"
            "<target dev='vda'/></disk>",
            "<reconnect delay='9'/>",
        ),
    ],
)
def test_what_this_qemu_can_do_is_kept_and_starts(place: str, part: str, kept: str) -> None:
    live = domain(place, part)
    assert kept in live.format()
    check_start(live)


HONOURED = """
<disk type='file'><source file='/var/lib/libvirt/newer.img'/><target dev='sda' bus='scsi' dpofua='on'/></disk>
<controller type='scsi' model='virtio-scsi'/>
<sound model='usb' multichannel='yes'/><audio id='1' type='none'/>
<watchdog model='itco' action='reset'/>
<crypto model='virtio' type='qemu'><backend model='builtin' queues='1'/></crypto>
<controller type='pci' index='1' model='pcie-root-port'><target memReserve='8192'/></controller>
<controller type='pci' index='2' model='pcie-to-pci-bridge'/>
<controller type='pci' index='3' model='pci-bridge'><target memReserve='4096'/></controller>
<pstore backend='acpi-erst'/>
<iommu model='intel'><driver dma_translation='off' passthrough='off'/></iommu>
"""
WORDS = (
    "i8042=off",
    " -async-teardown ",
    '"dpofua":true',
    '"multi":true',
    "ICH9-LPC.noreboot=off",
    '"mem-reserve":8388608',
    '"mem-reserve":4194304',
    '"dma-translation":false,"pt":false',
    '"driver":"virtio-crypto-pci","cryptodev":"objcrypto0"',
    '"driver":"acpi-erst","id":"pstore0"',
    "/nvram/newer_PSTORE.raw",
)


def test_a_guest_with_what_this_qemu_can_do_runs(host: SystemHost) -> None:
    host.write("/var/lib/libvirt/newer.img", "x" * 512)
    features = "<acpi/><async-teardown enabled='yes'/><ps2 state='off'/>"
    host.define(bare_domain("newer", devices=HONOURED, extra=SHARED).replace("<acpi/>", features))
    host.ok("start newer --paused")
    try:
        argv = host.run(["sh", "-c", "tr '\\0' ' ' </proc/$(cat /run/libvirt/qemu/newer.pid)/cmdline"]).stdout
        assert [word for word in WORDS if word not in argv] == []
    finally:
        host.ok("destroy newer")
        host.ok("undefine newer")


def test_account_on_an_ssh_server_is_told_to_qemu() -> None:
    nodes = words(checked(document(SSH.format("<identity username='u'/>")))).nodes
    assert nodes["libvirt-1-storage"]["user"] == "u"


def test_blob_resources_are_asked_of_the_card(host: SystemHost) -> None:
    """Starting it takes a host with /dev/udmabuf."""
    host.define(bare_domain("newer", devices="<video><model type='virtio' blob='on'/></video>"))
    assert '"blob":true' in host.ok("domxml-to-native qemu-argv --domain newer")
    host.ok("undefine newer")


def test_each_is_defined_and_refused_when_it_starts(host: SystemHost) -> None:
    wrong = []
    for place, part, kept, named in LATER:
        if part == VIRTIO_MEM:  # being defined takes sizes and NUMA nodes that have nothing to do with it
            continue
        parts = dict.fromkeys(("top", "os", "after", "devices", "end"), "") | {
            "top": SHARED,
            "after": ACPI,
            place: part,
        }
        done = host.virsh("define /dev/stdin", text=DOMAIN.format(**parts).replace("<type>", "<type machine='q35'>"))
        if done.returncode or kept not in host.ok("dumpxml x"):
            wrong.append((part, done.stderr))
            continue
        said = host.virsh("start x").stderr
        if named not in said or "cannot start" not in said:
            wrong.append((part, said))
        host.ok("undefine x --nvram")
    assert wrong == []
