"""Where storage comes from: the sources of disks, backing chains, mirrors and NVRAM.

https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms
"""

from enum import StrEnum

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.errors import XmlError
from pyvirtd.model.address import PciNumbers
from pyvirtd.model.refusals import Refusal, argument, unsupported, wrong
from pyvirtd.model.seclabel import DeviceSeclabel
from pyvirtd.model.words import ConnectMode, StartupPolicy
from pyvirtd.xml.document import Node
from pyvirtd.xml.element import LIVE, STATUS, Element, View, attr, child, children, content, group, says, text, via
from pyvirtd.xml.types import U32, U64, Uuid, YesNo


class StorageType(StrEnum):
    FILE = "file"
    BLOCK = "block"
    DIR = "dir"
    NETWORK = "network"
    VOLUME = "volume"
    NVME = "nvme"
    VHOST_USER = "vhostuser"
    VHOST_VDPA = "vhostvdpa"


class StorageFormat(StrEnum):
    RAW = "raw"
    DIR = "dir"
    BOCHS = "bochs"
    CLOOP = "cloop"
    DMG = "dmg"
    ISO = "iso"
    VPC = "vpc"
    VDI = "vdi"
    FAT = "fat"
    VHD = "vhd"
    PLOOP = "ploop"
    COW = "cow"
    QCOW = "qcow"
    QCOW2 = "qcow2"
    QED = "qed"
    VMDK = "vmdk"
    LUKS = "luks"


class StorageProtocol(StrEnum):
    NBD = "nbd"
    RBD = "rbd"
    SHEEPDOG = "sheepdog"
    GLUSTER = "gluster"
    ISCSI = "iscsi"
    HTTP = "http"
    HTTPS = "https"
    FTP = "ftp"
    FTPS = "ftps"
    TFTP = "tftp"
    SSH = "ssh"
    VXHS = "vxhs"
    NFS = "nfs"


class HostTransport(StrEnum):
    TCP = "tcp"
    UNIX = "unix"
    RDMA = "rdma"


class VolumeMode(StrEnum):
    HOST = "host"
    DIRECT = "direct"


class AuthSecretType(StrEnum):
    CEPH = "ceph"
    ISCSI = "iscsi"


def _check_secret(uuid: str | None, usage: str | None) -> None:
    if uuid is None and usage is None:
        raise XmlError("missing secret uuid or usage attribute")
    if uuid is not None and usage is not None:
        raise XmlError("either secret uuid or usage expected")


class AuthSecret(Element, tag="secret"):
    type: AuthSecretType | None = attr(
        required=unsupported("unknown secret type '<null>'"), bad="unknown secret type '{}'"
    )
    uuid: Uuid | None = attr(bad=wrong("invalid secret uuid '{}'"))
    usage: str | None = attr()

    def parsed(self, node: Node, view: View) -> None:
        _check_secret(self.uuid, self.usage)


_NO_USER = wrong("missing username for auth", ErrorDomain.STORAGE)


class Auth(Element, tag="auth"):
    username: str | None = attr(required=_NO_USER)
    secret: AuthSecret | None = child()

    def parsed(self, node: Node, view: View) -> None:
        if not self.username:
            raise _NO_USER("")
        if self.secret is None:
            raise XmlError("Missing <secret> element in auth", domain=ErrorDomain.STORAGE)


class EncryptionFormat(StrEnum):
    DEFAULT = "default"
    QCOW = "qcow"
    LUKS = "luks"
    LUKS2 = "luks2"


class EncryptionEngine(StrEnum):
    QEMU = "qemu"
    LIBRBD = "librbd"


class EncryptionSecretType(StrEnum):
    PASSPHRASE = "passphrase"  # noqa: S105


