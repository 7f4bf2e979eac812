"""Throttle groups: what QEMU is told of them, which are refused, and how they change while a guest runs."""

import asyncio
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pyvirtd.api.types import TypedParam, param_string, param_uint, param_ullong
from pyvirtd.constants.domain import DomainModificationImpact as Impact
from pyvirtd.drivers.qemu.command import disk_node, top_node
from pyvirtd.drivers.qemu.command.block import last_node
from pyvirtd.drivers.qemu.throttle_groups import ThrottleGroups
from pyvirtd.errors import InvalidArg, VirtError
from tests.daemon.harness import Answered
from tests.drivers.qemu.command_lines import words
from tests.drivers.qemu.definitions import checked, document
from tests.drivers.qemu.stats_support import off, running
from tests.drivers.qemu.tune_support import FakeDriver
from tests.support.domains import bare_domain
from tests.support.host import SessionHost
from tests.support.wire import call_domain

LIVE, CONFIG = Impact.LIVE, Impact.CONFIG
GROUP = "<throttlegroup>{}<group_name>{}</group_name></throttlegroup>"
IOPS = "<total_iops_sec>{}</total_iops_sec>"
GROUPS = "<throttlegroups>{}</throttlegroups>"
BOTH = GROUPS.format(
    GROUP.format(IOPS.format(90), "all")
    + GROUP.format(
        "<read_bytes_sec>100</read_bytes_sec><read_bytes_sec_max>200</read_bytes_sec_max>"
        "<read_bytes_sec_max_length>3</read_bytes_sec_max_length>",
        "one",
    )
)
DISK = (
    "<disk type='file' device='{}'><driver name='qemu' type='raw'{}/>{}<target dev='{}' bus='{}'/>"
    "<throttlefilters>{}</throttlefilters></disk>"
)
FILTER = "<throttlefilter group='{}'/>"
TWO = FILTER.format("one") + FILTER.format("all")
SOURCE = "<source file='{}'/>"


def blockdevs(devices: str) -> tuple[dict[str, Any], list[str]]:
    """The throttle filters of a command line by name, and the nodes that devices use."""
    found = words(checked(document(devices, top=BOTH)))
    return {name: node for name, node in found.nodes.items() if node["driver"] == "throttle"}, found.drives


def test_groups_are_objects_with_their_limits() -> None:
    objects = words(checked(document(top=BOTH))).objects
    assert [one for one in objects if one["qom-type"] == "throttle-group"] == [
        {"qom-type": "throttle-group", "id": "throttle-all", "limits": {"iops-total": 90}},
        {
            "qom-type": "throttle-group",
            "id": "throttle-one",
            "limits": {"bps-read": 100, "bps-read-max": 200, "bps-read-max-length": 3},
        },
    ]


def test_filters_are_a_chain_whose_last_one_the_device_uses() -> None:
    filters, used = blockdevs(DISK.format("disk", "", SOURCE.format("/a"), "vda", "virtio", TWO))
    assert [(name, node["throttle-group"], node["file"]) for name, node in filters.items()] == [
        ("libvirt-2-filter", "throttle-one", "libvirt-1-format"),
        ("libvirt-3-filter", "throttle-all", "libvirt-2-filter"),
    ]
    assert used == ["libvirt-3-filter"]


def test_filters_are_above_copy_on_read() -> None:
    filters, used = blockdevs(
        DISK.format("disk", " copy_on_read='on'", SOURCE.format("/a"), "vda", "virtio", FILTER.format("all"))
    )
    assert filters["libvirt-2-filter"]["file"] == "libvirt-CoR-vda"
    assert used == ["libvirt-2-filter"]


def test_a_medium_is_throttled_read_only_and_an_empty_drive_is_not() -> None:
    full = DISK.format("cdrom", "", SOURCE.format("/a"), "sda", "sata", FILTER.format("all"))
    filters, used = blockdevs(full + DISK.format("cdrom", "", "", "sdb", "sata", FILTER.format("all")))
    assert len(filters) == 1
    assert filters[used[0]]["read-only"] is True


def test_nodes_of_a_running_disk_have_the_filters_on_top() -> None:
    definition = checked(
        document(DISK.format("disk", "", SOURCE.format("/a"), "vda", "virtio", FILTER.format("all")), top=BOTH)
    )
    words(definition)
    (disk,) = definition.devices.disk
    assert disk_node(disk) == ("libvirt-2-filter", "libvirt-1-format", "libvirt-1-storage")
    assert top_node(disk) == "libvirt-2-filter"
    assert last_node(definition) == 2


def filtered(filters: str, *, device: str = "disk", bus: str = "virtio", extra: str = "") -> str:
    name = {"virtio": "vda", "sd": "sda"}[bus]
    return DISK.format(device, "", SOURCE.format("/a"), name, bus, filters).replace("</disk>", f"{extra}</disk>")


