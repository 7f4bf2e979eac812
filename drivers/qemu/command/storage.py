"""How QEMU reaches an image: files, devices, NVMe, and the protocols of network storage."""

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.command.context import Builder, Json, Props
from pyvirtd.drivers.qemu.command.secrets import give_auth, give_passphrase
from pyvirtd.drivers.qemu.postparse.disks import default_port
from pyvirtd.errors import ConfigUnsupported
from pyvirtd.model.disk import Disk, DiskDevice
from pyvirtd.model.storage import (
    AnySource,
    Auth,
    BlockSource,
    DirSource,
    Encryption,
    FileSource,
    HostTransport,
    NetworkHost,
    NetworkSource,
    NvmeSource,
    StorageProtocol,
)

QEMU = ErrorDomain.QEMU
RECONNECT_S = 10  # for an nbdkit that died to be there again


def protocol_props(build: Builder, source: AnySource, name: str, disk: Disk | None) -> Props:
    match source:
        case FileSource():
            lent = build.lent_path(source.fdgroup, f"{name}-storage") if source.fdgroup else None
            return Props(driver="file", filename=lent or source.file or "")
        case BlockSource():
            return Props(driver="host_device", filename=source.dev or "")
        case DirSource():
            floppy = disk is not None and disk.device is DiskDevice.FLOPPY
            return Props(driver="vvfat", dir=source.dir or "", floppy=floppy, rw=False)
        case NvmeSource() if source.address is not None:
            address = source.address
            place = f"{address.domain:04x}:{address.bus:02x}:{address.slot:02x}.{address.function:x}"
            return Props(driver="nvme", device=place, namespace=source.namespace or 1)
        case NetworkSource():
            return _network(build, source, name)
        case _:
            raise ConfigUnsupported(f"storage source type '{source.case[0]}' is not supported", domain=QEMU)


def by_nbdkit(source: NetworkSource) -> bool:
    """A source that QEMU does not reach itself, but through nbdkit: its ssh knows of no keys, agents and passwords."""
    identity, auth = source.ssh_identity, source.common.auth
    keys = identity is not None and bool(identity.keyfile or identity.agentsock)
    password = auth is not None and auth.secret is not None
    return source.protocol is StorageProtocol.SSH and (keys or password or bool(source.known_hosts))


def _network(build: Builder, source: NetworkSource, name: str) -> Props:
    if by_nbdkit(source):
        socket = build.context.paths.nbdkit_file(build.context.domain_id, build.context.name, name, "socket")
        return Props({"driver": "nbd", "server": {"type": "unix", "path": str(socket)}, "reconnect-delay": RECONNECT_S})
    path = (source.name or "").removeprefix("/")
    match source.protocol:
        case StorageProtocol.NBD:
            props = Props(driver="nbd", server=_server(source.host[0], StorageProtocol.NBD))
            props.put("export", source.name).put("reconnect-delay", source.reconnect_delay)
            if source.tls:
                props.put("tls-creds", f"obj{name}-storage_tls0").put("tls-hostname", source.tls_hostname)
            return props
        case StorageProtocol.GLUSTER:
            volume, _, rest = path.partition("/")
            servers: list[Json] = [_server(host, StorageProtocol.GLUSTER) for host in source.host]
            return Props(
                driver="gluster", volume=volume, path=rest, server=servers, debug=build.config.gluster_debug_level
            )
        case StorageProtocol.HTTP | StorageProtocol.HTTPS | StorageProtocol.FTP | StorageProtocol.FTPS:
            return _curl(source, name)
        case StorageProtocol.NFS:
            return _nfs(source)
        case StorageProtocol.SHEEPDOG:
            return Props(driver="sheepdog", server=_server(source.host[0], source.protocol), vdi=source.name or "")
        case StorageProtocol.SSH:
            host = source.host[0]
            server: Json = {"host": host.name or "", "port": str(host.port or 22)}
            user = source.ssh_identity.username if source.ssh_identity is not None else None
            return Props(driver="ssh", path=source.name or "", server=server).put("user", user)
        case StorageProtocol.ISCSI:
            return iscsi_props(source)
        case StorageProtocol.RBD:
            return _rbd(source)
        case StorageProtocol.VXHS:
            raise ConfigUnsupported("VxHS protocol is not supported with this QEMU binary", domain=QEMU)
        case _:
            raise ConfigUnsupported(f"protocol '{source.protocol}' is not supported for disks", domain=QEMU)


