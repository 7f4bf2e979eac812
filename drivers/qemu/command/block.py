"""Block nodes: one for where the data is ("-storage") and one for its format ("-format") of every layer of a disk.

Nodes are numbered from the last disk to the first, a disk before its backing chain; the number is the `index` of the
live XML. A disk's throttle filters come after its chain.
"""

from collections.abc import Iterator

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.command.context import Builder, Json, Props
from pyvirtd.drivers.qemu.command.secrets import give_passphrase
from pyvirtd.drivers.qemu.command.storage import by_nbdkit, protocol_props, put_auth, put_rbd_encryption
from pyvirtd.drivers.qemu.command.throttle import build_filters, filter_nodes, filter_numbers, number_filters
from pyvirtd.model.disk import DetectZeroes, Discard, Disk, DiskBus, DiskCache, DiskDriver
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.storage import (
    AnySource,
    Auth,
    BackingStore,
    Encryption,
    EncryptionEngine,
    FileSource,
    NetworkSource,
    Slice,
    StorageFormat,
    VhostUserSource,
)

QEMU = ErrorDomain.QEMU
# What each cache mode means: writes may be cached by the guest's disk, by-pass the host's cache, flushes ignored.
_CACHES = {
    DiskCache.NONE: (True, True, False),
    DiskCache.WRITETHROUGH: (False, False, False),
    DiskCache.WRITEBACK: (True, False, False),
    DiskCache.DIRECTSYNC: (False, True, False),
    DiskCache.UNSAFE: (True, False, True),
}


class Layer:
    """One layer of a disk: its source, its format, the number of its nodes."""

    def __init__(
        self,
        source: AnySource,
        kind: StorageFormat,
        below: BackingStore | None,
        *,
        ends: bool,
        store: BackingStore | None = None,
    ) -> None:
        self.source = source
        self._store = store  # of a layer below the top one
        self.format = kind
        self.below = below
        self.ends = ends
        self.cache_size: int | None = None
        self.encryption: Encryption | None = source.common.encryption
        self.auth: Auth | None = source.common.auth
        held = source.common.data_store
        raw = StorageFormat.RAW
        self.data: Layer | None = Layer(held.source, raw, None, ends=True) if held and held.source else None

    @property
    def index(self) -> int:
        """The number of the layer's nodes; 0 before it has one. A chain's XML has it on <backingStore>."""
        own = self._store.index if self._store is not None else None
        return own or self.source.index or 0

    @index.setter
    def index(self, number: int) -> None:
        if self._store is None:
            self.source.index = number
        else:
            self._store.index, self.source.index = number, None

    @property
    def name(self) -> str:
        return f"libvirt-{self.index}"

    @property
    def sliced(self) -> Slice | None:
        """The part of the storage that the image is in."""
        return next(iter(self.source.common.slices), None)

    @property
    def storage(self) -> str:
        """The node that the format's node is put on; a raw image is cut out by its own node."""
        cut = self.sliced is not None and (self.format is not StorageFormat.RAW or self.encrypted)
        return f"{self.name}-slice-sto" if cut else f"{self.name}-storage"

    @property
    def encrypted(self) -> bool:
        """QEMU itself decrypts."""
        return self.encryption is not None and self.encryption.engine is not EncryptionEngine.LIBRBD


def layers_of(disk: Disk) -> Iterator[Layer]:
    """The layers of a disk, the one the guest writes to first; none for an empty drive."""
    if disk.source is None or isinstance(disk.source, VhostUserSource):
        return
    driver = disk.driver or DiskDriver()
    store = disk.backing_store
    layer = Layer(disk.source, driver.type or StorageFormat.RAW, store, ends=_ends(store))
    layer.cache_size = driver.metadata_cache.max_size if driver.metadata_cache else None
    layer.encryption, layer.auth = layer.encryption or disk.encryption, layer.auth or disk.auth
    yield layer
    while store is not None and store.source is not None:
        layer = Layer(
            store.source,
            (store.format_.type if store.format_ else None) or StorageFormat.RAW,
            store.backing_store,
            ends=_ends(store.backing_store),
            store=store,
        )
        if store.format_ is not None and store.format_.metadata_cache is not None:
            layer.cache_size = store.format_.metadata_cache.max_size
        yield layer
        store = store.backing_store


