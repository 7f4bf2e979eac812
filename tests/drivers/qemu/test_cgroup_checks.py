"""What a definition asks of control groups where there are none."""

from pathlib import Path

import pytest

from pyvirtd.core.cgroup import Hierarchies
from pyvirtd.drivers.qemu.cgroups import check_groups, device_rules, memory_nodes
from pyvirtd.errors import ConfigUnsupported
from pyvirtd.model.domain import DomainDef

DOMAIN = (
    "<domain type='qemu'><name>x</name><memory>1</memory><vcpu>2</vcpu>{}<os><type>hvm</type></os>"
    "<devices>{}</devices></domain>"
)
ALL = Hierarchies({"cpu": Path("/c"), "memory": Path("/m")}, None, frozenset())
NONE = Hierarchies()


def domain(top: str = "", devices: str = "") -> DomainDef:
    return DomainDef.parse(DOMAIN.format(top, devices))


@pytest.mark.parametrize(
    ("top", "words"),
    [
        ("<blkiotune><weight>500</weight></blkiotune>", "Block I/O tuning"),
        ("<memtune><soft_limit>500000</soft_limit></memtune>", "Memory tuning"),
        ("<cputune><shares>10</shares></cputune>", "CPU tuning"),
    ],
)
def test_session_has_no_limits(top: str, words: str) -> None:
    with pytest.raises(ConfigUnsupported, match=f"{words} is not available in session mode"):
        check_groups(domain(top), NONE, privileged=False)


def test_pins_need_no_control_group() -> None:
    check_groups(domain("<cputune><vcpupin vcpu='0' cpuset='0'/></cputune>"), NONE, privileged=False)


def test_without_controllers_only_limits_of_time_are_refused() -> None:
    check_groups(domain("<cputune><shares>10</shares></cputune>"), NONE, privileged=True)
    timed = domain("<cputune><emulator_quota>5000</emulator_quota></cputune>")
    with pytest.raises(ConfigUnsupported, match="cgroup cpu is required for scheduler tuning"):
        check_groups(timed, NONE, privileged=True)
    check_groups(timed, ALL, privileged=True)


def test_devices_of_a_definition_are_allowed_and_files_need_nothing() -> None:
    rules = device_rules(
        domain(
            devices="<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"
            "<disk type='file'><source file='/etc/hostname'/><target dev='vda' bus='virtio'/></disk>"
        )
    )
    assert [tuple(rule) for rule in rules] == [("c", "1:9", "r")]


def test_only_strict_and_restrictive_nodes_bind_all_memory() -> None:
    assert memory_nodes(domain("<numatune><memory mode='strict' nodeset='0'/></numatune>")) == {0}
    assert memory_nodes(domain("<numatune><memory mode='interleave' nodeset='0'/></numatune>")) is None
    assert memory_nodes(domain()) is None
