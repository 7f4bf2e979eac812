"""Tuning that is read: limits, pinning, IOThreads, labels."""

import asyncio
import os
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from pyvirtd.api.types import IOThreadInfo, TypedParam
from pyvirtd.constants.host import TypedParameterType as Kind
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.tune import UNLIMITED_KIB, TuneReads
from pyvirtd.errors import BadCall, OperationInvalid
from tests.drivers.qemu.stats_support import off, running
from tests.drivers.qemu.tune_support import FakeDriver

T = TypeVar("T")
STRINGS, LIVE, CONFIG = 4, 1, 2
TUNED = (
    "<blkiotune><weight>300</weight><device><path>/dev/vda</path><weight>200</weight></device>"
    "<device><path>/dev/null</path><read_bytes_sec>5</read_bytes_sec></device></blkiotune>"
    "<memtune><hard_limit unit='KiB'>1000000</hard_limit></memtune>"
    "<cputune><shares>2048</shares><quota>-1</quota><vcpupin vcpu='1' cpuset='0'/><emulatorpin cpuset='1'/>"
    "<iothreadpin iothread='1' cpuset='1'/></cputune><iothreads>2</iothreads>"
    "<numatune><memory mode='interleave' nodeset='0-1'/></numatune>"
)
BANDWIDTH = (
    "<interface type='user'><mac address='52:54:00:aa:00:01'/><bandwidth><inbound average='1000' floor='5'/>"
    "<outbound average='128' burst='256'/></bandwidth></interface>"
)


def part() -> TuneReads:
    return TuneReads(FakeDriver().as_driver)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, 10))


def values(params: list[TypedParam]) -> dict[str, Any]:
    return {param.field: param.value[1] for param in params}


def on() -> QemuDomain:
    dom = off(extra=TUNED)
    running(dom, {})
    return dom


def test_the_scheduler_tells_as_many_parameters_as_are_asked_for() -> None:
    reads, dom = part(), off(extra=TUNED)
    assert reads.domain_get_scheduler_type(dom) == ("posix", 9)
    assert values(run(reads.domain_get_scheduler_parameters(dom, 3))) == {
        "cpu_shares": 2048,
        "vcpu_period": 0,
        "vcpu_quota": -1,
    }
    kinds = [param.value[0] for param in run(reads.domain_get_scheduler_parameters_flags(dom, 16, CONFIG))]
    assert kinds == [Kind.ULLONG, Kind.ULLONG, *(Kind.LLONG, Kind.ULLONG) * 3, Kind.LLONG]


def test_no_room_for_scheduler_parameters_is_a_bad_call() -> None:
    with pytest.raises(BadCall, match="params in virDomainGetSchedulerParameters must not be NULL"):
        run(part().domain_get_scheduler_parameters(off(), 0))


def test_memory_limits_that_are_not_set_are_unlimited() -> None:
    assert values(run(part().domain_get_memory_parameters(off(extra=TUNED), 0))) == {
        "hard_limit": 1000000,
        "soft_limit": UNLIMITED_KIB,
        "swap_hard_limit": UNLIMITED_KIB,
    }


def test_limits_of_devices_are_told_to_who_takes_strings() -> None:
    dom = off(extra=TUNED)
    assert values(run(part().domain_get_blkio_parameters(dom, 0))) == {"weight": 300}
    assert values(run(part().domain_get_blkio_parameters(dom, STRINGS))) == {
        "weight": 300,
        "device_weight": "/dev/vda,200",
        "device_read_iops_sec": "",
        "device_write_iops_sec": "",
        "device_read_bytes_sec": "/dev/null,5",
        "device_write_bytes_sec": "",
    }


def test_what_only_a_control_group_enforces_is_not_told_of_a_guest_without_one() -> None:
    reads, dom = part(), on()
    for ask in (
        lambda: reads.domain_get_scheduler_type(dom),
        lambda: run(reads.domain_get_scheduler_parameters(dom, 9)),
        lambda: run(reads.domain_get_memory_parameters(dom, LIVE)),
        lambda: run(reads.domain_get_blkio_parameters(dom, 0)),
    ):
        with pytest.raises(OperationInvalid, match="mounted"):
            ask()
    assert values(run(reads.domain_get_memory_parameters(dom, CONFIG)))["hard_limit"] == 1000000


def test_numa_mode_and_nodes() -> None:
    assert values(part().domain_get_numa_parameters(off(extra=TUNED), STRINGS)) == {
        "numa_mode": 2,
        "numa_nodeset": "0-1",
    }
    assert values(part().domain_get_numa_parameters(off(), STRINGS)) == {"numa_mode": 0, "numa_nodeset": ""}


def test_bandwidth_of_an_interface() -> None:
    assert values(part().domain_get_interface_parameters(off(devices=BANDWIDTH), "52:54:00:aa:00:01", 0)) == {
        "inbound.average": 1000,
        "inbound.peak": 0,
        "inbound.burst": 0,
        "inbound.floor": 5,
        "outbound.average": 128,
        "outbound.peak": 0,
        "outbound.burst": 256,
    }


def test_pins_fall_back_to_the_domains_set_and_then_to_the_host() -> None:
    reads = part()
    assert run(reads.domain_get_vcpu_pin_info(off(extra=TUNED), 2, 1, 0)) == (b"\x03\x01", 2)
    placed = off(vcpu="<vcpu cpuset='1'>2</vcpu>", extra=TUNED)
    assert run(reads.domain_get_vcpu_pin_info(placed, 2, 1, 0)) == (b"\x02\x01", 2)
    assert run(reads.domain_get_emulator_pin_info(off(), 1, 0)) == (b"\x03", 1)
    assert run(reads.domain_get_emulator_pin_info(placed, 2, 0)) == (b"\x02\x00", 1)


def test_pins_fill_as_many_maps_as_are_asked_for() -> None:
    reply = run(part().domain_get_vcpu_pin_info(off(), 4, 2, 0))
    assert reply == (b"\x03\0\x03\0\0\0\0\0", 2)
    assert run(part().domain_get_vcpu_pin_info(off(), 1, 1, 0)) == (b"\x03", 1)


def test_iothreads_of_a_definition() -> None:
    reply = run(part().domain_get_iothread_info(off(extra=TUNED), 0))
    assert reply.info == [IOThreadInfo(1, b"\x02"), IOThreadInfo(2, b"\x03")]


def test_iothreads_of_a_running_guest_are_where_the_kernel_runs_them() -> None:
    dom = off(extra=TUNED)
    running(dom, {"query-iothreads": [{"id": "iothread2", "thread-id": os.getpid()}]})
    (thread,) = run(part().domain_get_iothread_info(dom, 0)).info
    assert thread.iothread_id == 2
    assert sum(byte.bit_count() for byte in thread.cpumap) == len(os.sched_getaffinity(0))


def test_a_running_guest_has_a_label_in_every_model_and_one_that_is_off_none() -> None:
    reads = part()
    assert reads.domain_get_security_label_list(off()).labels == []
    labels = reads.domain_get_security_label_list(on()).labels
    assert [label.label for label in labels] == [b"\0", b"+7:+8\0"]
    assert reads.domain_get_security_label(on()).label == b"\0"