def every_layer(disk: Disk) -> Iterator[Layer]:
    """The layers of a disk, each before the one that holds its data, if another one does."""
    for layer in layers_of(disk):
        yield layer
        if layer.data is not None:
            yield layer.data


def _ends(store: BackingStore | None) -> bool:
    """An empty <backingStore/> says that nothing is below, whatever the image claims."""
    return store is not None and store.source is None


def last_node(definition: DomainDef) -> int:
    """The highest number that a node has."""
    disks = definition.devices.disk
    numbers = [layer.index for disk in disks for layer in every_layer(disk)]
    return max(numbers + [number for disk in disks for number in filter_numbers(disk)], default=0)


def number_nodes(definition: DomainDef) -> None:
    """Give every layer of every disk its number, unless it has one. New ones follow the highest."""
    number = last_node(definition)
    for disk in reversed(definition.devices.disk):
        if disk.target.bus is DiskBus.SD:
            continue
        layers = list(every_layer(disk))
        if not layers and not isinstance(disk.source, VhostUserSource):
            number += 1  # kept for the medium that will be put in
        for layer in layers:
            if not layer.index:
                number += 1
                layer.index = number
        if layers:
            number = number_filters(disk, number)


def disk_node(disk: Disk) -> tuple[str, ...]:
    """Names of the nodes of a running guest's disk, all layers: what events and statistics may name."""
    names = [f"{layer.name}-{part}" for layer in every_layer(disk) for part in ("format", "storage")]
    if disk.driver is not None and disk.driver.copy_on_read:
        names.insert(0, copy_on_read_node(disk))
    return (*reversed(filter_nodes(disk)), *names)


def top_node(disk: Disk) -> str | None:
    """The node that the guest's device is attached to; None for an empty drive."""
    data = _data_node(disk)
    return data and (filter_nodes(disk) or [data])[-1]


def _data_node(disk: Disk) -> str | None:
    """The node below the filters."""
    first = next(layers_of(disk), None)
    if first is None:
        return None
    if disk.driver is not None and disk.driver.copy_on_read:
        return copy_on_read_node(disk)
    return f"{first.name}-format"


def disk_qdev(disk: Disk) -> str:
    """The id of the guest's device in QEMU, as block commands take it."""
    alias = disk.info.alias or ""
    return f"/machine/peripheral/{alias}/virtio-backend" if disk.target.bus is DiskBus.VIRTIO else alias


def copy_on_read_node(disk: Disk) -> str:
    return f"libvirt-CoR-{disk.target.dev}"


def build_disk_nodes(build: Builder, disk: Disk) -> None:
    """-blockdev of all layers, the lowest first"""
    layers = list(layers_of(disk))
    for place, layer in reversed(list(enumerate(layers))):
        if layer.data is not None:
            _build_storage(build, disk, layer.data, top=place == 0)
            build.command.add("-blockdev", _data_format(disk, layer.data, top=place == 0).text())
        _build_storage(build, disk, layer, top=place == 0)
        build.command.add("-blockdev", _layer_format(build, disk, layers, place).text())
    if disk.driver is not None and disk.driver.copy_on_read and layers:
        props = Props({"driver": "copy-on-read", "node-name": copy_on_read_node(disk)})
        build.command.add("-blockdev", props.put("file", f"{layers[0].name}-format").put("discard", "unmap").text())
    if (data := _data_node(disk)) is not None:
        build_filters(build, disk, data)