class EncryptionSecret(Element, tag="secret"):
    type: EncryptionSecretType = attr(
        EncryptionSecretType.PASSPHRASE,
        required=wrong("unknown volume encryption secret type", ErrorDomain.STORAGE),
        bad=unsupported("unknown volume encryption secret type {}", ErrorDomain.STORAGE),
    )
    uuid: Uuid | None = attr(bad=wrong("invalid secret uuid '{}'"))
    usage: str | None = attr()

    def parsed(self, node: Node, view: View) -> None:
        _check_secret(self.uuid, self.usage)


def _cipher_lacks(name: str) -> Refusal:
    return wrong(f"cipher info missing '{name}' attribute", ErrorDomain.STORAGE)


class EncryptionCipher(Element, tag="cipher"):
    name: str | None = attr(required=_cipher_lacks("name"))
    size: U32 | None = attr(
        required=_cipher_lacks("size"), bad=wrong("cannot parse cipher size: '{}'", ErrorDomain.STORAGE)
    )
    mode: str | None = attr()
    hash: str | None = attr()


class EncryptionIvgen(Element, tag="ivgen"):
    name: str | None = attr(required=wrong("missing ivgen info name string", ErrorDomain.STORAGE))
    hash: str | None = attr()


class Encryption(Element, tag="encryption"):
    format_: EncryptionFormat | None = attr(
        required=wrong("unknown volume encryption format", ErrorDomain.STORAGE),
        bad=unsupported("unknown volume encryption format type {}", ErrorDomain.STORAGE),
    )
    engine: EncryptionEngine | None = attr()
    secret: list[EncryptionSecret] = children()
    cipher: EncryptionCipher | None = child()
    ivgen: EncryptionIvgen | None = child()

    def parsed(self, node: Node, view: View) -> None:
        if self.cipher is None and node.find("ivgen") is not None:
            raise XmlError("ivgen element found, but cipher is missing", domain=ErrorDomain.STORAGE)


class Slice(Element, tag="slice"):
    type: str | None = attr()
    offset: U64 | None = attr(
        required=wrong("missing offset or size attribute of slice"),
        bad=wrong("malformed value '{}' of 'offset' attribute of slice"),
    )
    size: U64 | None = attr(
        required=wrong("missing offset or size attribute of slice"),
        bad=wrong("malformed value '{}' of 'size' attribute of slice"),
    )


class Reconnect(Element, tag="reconnect"):
    enabled: YesNo | None = attr()
    timeout: U32 | None = attr()

    def parsed(self, node: Node, view: View) -> None:
        if self.enabled is None:
            self.timeout = None
        if self.enabled and self.timeout is None:
            raise XmlError("Missing required attribute 'timeout' in element 'reconnect'", domain=ErrorDomain.XML)


class UnixType(StrEnum):
    UNIX = "unix"


class ReservationsSource(Element, tag="source"):
    type: UnixType | None = attr(
        required=wrong("missing connection type for <reservations/>", ErrorDomain.STORAGE),
        bad=wrong("unsupported connection type for <reservations/>: {}", ErrorDomain.STORAGE),
    )
    path: str | None = attr(required=wrong("missing path for <reservations/>", ErrorDomain.STORAGE))
    mode: ConnectMode | None = attr(
        required=wrong("missing connection mode for <reservations/>", ErrorDomain.STORAGE),
        bad=wrong("unsupported connection mode for <reservations/>: {}", ErrorDomain.STORAGE),
    )


class Reservations(Element, tag="reservations"):
    managed: YesNo | None = attr(required=True)
    source: ReservationsSource | None = child()


class NetworkHost(Element, tag="host"):
    name: str | None = attr()
    port: U32 | None = attr(bad=argument("failed to parse port number '{}'"))
    transport: HostTransport | None = attr(bad="unknown protocol transport type '{}'")
    socket: str | None = attr()

    def parsed(self, node: Node, view: View) -> None:
        """tcp is the default and not written."""
        if self.transport == HostTransport.UNIX:
            if self.socket is None:
                raise XmlError("missing socket for unix transport", domain=ErrorDomain.DOMAIN)
            self.name = self.port = None
            return
        if self.socket is not None:
            raise XmlError(
                f"transport '{self.transport or '(null)'}' does not support socket attribute", domain=ErrorDomain.DOMAIN
            )
        if self.name is None:
            raise XmlError("missing name for host", domain=ErrorDomain.DOMAIN)
        if self.transport == HostTransport.TCP:
            self.transport = None


