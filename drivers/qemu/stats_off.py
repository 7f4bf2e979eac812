"""Statistics of domains that are off: what their definitions tell, made once for each, and how big their images are."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from pyvirtd.api.types import PreparedParams, TypedParam, param_int, param_string, param_uint, param_ullong
from pyvirtd.constants.domain import DomainState
from pyvirtd.constants.domain import DomainStatsTypes as Group
from pyvirtd.drivers.qemu.blocks_find import Layer, chain, is_empty, local_path, measured_path
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.stats_image import Image, ImageSize
from pyvirtd.model.disk import Disk
from pyvirtd.model.domain import DomainDef

# What needs a QEMU that runs or its capabilities; asking for it of a domain that is off is refused where enforced.
ONLY_RUNNING = Group.IOTHREAD | Group.DIRTYRATE | Group.VM

Sizes = Mapping[Image, ImageSize | None]
_states: dict[tuple[DomainState, int], list[TypedParam]] = {}


def state_params(dom: QemuDomain) -> list[TypedParam]:
    """The state and its reason."""
    key = dom.state, dom.reason
    if key not in _states:
        _states[key] = [param_int("state.state", dom.state), param_int("state.reason", dom.reason)]
    return _states[key]


@dataclass(frozen=True, slots=True)
class _BlockEntry:
    """One image in the block group; `image` is what to measure."""

    prefix: str
    params: list[TypedParam]
    image: Image | None


@dataclass(slots=True)
class _Told:
    """What one definition tells, and the last answer made of it: `key` is all that may change in that."""

    revision: int
    balloon: list[TypedParam]
    vcpu: list[TypedParam]
    blocks: list[_BlockEntry]
    images: list[Image]
    key: tuple[object, ...] = ()
    params: PreparedParams = field(default_factory=PreparedParams)

    def answer(self, dom: QemuDomain, groups: Group, sizes: Sizes) -> PreparedParams:
        """The parameters of these groups, as before where nothing changed."""
        key = (groups, dom.state, dom.reason, *[sizes.get(image) for image in self.images])
        if key != self.key:
            self.key, self.params = key, PreparedParams(self._params(dom, groups, sizes))
        return self.params

    def _params(self, dom: QemuDomain, groups: Group, sizes: Sizes) -> Iterator[TypedParam]:
        if groups & Group.STATE:
            yield from state_params(dom)
        if groups & Group.BALLOON:
            yield from self.balloon
        if groups & Group.VCPU:
            yield from self.vcpu
        if groups & Group.BLOCK:
            yield param_uint("block.count", len(self.blocks))
            for entry in self.blocks:
                yield from entry.params
                if entry.image is not None and (size := sizes.get(entry.image)) is not None:
                    yield from _size_params(entry.prefix, size)


class OffStats:
    """Keeps what definitions tell until they change: a definition that is in use is replaced, never edited."""

    def __init__(self) -> None:
        self._plain: WeakKeyDictionary[QemuDomain, _Told] = WeakKeyDictionary()
        self._with_backing: WeakKeyDictionary[QemuDomain, _Told] = WeakKeyDictionary()

    def images(self, dom: QemuDomain, *, backing: bool) -> list[Image]:
        """What must be measured for the block group."""
        return self._of(dom, backing).images

    def params(self, dom: QemuDomain, groups: Group, sizes: Sizes, *, backing: bool) -> PreparedParams:
        """The parameters of a domain, with what was measured."""
        return self._of(dom, backing).answer(dom, groups, sizes)

    def _of(self, dom: QemuDomain, backing: bool) -> _Told:
        table = self._with_backing if backing else self._plain
        told = table.get(dom)
        if told is None or told.revision != dom.revision:
            told = table[dom] = _tell(dom.config, dom.revision, backing)
        return told


def _tell(definition: DomainDef, revision: int, backing: bool) -> _Told:
    memory = definition.memory.kib
    current = definition.current_memory_kib if definition.current_memory_kib is not None else memory
    vcpu = definition.vcpu
    blocks = [
        _BlockEntry(f"block.{number}", list(block_header(f"block.{number}", disk, layer)), _image(layer))
        for number, (disk, layer) in enumerate(layers(definition, backing=backing))
    ]
    return _Told(
        revision,
        [param_ullong("balloon.current", current), param_ullong("balloon.maximum", memory)],
        [param_uint("vcpu.current", vcpu.current or vcpu.count), param_uint("vcpu.maximum", vcpu.count)],
        blocks,
        [entry.image for entry in blocks if entry.image is not None],
    )


def _image(layer: Layer | None) -> Image | None:
    path = measured_path(layer.source) if layer is not None else ""
    return Image(path, layer.format_) if layer is not None and path else None


def layers(definition: DomainDef, *, backing: bool) -> Iterable[tuple[Disk, Layer | None]]:
    """The entries of the block group: every disk, None for an empty drive, and with `backing` every image below."""
    for disk in definition.devices.disk:
        images = [] if is_empty(disk) else list(chain(disk))
        if not images:
            yield disk, None
        for layer in images if backing else images[:1]:
            yield disk, layer


def block_header(prefix: str, disk: Disk, layer: Layer | None) -> Iterator[TypedParam]:
    """What names an entry of the block group."""
    yield param_string(f"{prefix}.name", disk.target.dev or "")
    if layer is not None:
        if path := local_path(layer.source):
            yield param_string(f"{prefix}.path", path)
        if layer.number:
            yield param_uint(f"{prefix}.backingIndex", layer.number)


def _size_params(prefix: str, size: ImageSize) -> Iterator[TypedParam]:
    for name, value in zip(ImageSize._fields, size, strict=True):
        if value:
            yield param_ullong(f"{prefix}.{name}", value)