def _build_storage(build: Builder, disk: Disk, layer: Layer, *, top: bool) -> None:
    """-blockdev of what is below a layer's format"""
    _secrets(build, layer)
    readonly = not top or is_readonly(disk)
    props = storage_props(build, layer.source, layer.name, disk, layer=layer, readonly=readonly)
    build.command.add("-blockdev", props.text())
    if layer.sliced is not None and layer.storage != f"{layer.name}-storage":
        props = Props({"driver": "raw", "node-name": layer.storage})
        props.put("offset", layer.sliced.offset).put("size", layer.sliced.size).put("file", f"{layer.name}-storage")
        build.command.add("-blockdev", props.put("auto-read-only", True).put("discard", "unmap").text())


def _data_format(disk: Disk, data: Layer, *, top: bool) -> Props:
    """The node of a data file; what the image above discards is discarded there."""
    props = format_props(data.format, data.name, readonly=not top or is_readonly(disk), disk=disk, top=False)
    _put_slice(props, data)
    return props.put("discard", "unmap").put("file", data.storage)


def _put_slice(props: Props, layer: Layer) -> None:
    if layer.sliced is not None and layer.storage == f"{layer.name}-storage":
        props.put("offset", layer.sliced.offset).put("size", layer.sliced.size)


def _layer_format(build: Builder, disk: Disk, layers: list[Layer], place: int) -> Props:
    layer = layers[place]
    readonly = place > 0 or is_readonly(disk)
    props = format_props(layer.format, layer.name, readonly=readonly, disk=disk, top=place == 0)
    if layer.cache_size and layer.format is StorageFormat.QCOW2:
        props.put("cache-size", layer.cache_size)
    _put_encryption(build, props, layer)
    _put_slice(props, layer)
    props.put("file", layer.storage)
    if layer.data is not None:
        props.put("data-file", f"{layer.data.name}-format")
    if place + 1 < len(layers):
        props.put("backing", f"{layers[place + 1].name}-format")
    elif layer.ends and layer.format in _WITH_BACKING:
        props["backing"] = None
    return props


def _put_encryption(build: Builder, props: Props, layer: Layer) -> None:
    """A raw image in LUKS is a format of its own; qcow2 has it within."""
    key = give_passphrase(build, layer.encryption if layer.encrypted else None, f"{layer.name}-format")
    if key is None:
        return
    if layer.format is StorageFormat.RAW:
        props.put("driver", "luks").put("key-secret", key)
    else:
        props.put("encrypt", {"format": "luks", "key-secret": key})


_WITH_BACKING = (StorageFormat.QCOW2, StorageFormat.QCOW, StorageFormat.QED, StorageFormat.VMDK, StorageFormat.COW)


def is_readonly(disk: Disk) -> bool:
    """The guest may not write."""
    return disk.readonly


def cache_mode(disk: Disk | None) -> DiskCache | None:
    """The cache mode; a disk that several guests write to must not be cached by the host."""
    if disk is None:
        return None
    if disk.driver is not None and disk.driver.cache is not None:
        return disk.driver.cache
    return DiskCache.NONE if disk.shareable and not disk.readonly else None


def cache_of(disk: Disk | None) -> Json:
    """The `cache` member of a node; None where the definition leaves it to QEMU."""
    mode = cache_mode(disk)
    if mode is None:
        return None
    _, direct, no_flush = _CACHES[mode]
    return {"direct": direct, "no-flush": no_flush}


def write_cache(disk: Disk) -> str | None:
    """Whether the guest's disk has a cache that it must flush."""
    mode = cache_mode(disk)
    return None if mode is None else "on" if _CACHES[mode][0] else "off"


