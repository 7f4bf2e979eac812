"""Guests in control groups of their own, as a client and the kernel see it. The hosts here have version 1."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.domains import bare_domain
from tests.support.host import CGROUPS, SystemHost

pytestmark = pytest.mark.guest
TUNED = """
  <memtune><soft_limit unit='MiB'>300</soft_limit></memtune>
  <cputune>
    <shares>512</shares><period>100000</period><quota>50000</quota>
    <global_period>90000</global_period><global_quota>80000</global_quota>
    <emulator_period>90000</emulator_period><emulator_quota>40000</emulator_quota>
    <vcpupin vcpu='0' cpuset='0'/>
  </cputune>
"""


@pytest.fixture(scope="module")
def host() -> Iterator[SystemHost]:
    """A system daemon with control groups."""
    if reason := SystemHost.missing() or SystemHost.missing_cgroups():
        pytest.skip(reason)
    with SystemHost(cgroups=True) as made:
        yield made.start()


@pytest.fixture
def tuned(host: SystemHost) -> Iterator[Path]:
    """A running guest with limits; the path of its group below a hierarchy."""
    host.define(bare_domain("tuned", extra=TUNED))
    host.ok("start tuned")
    number = host.ok("domid tuned")
    yield Path(host.folder.name, "machine", f"qemu-{number}-tuned.libvirt-qemu")
    host.virsh("destroy tuned")
    host.ok("undefine tuned")


def read(controller: str, group: Path, file: str) -> str:
    return (CGROUPS / controller / group / file).read_text().strip()


def settings(text: str) -> dict[str, str]:
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def test_limits_of_the_definition_are_the_kernels(tuned: Path) -> None:
    assert read("cpu", tuned, "cpu.shares") == "512"
    assert read("cpu", tuned, "cpu.cfs_quota_us") == "80000"
    assert read("cpu", tuned / "vcpu0", "cpu.cfs_quota_us") == "50000"
    assert read("cpu", tuned / "emulator", "cpu.cfs_quota_us") == "40000"
    assert read("cpuset", tuned / "vcpu0", "cpuset.cpus") == "0"
    assert read("memory", tuned, "memory.soft_limit_in_bytes") == str(300 << 20)


def test_every_thread_is_in_its_group(host: SystemHost, tuned: Path) -> None:
    pid = host.path("/run/libvirt/qemu/tuned.pid").read_text()
    groups = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        line = next(line for line in (task / "cgroup").read_text().splitlines() if ":cpu:" in line or ":cpu," in line)
        groups.add(line.rpartition("/")[2])
    assert groups == {"emulator", "vcpu0"}
    for controller in ("memory", "blkio", "devices", "freezer"):
        if (CGROUPS / controller / tuned).exists():
            assert read(controller, tuned, "cgroup.procs") == pid
    assert read("cpu", tuned / "vcpu0", "tasks").count("\n") == 0


def test_live_document_names_the_partition_and_the_definition_does_not(host: SystemHost, tuned: Path) -> None:
    assert "<partition>/machine</partition>" in host.ok("dumpxml tuned")
    assert "<partition>" not in host.ok("dumpxml --inactive tuned")


def test_scheduler_limits_change_live(host: SystemHost, tuned: Path) -> None:
    with host.terminal("event tuned --event tunable --loop --timeout 20") as listener:
        change = "schedinfo tuned --live --set cpu_shares=700 vcpu_quota=30000 vcpu_period=60000"
        shown = ""
        for _ in range(10):  # it may not listen yet
            host.ok(change)
            with contextlib.suppress(AssertionError):
                shown = listener.expect("vcpu_period", timeout=1)
                break
    assert "cputune.cpu_shares: 700" in shown
    assert "cputune.vcpu_quota: 30000" in shown
    assert read("cpu", tuned, "cpu.shares") == "700"
    assert read("cpu", tuned / "vcpu0", "cpu.cfs_quota_us") == "30000"
    live = settings(host.ok("schedinfo tuned"))
    assert (live["cpu_shares"], live["vcpu_period"], live["emulator_quota"]) == ("700", "60000", "40000")
    assert settings(host.ok("schedinfo tuned --config"))["cpu_shares"] == "512"
    assert "<shares>700</shares>" in host.ok("dumpxml tuned")


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("--set cpu_shares=1", "shares '1' must be in range [2, 262144]"),
        ("--set vcpu_quota=999", "value of 'vcpu_quota' is out of range [1000, 17592186044415]"),
        ("--set vcpu_period=1000001", "value of 'vcpu_period' is out of range [1000, 1000000]"),
        ("--set vcpu_quota=99000 vcpu_period=1000", "Invalid value '99000' for 'cpu.cfs_quota_us': Invalid argument"),
    ],
)
def test_scheduler_limits_out_of_range_are_refused(host: SystemHost, tuned: Path, command: str, error: str) -> None:
    done = host.virsh(f"schedinfo tuned --live {command}")
    assert done.returncode != 0
    assert error in done.stderr


def test_memory_limits_change_in_the_order_that_the_kernel_wants(host: SystemHost, tuned: Path) -> None:
    if not (CGROUPS / "memory" / tuned / "memory.memsw.limit_in_bytes").exists():
        pytest.skip("this kernel does not limit swap")
    for hard, swap in ((400000, 500000), (600000, 700000), (300000, 350000)):
        host.ok(f"memtune tuned --live --config --hard-limit {hard} --swap-hard-limit {swap}")
        assert read("memory", tuned, "memory.limit_in_bytes") == str(hard * 1024 // 4096 * 4096)
        assert settings(host.ok("memtune tuned --config"))["swap_hard_limit"] == str(swap)
    refused = host.virsh("memtune tuned --live --swap-hard-limit 200000")
    assert "memory hard_limit tunable value must be lower than or equal to swap_hard_limit" in refused.stderr
    host.ok("memtune tuned --live --hard-limit -1 --swap-hard-limit -1 --soft-limit -1")
    assert set(settings(host.ok("memtune tuned --live")).values()) == {"unlimited"}
    assert "min_guarantee' not supported" in host.virsh("memtune tuned --min-guarantee 5").stderr


def test_devices_that_are_no_block_devices_have_no_limits(host: SystemHost, tuned: Path) -> None:
    for path, error in (("/dev/null", "must be a block device"), ("/nonex", "is not accessible: No such file")):
        done = host.virsh(f"blkiotune tuned --live --device-read-bytes-sec {path},1000")
        assert f"Path '{path}' {error}" in done.stderr
    host.ok("blkiotune tuned --config --device-write-iops-sec /nonex,7,/dev/null,8")
    assert "/nonex,7,/dev/null,8" in host.ok("blkiotune tuned --config")
    host.ok("blkiotune tuned --config --device-write-iops-sec /nonex,0,/dev/null,0")
    assert "<blkiotune>" not in host.ok("dumpxml --inactive tuned")


def test_memory_nodes_are_checked_against_the_mode_that_runs(host: SystemHost, tuned: Path) -> None:
    host.ok("numatune tuned --live --nodeset 0")
    assert read("cpuset", tuned / "emulator", "cpuset.mems") == "0"
    assert (
        "can't change numatune mode for running domain" in host.virsh("numatune tuned --live --mode interleave").stderr
    )
    refused = host.virsh("numatune tuned --live --nodeset 0")
    assert "change of nodeset for running domain requires restrictive numa mode" in refused.stderr
    host.ok("numatune tuned --config --mode interleave --nodeset 0")
    assert "<memory mode='interleave' nodeset='0'/>" in host.ok("dumpxml --inactive tuned")


def test_time_on_each_processor_is_counted(host: SystemHost, tuned: Path) -> None:
    each = host.ok("cpu-stats tuned")
    assert "CPU0:" in each
    assert "vcpu_time" in each


def test_devices_are_the_guests_own(host: SystemHost, tuned: Path) -> None:
    if not (CGROUPS / "devices" / tuned).exists():
        pytest.skip("the devices controller of version 1 is not mounted")
    allowed = read("devices", tuned, "devices.list").splitlines()
    assert "c 1:3 rw" in allowed  # /dev/null
    assert "c 136:* rw" in allowed
    assert not any(line.startswith("a ") for line in allowed)


def test_group_is_found_after_a_restart_and_goes_with_the_guest(host: SystemHost, tuned: Path) -> None:
    host.restart(9)
    assert settings(host.ok("schedinfo tuned"))["cpu_shares"] == "512"
    host.ok("destroy tuned")
    assert not [path for path in CGROUPS.glob(f"*/{tuned}") if path.exists()]


def test_failed_start_leaves_no_group(host: SystemHost) -> None:
    wrong = bare_domain(
        "wrong",
        extra="<blkiotune><device><path>/dev/null</path><read_bytes_sec>9</read_bytes_sec></device></blkiotune>",
    )
    done = host.virsh(["create", str(host.client_file("wrong.xml", wrong))])
    assert "Path '/dev/null' must be a block device" in done.stderr
    assert not list(CGROUPS.glob(f"*/{host.folder.name}/machine/*-wrong*"))


def test_partition_of_an_administrator_must_exist(host: SystemHost) -> None:
    xml = bare_domain("parted", extra="<resource><partition>/h/x</partition></resource>")
    refused = host.virsh(["create", str(host.client_file("parted.xml", xml))])
    assert "No such file or directory" in refused.stderr
    for mount in CGROUPS.glob(f"*/{host.folder.name}"):
        folder = mount / "h.partition" / "x.partition"
        folder.mkdir(parents=True)
        for new in (folder.parent, folder):
            for file in ("cpuset.cpus", "cpuset.mems"):
                if (new / file).exists():
                    (new / file).write_text((mount / file).read_text())
    host.ok(["create", str(host.client_file("parted.xml", xml))])
    assert list(
        (CGROUPS / "cpu" / host.folder.name / "h.partition/x.partition").glob("qemu-*-parted.libvirt-qemu/vcpu0")
    )
    host.ok("destroy parted")


@pytest.mark.skipif(not shutil.which("dbus-daemon"), reason="dbus-daemon is not installed")
def test_helpers_count_as_the_guest_and_leave_no_group_behind(host: SystemHost) -> None:
    host.define(bare_domain("helped", devices="<graphics type='dbus'/>"))
    host.ok("start helped --paused")
    number = host.ok("domid helped")
    group = Path(host.folder.name, "machine", f"qemu-{number}-helped.libvirt-qemu")
    pid = host.path(f"/run/libvirt/qemu/dbus/{number}-helped-dbus.pid").read_text().strip()
    inside = f"/proc/{pid}/cgroup"
    shown = host.run(["grep", "-o", f"memory:.*/{group.name}", inside]).stdout
    host.ok("destroy helped")
    host.ok("undefine helped")
    assert shown.strip().endswith(group.name)
    assert not (CGROUPS / "memory" / group).exists()
