"""What a definition asks of the host and the driver cannot give yet: refused at the start, never left out."""

from collections.abc import Iterator

from lxml import etree

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.bandwidth import can_limit
from pyvirtd.drivers.qemu.helpers.passt import uses_passt
from pyvirtd.errors import ConfigUnsupported
from pyvirtd.model.domain import DomainDef
from pyvirtd.xml.document import parse_document

# What later hypervisors and helpers give: where it stands in a definition, its name for the user, what it needs.
NEWER = tuple(
    (etree.XPath(path), name, needs)
    for path, name, needs in (
        ("os/shim", "<shim>", "QEMU 10.0"),
        ("os/varstore", "<varstore>", "QEMU 10.1"),
        ("cpu[@deprecated_features]", "<cpu deprecated_features>", "QEMU 9.1"),
        ("launchSecurity[@type='sev-snp']", "<launchSecurity type='sev-snp'>", "QEMU 9.1"),
        ("launchSecurity[@type='tdx']", "<launchSecurity type='tdx'>", "QEMU 10.1"),
        ("devices/disk/driver[@discard_no_unref='on']", "<driver discard_no_unref>", "QEMU 8.1"),
        ("devices/disk/driver/iothreads", "<iothreads> of a disk", "QEMU 9.0"),
        ("devices/disk/driver/statistics", "<statistics> of a disk", "QEMU 9.2"),
        ("devices/disk[@type='vhostvdpa']", "<disk type='vhostvdpa'>", "QEMU with libblkio"),
        ("devices/interface/backend[@hostname]", "<backend hostname>", "a later passt"),
        ("devices/interface/backend[@fqdn]", "<backend fqdn>", "a later passt"),
        ("devices/interface[@type='vhostuser']/backend[@type='passt']", "passt of type 'vhostuser'", "a later passt"),
        ("devices/*/driver[@iommufd='yes']", "<driver iommufd>", "QEMU 9.0"),
        ("devices/tpm/backend/profile", "<profile> of a TPM", "swtpm 0.10"),
        ("devices/audio[@type='pipewire']", "<audio type='pipewire'>", "QEMU 8.1"),
        ("devices/sound[@model='virtio']", "<sound model='virtio'>", "QEMU 8.2"),
        ("devices/crypto/backend[@model='lkcf']", "<backend model='lkcf'>", "QEMU with the kernel's cryptography"),
        ("devices/filesystem/idmap", "<idmap> of a filesystem", "virtiofsd 1.7"),
        ("devices/memory/target[@dynamicMemslots='yes']", "<target dynamicMemslots>", "QEMU 8.2"),
        ("devices/iommu/driver[@xtsup='on']", "<driver xtsup> of an IOMMU", "QEMU 9.2"),
        ("devices/iommu/driver[@granule]", "<driver granule> of an IOMMU", "QEMU 9.0"),
    )
)


def check_start(live: DomainDef) -> None:
    """Raises ConfigUnsupported naming the first element that would have no effect."""
    document = parse_document(live.format(), root="domain")
    for find, name, needs in NEWER:
        if find(document):
            raise ConfigUnsupported(f"domain '{live.name}' cannot start: {name} needs {needs}", domain=From.QEMU)
    for element in _without_effect(live):
        raise ConfigUnsupported(
            f"domain '{live.name}' cannot start: {element} is not applied by this daemon yet", domain=From.QEMU
        )


def _without_effect(live: DomainDef) -> Iterator[str]:
    for net in live.devices.interface:
        if net.port_forward and not uses_passt(net):
            yield "<portForward> of an interface without <backend type='passt'/>"
        if net.bandwidth is not None and not can_limit(net):
            yield f"<bandwidth> of an interface of type '{net.type}'"
        if net.filterref is not None:
            yield "<filterref> of an interface"
