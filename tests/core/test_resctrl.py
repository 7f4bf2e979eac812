"""Groups of resctrl, in a folder of plain files: `FakeResctrl` does what the kernel would when a group is made.

What the kernel refuses by itself (masks with holes, too many groups) is not seen here.
"""

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from pyvirtd.core import resctrl
from pyvirtd.core.host_topology import CacheBank
from pyvirtd.core.resctrl import CacheShare, Count, Resctrl, format_schemata, parse_schemata
from pyvirtd.errors import ConfigUnsupported, OperationTimeout, SystemError_

BANKS = [CacheBank(0, 3, "both", 16384, "0-1"), CacheBank(1, 3, "both", 16384, "2-3")]
DEFAULT = "L3:0=000f;1=00ff\nMB:0=100;1=100\n"
MIB = 1 << 20


class FakeResctrl(Resctrl):
    """Two caches of 16 ways and 16 MiB; the default group keeps 4 ways of the first and 8 of the second."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        for name, text in (("L3/cbm_mask", "ffff"), ("L3/min_cbm_bits", "2"), ("MB/bandwidth_gran", "10"),
                           ("MB/min_bandwidth", "10"),
                           ("L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes")):  # fmt: skip
            (root / "info" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "info" / name).write_text(f"{text}\n")
        (root / "mon_groups").mkdir()
        (root / "schemata").write_text(DEFAULT)

    def make_directory(self, path: Path) -> None:
        super().make_directory(path)
        (path / "tasks").touch()
        if path.parent.name != "mon_groups":
            (path / "schemata").write_text(DEFAULT.replace("00ff", "ffff"))
            (path / "mon_groups").mkdir()
        for number in range(2):
            folder = path / f"mon_data/mon_L3_{number:02}"
            folder.mkdir(parents=True)
            for add, name in enumerate(("llc_occupancy", "mbm_local_bytes", "mbm_total_bytes")):
                (folder / name).write_text(f"{1000 * (number + 1) + add}\n")

    def remove_directory(self, path: Path) -> None:
        shutil.rmtree(path)

    def write(self, path: Path, text: str) -> None:
        with open(path, "a" if path.name == "tasks" else "r+") as file:
            file.write(text)


@pytest.fixture
def host(tmp_path: Path) -> FakeResctrl:
    return FakeResctrl(tmp_path)


def part(size: int, cache: int = 0, kind: str = "both") -> CacheShare:
    return CacheShare(3, cache, kind, size)


def shares(host: Resctrl, name: str) -> str:
    return format_schemata(parse_schemata((host.root / name / "schemata").read_text()))


def test_schemata_are_read_as_they_are_printed() -> None:
    text = "L3CODE:0=fff;1=f0\nMB:0=20;1=100\n"
    assert parse_schemata(text) == {"L3CODE": {0: 0xFFF, 1: 0xF0}, "MB": {0: 20, 1: 100}}
    assert format_schemata(parse_schemata(text)) == text
    assert parse_schemata("    L3:0=0fff\n") == {"L3": {0: 0xFFF}}


def test_shares_are_ways_that_nobody_has(host: FakeResctrl) -> None:
    host.make("one", [part(4 * MIB)], {0: 30}, BANKS)
    host.make("two", [part(2 * MIB), part(8 * MIB, 1)], {0: 60}, BANKS)
    assert shares(host, "one") == "L3:0=f0;1=ff\nMB:0=30;1=100\n"
    assert shares(host, "two") == "L3:0=300;1=ff00\nMB:0=60;1=100\n"
    host.remove("one")
    host.make("three", [part(3 * MIB)], {}, BANKS)  # the smallest gap that is large enough
    assert shares(host, "three").startswith("L3:0=70;")


@pytest.mark.parametrize(
    ("caches", "memory", "words"),
    [
        (
            [part(13 * MIB)],
            {},
            f"Not enough room for allocation of {13 * MIB} bytes for level 3 cache 0 scope type 'both'",
        ),
        ([part(MIB)], {}, f"Cache allocation of size {MIB} is smaller than the minimum allowed allocation {2 * MIB}"),
        ([part(3)], {}, f"Cache allocation of size 3 is not divisible by granularity {MIB}"),
        ([part(2 * MIB, 5)], {}, "Cache level 3 id 5 does not support tuning for scope type 'both'"),
        ([part(2 * MIB, kind="code")], {}, "Cache level 3 id 0 does not support tuning for scope type 'code'"),
        ([part(2 * MIB), part(3 * MIB)], {}, "Colliding cache allocations for cache level '3' id '0', type 'both'"),
        ([], {0: 15}, "Memory Bandwidth allocation of size 15 is not divisible by granularity 10"),
        ([], {0: 0}, "Memory Bandwidth allocation of size 0 is smaller than the minimum allowed allocation 10"),
        ([], {7: 20}, "Memory Bandwidth allocation of node 7 is not supported by this host"),
        ([], {0: 80}, "Not enough room for allocation of 80% bandwidth on node 0, available bandwidth 70%"),
    ],
)
def test_shares_that_cannot_be_are_named(
    host: FakeResctrl, caches: list[CacheShare], memory: dict[int, int], words: str
) -> None:
    host.make("other", [], {0: 30}, BANKS)
    with pytest.raises(ConfigUnsupported) as refusal:
        host.make("one", caches, memory, BANKS)
    assert refusal.value.detail == words
    assert not (host.root / "one").exists()


def test_group_that_the_kernel_refuses_leaves_nothing(host: FakeResctrl, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, text: str) -> None:
        raise OSError(22, os.strerror(22))

    monkeypatch.setattr(host, "write", write)
    with pytest.raises(SystemError_, match=r"Cannot create resctrl group '.*/one': Invalid argument"):
        host.make("one", [part(2 * MIB)], {}, BANKS)
    assert not (host.root / "one").exists()


def test_other_programs_are_waited_for_a_while(host: FakeResctrl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resctrl, "LOCK_S", 0.1)
    fd = os.open(host.root, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(OperationTimeout, match="locked by another program"):
            host.make("one", [], {0: 10}, BANKS)
    finally:
        os.close(fd)
    host.make("one", [], {0: 10}, BANKS)


def test_counts_are_per_cache(host: FakeResctrl) -> None:
    host.make_monitor("", "m")
    assert host.counts("mon_groups/m", "llc_occupancy") == [Count(0, 1000), Count(1, 2000)]
    assert host.counts("mon_groups/m", "nothing") == []
    assert host.can_count("llc_occupancy")
    assert not host.can_count("nothing")
    host.remove_left("m")
    host.remove("mon_groups/m")
    assert not host.counts("mon_groups/m", "llc_occupancy")
