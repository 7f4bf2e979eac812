"""Control groups: names, what is mounted, and how limits are written in either version."""

from pathlib import Path

import pytest

from pyvirtd.core import cgroup_limits as limits
from pyvirtd.core.cgroup import (
    Group,
    Hierarchies,
    machine_name,
    make_partition,
    partition_path,
    scope_name,
    slice_name,
)
from pyvirtd.errors import ConfigUnsupported, InvalidArg, SystemError_

V1 = """\
sysfs /sys sysfs rw 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0
cgroup2 {unified} cgroup2 rw 0 0
"""


@pytest.mark.parametrize(
    ("name", "machine"),
    [
        ("a_b c..d--e", "qemu-1-abc.d-e"),
        ("Ünï.x", "qemu-1-n.x"),
        (".dot", "qemu-1-dot"),
        ("h8-1.", "qemu-1-h8-1"),
        ("x" * 80, "qemu-1-" + "x" * 57),
    ],
)
def test_machine_name_has_only_what_a_host_name_may_have(name: str, machine: str) -> None:
    assert machine_name(1, name) == machine


def test_partitions_are_paths_and_slices() -> None:
    assert partition_path("/machine/production") == "machine/production.partition"
    assert partition_path("/a/cpu.b") == "a.partition/_cpu.b.partition"
    assert slice_name("/machine/production") == "machine-production.slice"
    assert scope_name("qemu-1-x") == r"machine-qemu\x2d1\x2dx.scope"


@pytest.mark.parametrize("path", ["nolead", "/a/../../b", "/./a"])
def test_partition_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(ConfigUnsupported, match="Resource partition"):
        partition_path(path)


def test_controllers_of_both_versions_are_found(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("io hugetlb cpu\n")
    found = Hierarchies.read(None, V1.format(unified=tmp_path))
    assert found.v1["cpuacct"] == Path("/sys/fs/cgroup/cpu,cpuacct")
    assert found.v2 == {"blkio"}  # cpu is version 1's here, and libvirt uses no hugetlb
    assert Hierarchies.read(("memory",), V1.format(unified=tmp_path)).controllers == {"memory"}
    assert not Hierarchies.read(None, "").controllers


def v2_group(tmp_path: Path, **files: str) -> Group:
    """A folder that looks like a group of version 2."""
    for name, text in files.items():
        (tmp_path / name.replace("_", ".", 1)).write_text(text)
    return Group({}, tmp_path, frozenset(("cpu", "memory", "blkio", "cpuset", "cpuacct")))


def test_processor_time_in_version_2(tmp_path: Path) -> None:
    group = v2_group(tmp_path, cpu_max="max 100000\n", cpu_weight="100\n", cpu_stat="usage_usec 7\nuser_usec 4\n")
    assert limits.bandwidth(group) == (100000, 17592186044415)
    limits.set_bandwidth(group, None, 20000)
    assert (tmp_path / "cpu.max").read_text() == "20000 100000"
    limits.set_bandwidth(group, 50000, None)
    assert (tmp_path / "cpu.max").read_text().split()[1] == "50000"
    limits.set_bandwidth(group, None, -1)
    assert (tmp_path / "cpu.max").read_text().startswith("max ")
    with pytest.raises(InvalidArg, match=r"shares '20000' must be in range \[1, 10000\]"):
        limits.set_shares(group, 20000)
    assert limits.cpu_times(group) == (7000, 4000, 0)


def test_memory_and_swap_together_in_version_2(tmp_path: Path) -> None:
    group = v2_group(tmp_path)
    for name in ("memory.max", "memory.high", "memory.swap.max"):
        (tmp_path / name).write_text("max\n")
    assert set(limits.memory_limits(group).values()) == {limits.UNLIMITED_KIB}
    with pytest.raises(InvalidArg, match="lower than or equal to swap_hard_limit"):
        limits.set_memory_limit(group, "swap_hard_limit", 1000)
    (tmp_path / "memory.max").write_text("")
    limits.set_memory_limit(group, "hard_limit", 600)
    (tmp_path / "memory.swap.max").write_text("")
    limits.set_memory_limit(group, "swap_hard_limit", 1000)
    assert (tmp_path / "memory.swap.max").read_text() == str(400 * 1024)
    assert limits.memory_limits(group) == {
        "hard_limit": 600,
        "soft_limit": limits.UNLIMITED_KIB,
        "swap_hard_limit": 1000,
    }


def test_refusal_of_the_kernel_names_file_and_value(tmp_path: Path) -> None:
    group = v2_group(tmp_path)
    with pytest.raises(SystemError_, match=r"Unable to write to '.*/cpu\.weight': No such file or directory"):
        limits.set_shares(group, 5)
    with pytest.raises(SystemError_, match="Path '/nonex' is not accessible"):
        limits.set_device_limit(v2_group(tmp_path, io_max=""), "/nonex", "read_iops_sec", 5)


def test_partition_that_is_missing_is_not_made(tmp_path: Path) -> None:
    hierarchies = Hierarchies({"cpu": tmp_path}, None, frozenset())
    with pytest.raises(SystemError_, match=r"other\.partition': No such file"):
        make_partition(hierarchies, "/other")
    make_partition(hierarchies, "/machine")
    assert (tmp_path / "machine").is_dir()
    made = hierarchies.group("machine").child("x")
    made.make()
    assert made.remove()
    assert not (tmp_path / "machine" / "x").exists()