_COOKIE_BREAKS = frozenset('",; \\')  # RFC 6265 4.1.1


class Cookie(Element, tag="cookie"):
    name: str | None = attr(required=wrong("missing cookie name"))
    value: str | None = content()

    def parsed(self, node: Node, view: View) -> None:
        bare = self.value or ""
        if len(bare) > 1 and bare[0] == bare[-1] == '"':
            bare = bare[1:-1]
        if set(bare) & _COOKIE_BREAKS:
            raise XmlError(f"value of cookie '{self.name}' contains invalid characters", domain=ErrorDomain.STORAGE)
        if not self.value:
            raise XmlError(f"missing value for cookie '{self.name}'", domain=ErrorDomain.DOMAIN)


class SourceCommon(Element):
    """Children that every kind of source may have, in libvirt's order after its own."""

    slices: list[Slice] = children(wrap="slices")
    seclabel: list[DeviceSeclabel] = children()
    auth: Auth | None = child()
    encryption: Encryption | None = child()
    reservations: Reservations | None = child()
    data_store: "DataStore | None" = child(name="dataStore")
    private_data: "SourcePrivateData | None" = child(view=STATUS)

    def parsed(self, node: Node, view: View) -> None:
        self.slices = [one for one in self.slices if one.type == "storage"][:1]


class Source(Element, tag="source"):
    """Base of all sources."""

    startup_policy: StartupPolicy | None = attr(name="startupPolicy", bad="unknown startupPolicy value '{}'")
    index: U32 | None = attr(view=LIVE)
    common: SourceCommon = group()


class FileSource(Source, case="file"):
    file: str | None = attr()
    fdgroup: str | None = attr()  # descriptors that a client lends; the file is then but a name
    startup_policy: StartupPolicy | None = attr(name="startupPolicy")
    index: U32 | None = attr(view=LIVE)
    common: SourceCommon = group()


class BlockSource(Source, case="block"):
    dev: str | None = attr()
    startup_policy: StartupPolicy | None = attr(name="startupPolicy")
    index: U32 | None = attr(view=LIVE)
    common: SourceCommon = group()


class DirSource(Source, case="dir"):
    dir: str | None = attr()
    startup_policy: StartupPolicy | None = attr(name="startupPolicy")
    index: U32 | None = attr(view=LIVE)
    common: SourceCommon = group()


_POOL_AND_VOLUME = wrong("'pool' and 'volume' must be specified together for 'pool' type source")


class VolumeSource(Source, case="volume"):
    pool: str | None = attr(required=_POOL_AND_VOLUME)
    volume: str | None = attr(required=_POOL_AND_VOLUME)
    mode: VolumeMode | None = attr(bad="unknown source mode '{}' for volume type disk")
    startup_policy: StartupPolicy | None = attr(name="startupPolicy")
    index: U32 | None = attr(view=LIVE)
    common: SourceCommon = group()


DEFAULT_PORTS = {
    StorageProtocol.NBD: 10809,
    StorageProtocol.SHEEPDOG: 7000,
    StorageProtocol.GLUSTER: 24007,
    StorageProtocol.ISCSI: 3260,
    StorageProtocol.HTTP: 80,
    StorageProtocol.HTTPS: 443,
    StorageProtocol.FTP: 21,
    StorageProtocol.FTPS: 990,
    StorageProtocol.TFTP: 69,
    StorageProtocol.SSH: 22,
    StorageProtocol.VXHS: 9999,
}


_HTTP = says("protocol", "http", "https")


