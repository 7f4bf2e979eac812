"""What clients ask about disks beside their statistics."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pyvirtd.api.types import DiskError, TypedParam
from pyvirtd.drivers.qemu.blocks import Blocks
from pyvirtd.drivers.qemu.blocks_find import find_disk
from pyvirtd.drivers.qemu.blocks_limits import IO_LIMITS, apply_limits
from pyvirtd.errors import InternalError, InvalidArg, OperationInvalid, OperationUnsupported
from tests.drivers.qemu.stats_support import DISK, definition, off, running
from tests.drivers.qemu.tune_support import FakeDriver

T = TypeVar("T")
STRINGS, LIVE, CONFIG = 4, 1, 2
LIMITED = DISK.format("qcow2", "/a", "vda").replace(
    "</disk>", "<iotune><total_bytes_sec>50</total_bytes_sec><group_name>g</group_name></iotune></disk>"
)


def part() -> Blocks:
    return Blocks(FakeDriver().as_driver)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, 10))


def values(params: list[TypedParam]) -> dict[str, Any]:
    return {param.field: param.value[1] for param in params}


def test_a_disk_is_found_by_target_or_by_a_path_that_is_its_alone() -> None:
    found = definition(devices=DISK.format("raw", "/a", "vda") + DISK.format("raw", "/a", "vdb"))
    assert find_disk(found, "vdb") is found.devices.disk[1]
    assert find_disk(found, "/a") is None
    found.devices.disk.pop()
    assert find_disk(found, "/a") is found.devices.disk[0]
    assert find_disk(found, "vdb") is None


def test_limits_of_a_definition() -> None:
    found = values(run(part().domain_get_block_io_tune(off(devices=LIMITED), "vda", STRINGS)))
    assert list(found) == [name for name, _ in IO_LIMITS]
    assert (found["total_bytes_sec"], found["read_bytes_sec"], found["group_name"]) == (50, 0, "g")


def test_the_group_is_told_to_who_takes_strings() -> None:
    assert len(run(part().domain_get_block_io_tune(off(devices=LIMITED), "vda", 0))) == len(IO_LIMITS) - 1


def test_without_a_disk_the_number_of_limits_is_told() -> None:
    assert len(run(part().domain_get_block_io_tune(off(), None, STRINGS))) == len(IO_LIMITS)


def test_limits_of_a_running_guest_are_qemus() -> None:
    dom = off(devices=LIMITED)
    inserted = {"bps": 7, "group": "/machine/peripheral/virtio-disk0/virtio-backend"}
    drive = {"device": "", "qdev": "/machine/peripheral/virtio-disk0/virtio-backend", "inserted": inserted}
    running(dom, {"query-block": [drive]})
    assert values(run(part().domain_get_block_io_tune(dom, "vda", LIVE | STRINGS)))["total_bytes_sec"] == 7
    assert values(run(part().domain_get_block_io_tune(dom, "vda", CONFIG)))["total_bytes_sec"] == 50
    del drive["inserted"]
    with pytest.raises(InternalError, match="block_io_throttle inserted entry was not in expected format"):
        run(part().domain_get_block_io_tune(dom, "vda", LIVE))


def test_a_disk_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidArg, match="disk 'nope' was not found in the domain config"):
        run(part().domain_get_block_io_tune(off(), "nope", 0))


def test_disk_errors_are_those_of_drives_that_qemu_stopped_for() -> None:
    dom = off(devices=DISK.format("raw", "/a", "vda") + DISK.format("raw", "/b", "vdb"))
    states = [
        {"device": "", "qdev": f"/machine/peripheral/virtio-disk{number}/virtio-backend", "io-status": word}
        for number, word in enumerate(("ok", "nospace"))
    ]
    running(dom, {"query-block": states})
    assert run(part().domain_get_disk_errors(dom, 16, 0)) == ([DiskError("vdb", 2)], 1)
    assert run(part().domain_get_disk_errors(dom, 0, 0)) == ([], 2)


def test_no_block_job_runs() -> None:
    dom = off(devices=DISK.format("raw", "/a", "vda"))
    with pytest.raises(OperationInvalid, match="domain is not running"):
        part().domain_get_block_job_info(dom, "nope", 0)
    running(dom, {})
    assert part().domain_get_block_job_info(dom, "vda", 0).found == 0
    with pytest.raises(InvalidArg, match="disk 'nope' not found in domain"):
        part().domain_get_block_job_info(dom, "nope", 0)


def test_peeking_is_for_raw_images_and_stays_inside(tmp_path: Path) -> None:
    image = tmp_path / "a"
    image.write_bytes(b"0123456789")
    dom = off(devices=DISK.format("raw", image, "vda") + DISK.format("qcow2", image, "vdb"))
    assert run(part().domain_block_peek(dom, "vda", 4, 3, 0)) == b"456"
    with pytest.raises(InvalidArg, match="'vda' starting from 8 has only 2 bytes available"):
        run(part().domain_block_peek(dom, "vda", 8, 3, 0))
    with pytest.raises(OperationUnsupported, match="for disk with 'raw' format not 'qcow2'"):
        run(part().domain_block_peek(dom, "vdb", 0, 3, 0))


def test_a_guest_that_starts_gets_its_limits() -> None:
    dom = off(devices=LIMITED + DISK.format("raw", "/b", "vdb"))
    path = "/machine/peripheral/virtio-disk{}/virtio-backend"
    drives = [{"device": "", "qdev": path.format(number), "inserted": {}} for number in range(2)]
    monitor = running(dom, {"query-block": drives, "block_set_io_throttle": {}})
    run(apply_limits(dom))
    assert monitor.told == {
        "block_set_io_throttle": {
            "id": path.format(0),
            "bps": 50,
            "bps_rd": 0,
            "bps_wr": 0,
            "iops": 0,
            "iops_rd": 0,
            "iops_wr": 0,
            "group": "g",
        }
    }


def test_a_guest_without_limits_is_not_asked() -> None:
    dom = off(devices=DISK.format("raw", "/b", "vdb"))
    monitor = running(dom, {})
    run(apply_limits(dom))
    assert monitor.asked == []