@pytest.mark.parametrize(
    ("groups", "disk", "text"),
    [
        (BOTH, filtered(FILTER.format("none")), "throttle group 'none' of disk 'vda' is not defined in the domain"),
        (BOTH, filtered(FILTER.format("one") * 2), "throttle group 'one' is referenced more than once by disk 'vda'"),
        (
            BOTH,
            filtered(TWO, extra=f"<iotune>{IOPS.format(1)}</iotune>"),
            "iotune and throttlefilters cannot be used together for disk 'vda'",
        ),
        (BOTH, filtered(TWO, bus="sd"), "disk 'sda', which is an SD card"),
        (GROUPS.format(GROUP.format(IOPS.format(1), "g") * 2), "", "duplicate throttle group 'g' found"),
        (GROUPS.format(f"<throttlegroup>{IOPS.format(1)}</throttlegroup>"), "", "throttle group name is missing"),
        (GROUPS.format(GROUP.format("", "g")), "", "throttle group 'g' has no limits"),
        (GROUPS.format(GROUP.format(IOPS.format(1), "a b")), "", "invalid throttle group name 'a b'"),
        (GROUPS.format(GROUP.format(IOPS.format(10**15 + 1), "g")), "", "limit must be no more than 1000000000000000"),
        (
            GROUPS.format(GROUP.format(IOPS.format(1) + "<read_iops_sec>1</read_iops_sec>", "g")),
            "",
            "total and read/write iops_sec cannot be set at the same time in throttle group 'g'",
        ),
        (
            GROUPS.format(GROUP.format("<total_iops_sec_max>1</total_iops_sec_max>", "g")),
            "",
            "value 'total_iops_sec_max' cannot be set if 'total_iops_sec' is not set in throttle group 'g'",
        ),
        (
            GROUPS.format(GROUP.format(IOPS.format(5) + "<total_iops_sec_max>4</total_iops_sec_max>", "g")),
            "",
            "value 'total_iops_sec_max' cannot be smaller than 'total_iops_sec'",
        ),
        (
            GROUPS.format(
                GROUP.format(IOPS.format(5) + "<total_iops_sec_max_length>4</total_iops_sec_max_length>", "g")
            ),
            "",
            "'total_iops_sec_max_length' cannot be set if 'total_iops_sec_max' is not set",
        ),
        (
            GROUPS.format(GROUP.format("<total_bytes_sec>5</total_bytes_sec><size_iops_sec>4</size_iops_sec>", "g")),
            "",
            "value 'size_iops_sec' cannot be set if an iops limit is not set",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(groups: str, disk: str, text: str) -> None:
    with pytest.raises(VirtError, match=re.escape(text)):
        checked(document(disk, top=groups))


# --- changes ------------------------------------------------------------------------------------------------------


def part() -> tuple[ThrottleGroups, FakeDriver]:
    driver = FakeDriver()
    return ThrottleGroups(driver.as_driver), driver


def change(dom: Any, group: str, *params: TypedParam, flags: int = 0) -> FakeDriver:
    made, driver = part()
    asyncio.run(asyncio.wait_for(made.domain_set_throttle_group(dom, group, list(params), flags), 10))
    return driver


def test_parts_of_a_group_change_and_a_total_replaces_both_directions() -> None:
    dom = off()
    change(dom, "g", param_ullong("read_bytes_sec", 10), param_ullong("total_iops_sec", 7))
    change(dom, "g", param_ullong("total_bytes_sec", 20))
    (group,) = dom.config.throttlegroups
    assert (group.read_bytes_sec, group.total_bytes_sec, group.total_iops_sec) == (None, 20, 7)
    with pytest.raises(VirtError, match="throttle group 'g' has no limits"):
        change(dom, "g", param_ullong("total_bytes_sec", 0), param_ullong("total_iops_sec", 0))
    assert group.total_bytes_sec == 20


def test_a_group_is_made_once_and_changed_as_a_whole_after_that() -> None:
    dom = off()
    monitor = running(dom, {"object-add": None, "qom-set": None})
    driver = change(dom, "g", param_ullong("total_iops_sec", 7), flags=LIVE)
    change(dom, "g", param_ullong("total_iops_sec", 9), param_ullong("total_iops_sec_max", 90), flags=LIVE | CONFIG)
    assert monitor.asked == ["object-add", "qom-set"]
    assert monitor.told["object-add"]["limits"] == {"iops-total": 7}
    wanted = monitor.told["qom-set"]["value"]
    assert len(wanted) == 19
    assert {name: value for name, value in wanted.items() if value != name.endswith("-length")} == {
        "iops-total": 9,
        "iops-total-max": 90,
    }
    (event,) = driver.events
    assert event.params == [
        param_string("blkdeviotune.group_name", "g"),
        param_ullong("blkdeviotune.total_iops_sec", 7),
    ]
    assert dom.live_def.throttlegroups == dom.config.throttlegroups[:]


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ([], "params in virDomainSetThrottleGroup must not be NULL"),
        ([param_ullong("nope", 1)], "parameter 'nope' not supported"),
        ([param_uint("total_iops_sec", 1)], "invalid type 'uint' for parameter 'total_iops_sec', expected 'ullong'"),
        ([param_ullong("total_iops_sec", 1)] * 2, "parameter 'total_iops_sec' occurs multiple times"),
        ([param_string("group_name", "other")], "throttle group 'g' cannot be renamed"),
    ],
)
def test_parameters_are_checked(params: list[TypedParam], text: str) -> None:
    with pytest.raises(VirtError, match=text):
        change(off(), "g", *params)


def test_a_group_that_is_not_there_cannot_be_deleted() -> None:
    with pytest.raises(InvalidArg, match="throttle group 'g' was not found in the domain config"):
        asyncio.run(part()[0].domain_del_throttle_group(off(), "g", 0))


# --- with QEMU ----------------------------------------------------------------------------------------------------


@pytest.fixture
def throttled(session: SessionHost) -> Iterator[SessionHost]:
    image = session.folder / "data" / "throttled.img"
    session.run(["truncate", "-s", "8M", str(image)])
    groups = GROUPS.format(GROUP.format("<total_bytes_sec>1048576</total_bytes_sec>", "slow"))
    disk = DISK.format("disk", " copy_on_read='on'", SOURCE.format(image), "vda", "virtio", FILTER.format("slow"))
    empty = DISK.format("cdrom", "", "", "sda", "sata", FILTER.format("slow"))
    session.define(bare_domain("throttled", devices=disk + empty, extra=groups))
    session.ok("start throttled --paused")  # firmware would read from the disk, too
    yield session
    session.ok("destroy throttled")
    session.ok("undefine throttled")


def seconds_for(host: SessionHost, mib: int) -> float:
    """How long QEMU takes to read from the disk."""
    command = f'qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "read 0 {mib}M"'
    began = time.monotonic()
    host.ok(["qemu-monitor-command", "--hmp", "throttled", command])
    return time.monotonic() - began


def qom_limits(host: SessionHost, group: str) -> dict[str, int]:
    """The limits that QEMU keeps to, without what is not limited."""
    asked = {"execute": "qom-get", "arguments": {"path": f"/objects/throttle-{group}", "property": "limits"}}
    answer = json.loads(host.ok(["qemu-monitor-command", "throttled", json.dumps(asked)]))["return"]
    return {name: value for name, value in answer.items() if value and not name.endswith("-length")}


def put(host: SessionHost, group: str, flags: int, **wanted: int) -> None:
    params = [param_ullong(name, value) for name, value in wanted.items()]
    call_domain(host, "throttled", "domain_set_throttle_group", group, params, flags)


def drop(host: SessionHost, group: str, flags: int) -> None:
    call_domain(host, "throttled", "domain_del_throttle_group", group, flags)


@pytest.mark.guest
def test_qemu_keeps_to_a_limit_and_to_its_change(throttled: SessionHost) -> None:
    blocks = json.loads(throttled.ok(["qemu-monitor-command", "throttled", '{"execute":"query-block"}']))["return"]
    assert blocks[0]["inserted"]["node-name"] == "libvirt-3-filter"
    assert seconds_for(throttled, 2) + seconds_for(throttled, 2) > 1.5  # a burst of a tenth of a second is free
    put(throttled, "slow", LIVE, total_bytes_sec=1 << 30)
    assert seconds_for(throttled, 2) < 1
    assert throttled.ok("domblkstat throttled vda") != ""
    assert f"<total_bytes_sec>{1 << 30}</total_bytes_sec>" in throttled.ok("dumpxml throttled")
    assert "<total_bytes_sec>1048576</total_bytes_sec>" in throttled.ok("dumpxml throttled --inactive")


@pytest.mark.guest
def test_filters_come_back_with_a_saved_guest(throttled: SessionHost) -> None:
    put(throttled, "slow", LIVE, total_bytes_sec=4096)
    throttled.ok("managedsave throttled")
    throttled.ok("start throttled --paused")
    assert qom_limits(throttled, "slow") == {"bps-total": 4096}
    blocks = throttled.ok(["qemu-monitor-command", "throttled", '{"execute":"query-block"}'])
    assert '"node-name":"libvirt-3-filter"' in blocks


@pytest.mark.guest
def test_groups_come_and_go_across_restarts_of_the_daemon(throttled: SessionHost) -> None:
    put(throttled, "more", LIVE | CONFIG, read_iops_sec=50, read_iops_sec_max=60)
    assert qom_limits(throttled, "more") == {"iops-read": 50, "iops-read-max": 60}
    throttled.kill()
    throttled.start()
    put(throttled, "more", LIVE, read_iops_sec=0, read_iops_sec_max=0, total_bytes_sec=4096)
    assert qom_limits(throttled, "more") == {"bps-total": 4096}
    for flags in (LIVE, CONFIG):
        with pytest.raises(Answered, match="throttle group 'slow' is still being used by disk 'vda'"):
            drop(throttled, "slow", flags)
    drop(throttled, "more", LIVE)
    assert "<group_name>more" not in throttled.ok("dumpxml throttled")
    assert "<group_name>more" in throttled.ok("dumpxml throttled --inactive")
    with pytest.raises(Answered, match="throttle group 'more' not found in domain"):
        drop(throttled, "more", LIVE)
    put(throttled, "more", 0, total_bytes_sec=8192)  # QEMU has given the old one's name back
    assert qom_limits(throttled, "more") == {"bps-total": 8192}
