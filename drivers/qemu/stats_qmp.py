"""What QEMU's answers to statistics commands say, as figures.

https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pyvirtd.api.types import TypedParam, param_boolean, param_ullong
from pyvirtd.constants.domain import DomainMemoryStatTags as Tag

Answer = dict[str, Any]

UNKNOWN = 2**64 - 1  # virtio: a balloon statistic that the guest never told


# --- disks ------------------------------------------------------------------------------------------------------


class Traffic(NamedTuple):
    """What a guest did with a drive since it started; times in nanoseconds."""

    rd_reqs: int = 0
    rd_bytes: int = 0
    rd_ns: int = 0
    wr_reqs: int = 0
    wr_bytes: int = 0
    wr_ns: int = 0
    flush_reqs: int = 0
    flush_ns: int = 0

    def plus(self, other: "Traffic") -> "Traffic":
        """The sum of both."""
        return Traffic(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Node(NamedTuple):
    """One block node: bytes the guest sees, bytes on the host, the event's threshold (0: none)."""

    capacity: int
    physical: int
    threshold: int


@dataclass(slots=True)
class BlockStats:
    """The answer to query-blockstats: traffic by device alias, highest offset written by block node."""

    traffic: dict[str, Traffic] = field(default_factory=dict)
    highest: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, answers: Iterable[Answer]) -> "BlockStats":
        stats = cls()
        for answer in answers:
            figures = answer["stats"]
            traffic = Traffic(
                figures["rd_operations"],
                figures["rd_bytes"],
                figures["rd_total_time_ns"],
                figures["wr_operations"],
                figures["wr_bytes"],
                figures["wr_total_time_ns"],
                figures["flush_operations"],
                figures["flush_total_time_ns"],
            )
            stats.traffic[device_alias(answer)] = traffic
            stats._note_chain(answer)
        return stats

    def _note_chain(self, answer: Answer) -> None:
        layer: Answer | None = answer
        while layer is not None:
            # "parent" is the node below a format: its offsets are those of the host's file.
            if (name := layer.get("node-name")) is not None:
                self.highest[name] = layer.get("parent", layer)["stats"]["wr_highest_offset"]
            layer = layer.get("backing")


def device_alias(answer: Answer) -> str:
    """The alias in an answer about a drive: it leads the device's QOM path, or is all that QEMU gives of it."""
    path = str(answer.get("qdev") or "")
    if path:
        return path.removeprefix("/machine/peripheral/").partition("/")[0]
    return str(answer.get("device") or "").removeprefix("drive-")


def block_nodes(answers: Iterable[Answer]) -> dict[str, Node]:
    """The answer to query-named-block-nodes, by node name."""
    return {
        answer["node-name"]: Node(
            answer["image"].get("virtual-size", 0),
            answer["image"].get("actual-size", 0),
            answer.get("write_threshold", 0),
        )
        for answer in answers
    }


def write_mark(nodes: Mapping[str, Node], number: int) -> int:
    """Where a write to a numbered image is told of; 0 for nowhere. The mark is on the node next to the format's."""
    names = (f"libvirt-{number}-slice-sto", f"libvirt-{number}-storage")
    return max(nodes[name].threshold if name in nodes else 0 for name in names)


# --- memory -----------------------------------------------------------------------------------------------------

# virtio's tag, what a client calls it in bulk statistics, its number in virDomainMemoryStats, bytes to divide by.
BALLOON_FIGURES = (
    ("stat-swap-in", "swap_in", Tag.SWAP_IN, 1024),
    ("stat-swap-out", "swap_out", Tag.SWAP_OUT, 1024),
    ("stat-major-faults", "major_fault", Tag.MAJOR_FAULT, 1),
    ("stat-minor-faults", "minor_fault", Tag.MINOR_FAULT, 1),
    ("stat-free-memory", "unused", Tag.UNUSED, 1024),
    ("stat-total-memory", "available", Tag.AVAILABLE, 1024),
    ("stat-available-memory", "usable", Tag.USABLE, 1024),
    ("last-update", "last-update", Tag.LAST_UPDATE, 1),
    ("stat-disk-caches", "disk_caches", Tag.DISK_CACHES, 1024),
    ("stat-htlb-pgalloc", "hugetlb_pgalloc", Tag.HUGETLB_PGALLOC, 1),
    ("stat-htlb-pgfail", "hugetlb_pgfail", Tag.HUGETLB_PGFAIL, 1),
)


class BalloonFigure(NamedTuple):
    """One figure the guest told of its memory; KiB or a count."""

    name: str
    tag: Tag
    value: int


def balloon_figures(answer: Answer) -> list[BalloonFigure]:
    """A balloon's `guest-stats`, in the order clients see it, without what the guest never told."""
    told = answer.get("stats", {})
    found = []
    for key, name, tag, unit in BALLOON_FIGURES:
        value = answer.get(key) if key == "last-update" else told.get(key)
        if value is not None and 0 <= value < UNKNOWN:
            found.append(BalloonFigure(name, tag, value // unit))
    return found


# --- KVM --------------------------------------------------------------------------------------------------------

KVM_ENDINGS = {"cumulative": "sum", "instant": "cur", "peak": "max"}  # histograms are not told


class KvmFigure(NamedTuple):
    """How one of KVM's statistics is told: its full name, and whether it is true or false."""

    name: str
    boolean: bool


def kvm_schema(answers: Iterable[Answer]) -> dict[str, dict[str, KvmFigure]]:
    """query-stats-schemas by target ("vm", "vcpu"), then by the name that query-stats uses."""
    schema: dict[str, dict[str, KvmFigure]] = {}
    for answer in answers:
        figures = schema.setdefault(answer["target"], {})
        for stat in answer["stats"]:
            ending = KVM_ENDINGS.get(stat["type"])
            if ending is not None:
                figures[stat["name"]] = KvmFigure(f"{stat['name']}.{ending}", stat.get("unit") == "boolean")
    return schema


def kvm_params(prefix: str, stats: Iterable[Answer], schema: dict[str, KvmFigure]) -> list[TypedParam]:
    """One entry of query-stats as parameters."""
    params = []
    for stat in stats:
        figure, value = schema.get(stat["name"]), stat["value"]
        if figure is None or isinstance(value, list):
            continue
        name = f"{prefix}.{figure.name}"
        params.append(param_boolean(name, bool(value)) if figure.boolean else param_ullong(name, int(value)))
    return params