def _server(host: NetworkHost, protocol: StorageProtocol) -> Json:
    if host.transport is HostTransport.UNIX:
        return {"type": "unix", "path": host.socket or ""}
    return {"type": "inet", "host": host.name or "", "port": str(host.port or default_port(protocol))}


def _curl(source: NetworkSource, name: str) -> Props:
    assert source.protocol is not None
    host = source.host[0]
    if host.transport not in (None, HostTransport.TCP):
        raise ConfigUnsupported(
            f"transport '{host.transport}' is not supported for protocol '{source.protocol}'", domain=QEMU
        )
    path = (source.name or "").removeprefix("/")
    query = f"?{source.query}" if source.query else ""
    where = f"[{host.name}]" if host.name and ":" in host.name else host.name
    url = f"{source.protocol}://{where}:{host.port or default_port(source.protocol)}/{path}{query}"
    props = Props(driver=str(source.protocol), url=url)
    if source.cookies:
        props.put("cookie-secret", f"{name}-storage-httpcookie-secret0")
    props.put("sslverify", source.ssl_verify).put("readahead", source.readahead or None)
    return props.put("timeout", source.timeout or None)


def _nfs(source: NetworkSource) -> Props:
    host = source.host[0]
    props = Props(driver="nfs", server={"host": host.name or "", "type": "inet"}, path=source.name or "")
    if source.identity is not None:
        user, group = source.identity.user, source.identity.group
        if user is not None and user.removeprefix("+").isdigit():
            props.put("user", int(user.removeprefix("+")))
        if group is not None and group.removeprefix("+").isdigit():
            props.put("group", int(group.removeprefix("+")))
    return props


def iscsi_props(source: NetworkSource) -> Props:
    target, _, lun = (source.name or "").partition("/")
    host = source.host[0]
    portal = f"{host.name}:{host.port or default_port(StorageProtocol.ISCSI)}"
    props = Props(driver="iscsi", portal=portal, target=target, lun=int(lun) if lun.isdecimal() else 0, transport="tcp")
    if source.initiator is not None:
        props.put("initiator-name", source.initiator.iqn)
    return props


def put_auth(build: Builder, props: Props, source: NetworkSource, auth: Auth | None, name: str) -> None:
    """An account on the storage's server."""
    if auth is None:
        return
    key = give_auth(build, auth, name)
    match source.protocol:
        case StorageProtocol.RBD:
            props.put("user", auth.username).put("auth-client-required", ["cephx", "none"]).put("key-secret", key)
        case StorageProtocol.ISCSI:
            props.put("user", auth.username).put("password-secret", key)
        case StorageProtocol.HTTP | StorageProtocol.HTTPS | StorageProtocol.FTP | StorageProtocol.FTPS:
            props.put("username", auth.username).put("password-secret", key)
        case StorageProtocol.SSH:
            props.put("user", auth.username)
        case _:
            raise ConfigUnsupported(f"authentication is not supported for protocol '{source.protocol}'", domain=QEMU)


def put_rbd_encryption(build: Builder, props: Props, encryption: Encryption, name: str) -> None:
    key = give_passphrase(build, encryption, name)
    if len(encryption.secret) > 1:
        raise ConfigUnsupported("layered RBD encryption is not supported by this QEMU binary", domain=QEMU)
    if key is not None:
        props.put("encrypt", {"format": str(encryption.format_), "key-secret": key})


def _rbd(source: NetworkSource) -> Props:
    pool, _, image = (source.name or "").rpartition("/")
    props = Props(driver="rbd", pool=pool, image=image)
    if source.host:
        servers: list[Json] = [{"host": h.name or "", "port": str(h.port or 0)} for h in source.host]
        props.put("server", servers)
    return props.put("snapshot", source.snapshot).put("conf", source.config)