def storage_props(
    build: Builder,
    source: AnySource,
    name: str,
    disk: Disk | None = None,
    *,
    layer: Layer | None = None,
    readonly: bool = False,
) -> Props:
    """The node that reaches the data; `readonly`: the guest may not write there."""
    props = protocol_props(build, source, name, disk)
    auth, encryption = (layer.auth, layer.encryption) if layer else (source.common.auth, source.common.encryption)
    if isinstance(source, NetworkSource):
        if not by_nbdkit(source):
            put_auth(build, props, source, auth, f"{name}-storage")
        if encryption is not None and encryption.engine is EncryptionEngine.LIBRBD:
            put_rbd_encryption(build, props, encryption, f"{name}-storage")
    if (
        disk is not None
        and disk.driver is not None
        and disk.driver.io is not None
        and props["driver"]
        in (
            "file",
            "host_device",
            "host_cdrom",
        )
    ):
        props.put("aio", str(disk.driver.io))
    manager = _pr_manager(build, source, name)
    if manager is not None:
        props.put("pr-manager", manager)
    props["node-name"] = f"{name}-storage"
    props.put("cache", cache_of(disk))
    if isinstance(source, FileSource) and len(build.context.lent.get(source.fdgroup or "", ())) == 1:
        props["read-only"] = readonly  # QEMU cannot begin with one that is open for reading alone
    else:
        props["auto-read-only"] = True
    props["discard"] = "unmap"
    return props


def _pr_manager(build: Builder, source: AnySource, name: str) -> str | None:
    reservations = source.common.reservations
    if reservations is None:
        return None
    return "pr-helper0" if reservations.managed else f"pr-helper-{name}-storage"


def format_props(
    kind: StorageFormat, name: str, *, readonly: bool, disk: Disk | None = None, top: bool = True
) -> Props:
    """The node that understands the format, without what is below it."""
    props = Props({"node-name": f"{name}-format", "read-only": readonly})
    driver = disk.driver if disk is not None else None
    if driver is not None and top:
        if driver.discard is not None:
            props.put("discard", str(driver.discard))
        zeroes = driver.detect_zeroes
        if zeroes is DetectZeroes.UNMAP and driver.discard is not Discard.UNMAP:
            zeroes = DetectZeroes.ON
        props.put("detect-zeroes", str(zeroes) if zeroes is not None else None)
    props.put("cache", cache_of(disk))
    props["driver"] = _FORMATS.get(kind, str(kind))
    if disk is None:
        props["file"] = f"{name}-storage"
    return props


_FORMATS = {
    StorageFormat.ISO: "raw",
    StorageFormat.DIR: "raw",
    StorageFormat.FAT: "raw",
    StorageFormat.VHD: "vhdx",
    StorageFormat.PLOOP: "parallels",
}


def _secrets(build: Builder, layer: Layer) -> None:
    """Objects that a layer's nodes refer to."""
    source = layer.source
    _persistent_reservations(build, layer)
    if isinstance(source, NetworkSource) and source.cookies:
        _cookies(build, source, layer.name)
    if isinstance(source, NetworkSource) and source.tls:
        directory = build.config.nbd_tls_x509_cert_dir or build.config.default_tls_x509_cert_dir or "/etc/pki/qemu"
        props = Props({"qom-type": "tls-creds-x509", "id": f"obj{layer.name}-storage_tls0", "dir": directory})
        build.object(props.put("endpoint", "client").put("verify-peer", True))


def _persistent_reservations(build: Builder, layer: Layer) -> None:
    """The helper that makes reservations for QEMU: one of ours for all disks, or one the definition names."""
    reservations = layer.source.common.reservations
    if reservations is None:
        return
    if reservations.managed:
        name, path = "pr-helper0", str(build.context.directory / "pr-helper0.sock")
        if name in build.objects:
            return
    else:
        name = f"pr-helper-{layer.name}-storage"
        path = (reservations.source.path if reservations.source else None) or ""
    build.object(Props({"qom-type": "pr-manager-helper", "id": name, "path": path}))


def _cookies(build: Builder, source: NetworkSource, name: str) -> None:
    """Cookies are secrets: a file that only QEMU may read, not words on its command line."""
    alias = f"{name}-storage-httpcookie-secret0"
    text = "; ".join(f"{cookie.name}={cookie.value or ''}" for cookie in source.cookies)
    build.secret(alias, text.encode())