class NetworkSource(Source, case="network"):
    protocol: StorageProtocol | None = attr(required=True)
    name: str | None = attr()
    query: str | None = attr(when=_HTTP)
    tls: YesNo | None = attr()
    tls_hostname: str | None = attr(name="tlsHostname")
    startup_policy: StartupPolicy | None = attr(name="startupPolicy")
    index: U32 | None = attr(view=LIVE)
    host: list[NetworkHost] = children()
    snapshot: str | None = via("snapshot", "name")
    config: str | None = via("config", "file")
    initiator: "Initiator | None" = child()
    ssl_verify: YesNo | None = via("ssl", "verify")
    cookies: list[Cookie] = children(wrap="cookies", when=_HTTP)
    readahead: U64 | None = via("readahead", "size", omit=0, bad=wrong("invalid readahead size or timeout"))
    timeout: U64 | None = via("timeout", "seconds", omit=0, bad=wrong("invalid readahead size or timeout"))
    reconnect_delay: U32 | None = via("reconnect", "delay", when=says("protocol", "nbd"), omit=0)
    known_hosts: str | None = via("knownHosts", "path", when=says("protocol", "ssh"))
    identity: "NfsIdentity | None" = child(when=says("protocol", "nfs"))
    ssh_identity: "SshIdentity | None" = child(name="identity", when=says("protocol", "ssh"))
    common: SourceCommon = group()

    def parsed(self, node: Node, view: View) -> None:
        """A host without a port gets its protocol's; names of rbd and gluster hold pool or volume before a slash."""
        if self.identity is not None and None in (self.identity.user, self.identity.group):
            self.identity = None
        for host in self.host:
            if host.port is None and host.transport is None:
                host.port = DEFAULT_PORTS.get(self.protocol) if self.protocol else None
        self.name = self.name or None
        if self.name is None and self.protocol != StorageProtocol.NBD:
            raise XmlError("missing name for disk source", domain=ErrorDomain.DOMAIN)
        if self.protocol in (StorageProtocol.RBD, StorageProtocol.GLUSTER) and self.name is not None:
            pool, slash, _ = self.name.partition("/")
            if not slash or not pool:
                raise XmlError(
                    f"can't split path '{self.name}' into pool name and image name", domain=ErrorDomain.DOMAIN
                )


class NodeName(Element, tag="nodename"):
    """A block node of the running QEMU."""

    type: str | None = attr()
    name: str | None = attr()


class SecretObject(Element, tag="secret"):
    """A secret that QEMU was given for a source: auth, encryption, httpcookie or tlskey."""

    type: str | None = attr()
    alias: str | None = attr()


class SourceObjects(Element, tag="objects"):
    secret: list[SecretObject] = children()
    tls_x509: str | None = via("TLSx509", "alias")


class SourceReservations(Element, tag="reservations"):
    mgralias: str | None = attr()


class SourcePrivateData(Element, tag="privateData"):
    """What the daemon remembers of a source while the guest runs."""

    nodenames: list[NodeName] = children(wrap="nodenames")
    reservations: SourceReservations | None = child()
    objects: SourceObjects | None = child()


class NfsIdentity(Element, tag="identity"):
    user: str | None = attr()
    group: str | None = attr()


class SshIdentity(Element, tag="identity"):
    username: str | None = attr()
    keyfile: str | None = attr()
    agentsock: str | None = attr()


class Initiator(Element, tag="initiator"):
    iqn: str | None = via("iqn", "name")


class PciType(StrEnum):
    PCI = "pci"


class NvmeSource(Source, case="nvme"):
    type: PciType | None = attr(
        required=wrong("missing 'type' attribute to disk source"), bad=wrong("unsupported source type '{}'")
    )
    managed: YesNo = attr(True)
    namespace: U64 | None = attr(
        required=wrong("missing 'namespace' attribute to disk source"), bad=wrong("malformed namespace '{}'")
    )
    startup_policy: StartupPolicy | None = attr(name="startupPolicy")
    index: U32 | None = attr(view=LIVE)
    address: "NvmeAddress | None" = child()
    common: SourceCommon = group()


class NvmeAddress(PciNumbers, tag="address"):
    """The controller's place on the host's PCI bus."""


class VhostUserSource(Source, case="vhostuser"):
    type: UnixType | None = attr(
        required=wrong("missing 'type' attribute for vhostuser disk source"),
        bad=wrong("invalid 'type' attribute for vhostuser disk source"),
    )
    path: str | None = attr(required=wrong("missing 'path' attribute for vhostuser disk source"))
    startup_policy: StartupPolicy | None = attr(name="startupPolicy")
    index: U32 | None = attr(view=LIVE)
    reconnect: Reconnect | None = child()
    common: SourceCommon = group()


class VhostVdpaSource(Source, case="vhostvdpa"):
    dev: str | None = attr(required=wrong("missing 'dev' attribute for vhostvdpa disk source"))
    startup_policy: StartupPolicy | None = attr(name="startupPolicy")
    index: U32 | None = attr(view=LIVE)
    common: SourceCommon = group()


AnySource = (
    FileSource | BlockSource | DirSource | VolumeSource | NetworkSource | NvmeSource | VhostUserSource | VhostVdpaSource
)
NvramSource = AnySource


class MetadataCache(Element, tag="metadata_cache"):
    max_size: U64 | None = text(unit="bytes", where="./metadata_cache/max_size")


class ChainFormat(Element, tag="format"):
    type: StorageFormat | None = attr(
        required=wrong("missing disk backing store format"), bad=wrong("unknown storage source format '{}'")
    )
    metadata_cache: MetadataCache | None = child()


class DataStore(Element, tag="dataStore"):
    """The file that holds a qcow2 image's data."""

    type: StorageType | None = attr(required=True)
    format_: ChainFormat | None = child()
    source: AnySource | None = child(switch="^type")


def host_path(source: "AnySource | None") -> str | None:
    """The file or device of the host that holds an image; None also for one that is had as a descriptor."""
    match source:
        case FileSource(file=path, fdgroup=None) | BlockSource(dev=path):
            return path or None
    return None


def data_source(source: "AnySource | None") -> "AnySource | None":
    """Where an image keeps its data, if that is not in the image itself."""
    held = source.common.data_store if source is not None else None
    return held.source if held is not None else None


class BackingStore(Element, tag="backingStore", empty=True):
    """One layer below; one without a type ends the chain."""

    type: StorageType | None = attr(bad=wrong("unknown storage source type '{}'"))
    index: U32 | None = attr(view=LIVE)
    format_: ChainFormat | None = child()
    source: AnySource | None = child(switch="^type")
    backing_store: "BackingStore | None" = child(name="backingStore")

    def parsed(self, node: Node, view: View) -> None:
        if self.type is None:
            self.index = self.format_ = self.source = self.backing_store = None
            return
        if self.format_ is None:
            raise XmlError("missing disk backing store format", domain=ErrorDomain.DOMAIN)
        if self.source is None:
            raise XmlError("missing disk backing store source", domain=ErrorDomain.DOMAIN)


class MirrorJob(StrEnum):
    COPY = "copy"
    ACTIVE_COMMIT = "active-commit"


class MirrorState(StrEnum):
    YES = "yes"
    ABORT = "abort"
    PIVOT = "pivot"


class Mirror(Element, tag="mirror"):
    """Where a running block job copies to."""

    type: StorageType | None = attr()
    file: str | None = attr()
    old_format: StorageFormat | None = attr(name="format")
    job: MirrorJob | None = attr(bad="unknown mirror job type '{}'")
    ready: MirrorState | None = attr(bad="unknown mirror ready state {}")
    format_: ChainFormat | None = child()
    source: AnySource | None = child(switch="^type")
    backing_store: BackingStore | None = child(name="backingStore")
