"""Where a guest's threads may run."""

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

import pytest

from pyvirtd.constants.domain import DomainModificationImpact as Impact
from pyvirtd.drivers.qemu import tune_pins
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.tune_pins import TunePins, apply_pins
from pyvirtd.errors import BadCall, InvalidArg, OperationInvalid, SystemError_, VirtError
from tests.drivers.qemu.stats_support import off, running
from tests.drivers.qemu.tune_support import FakeDriver

LIVE, CONFIG = Impact.LIVE, Impact.CONFIG
VCPU0, VCPU1, THREAD1, EMULATOR = 1001, 1002, 1003, 1004
IOTHREADS = {"query-iothreads": [{"id": "iothread1", "thread-id": THREAD1}]}
PINNED = (
    "<iothreads>1</iothreads><cputune><vcpupin vcpu='0' cpuset='0'/><emulatorpin cpuset='1'/>"
    "<iothreadpin iothread='1' cpuset='0-1'/></cputune>"
)

Placed = dict[int, set[int]]


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> Placed:
    """The threads that were moved, and where to."""
    found: Placed = {}
    monkeypatch.setattr(os, "sched_setaffinity", lambda tid, cpus: found.update({tid: set(cpus)}))
    monkeypatch.setattr(tune_pins, "thread_ids", lambda _pid: [VCPU0, VCPU1, THREAD1, EMULATOR])
    return found


def on(extra: str = "<iothreads>1</iothreads>", vcpu: str = "<vcpu>2</vcpu>") -> QemuDomain:
    dom = off(extra=extra, vcpu=vcpu)
    running(dom, IOTHREADS)
    dom.running.vcpu_threads = {0: VCPU0, 1: VCPU1}
    return dom


def part() -> tuple[TunePins, FakeDriver]:
    driver = FakeDriver()
    return TunePins(driver.as_driver), driver


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 10))


def test_a_guest_that_starts_is_put_where_its_definition_wants_it(placed: Placed) -> None:
    run(apply_pins(on(PINNED)))
    assert placed == {VCPU0: {0}, THREAD1: {0, 1}, EMULATOR: {1}}


def test_the_set_of_the_domain_is_for_all_threads_without_one_of_their_own(placed: Placed) -> None:
    run(apply_pins(on(PINNED, vcpu="<vcpu cpuset='1'>2</vcpu>")))
    assert placed == {VCPU0: {0}, VCPU1: {1}, THREAD1: {0, 1}, EMULATOR: {1}}


def test_a_guest_without_pins_is_left_alone(placed: Placed) -> None:
    run(apply_pins(on()))
    assert placed == {}


def test_pinning_a_vcpu_moves_its_thread_and_is_told(placed: Placed) -> None:
    (pins, driver), dom = part(), on()
    run(pins.domain_pin_vcpu(dom, 1, b"\x02"))
    assert placed == {VCPU1: {1}}
    assert "<vcpupin vcpu='1' cpuset='1'/>" in dom.live_def.format()
    assert dom.config.cputune is None
    assert [tuple(param) for param in driver.events[0].params] == [("cputune.vcpupin1", (7, "1"))]


def test_pinning_in_the_definition_moves_nothing(placed: Placed) -> None:
    (pins, driver), dom = part(), on(PINNED)
    run(pins.domain_pin_vcpu_flags(dom, 0, b"\x01\x02", CONFIG))
    run(pins.domain_pin_emulator(dom, b"\x03", CONFIG))
    assert placed == {}
    assert "<vcpupin vcpu='0' cpuset='0,9'/>" in dom.config.format()
    assert "<emulatorpin cpuset='0-1'/>" in dom.config.format()
    assert driver.saved == ["config", "config"]


def test_pinning_the_emulator_moves_what_is_neither_vcpu_nor_iothread(placed: Placed) -> None:
    run(part()[0].domain_pin_emulator(on(), b"\x01", LIVE))
    assert placed == {EMULATOR: {0}}


def test_pinning_an_iothread(placed: Placed) -> None:
    (pins, _), dom = part(), on()
    run(pins.domain_pin_iothread(dom, 1, b"\x01", LIVE | CONFIG))
    assert placed == {THREAD1: {0}}
    assert "<iothreadpin iothread='1' cpuset='0'/>" in dom.config.format()


def test_a_cpu_that_the_host_lacks_is_refused_and_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(tid: int, cpus: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    (pins, driver), dom = part(), on()
    with pytest.raises(SystemError_, match=f"cannot set CPU affinity on process {VCPU0}: Invalid argument"):
        run(pins.domain_pin_vcpu_flags(dom, 0, b"\x08", LIVE | CONFIG))
    assert dom.config.cputune is None
    assert dom.live_def.cputune is None
    assert driver.saved == []


@pytest.mark.parametrize(
    ("vcpu", "cpumap", "flags", "error", "words"),
    [
        (0, b"", CONFIG, BadCall, "cpumap in virDomainPinVcpuFlags must not be NULL"),
        (0, b"\0\0", CONFIG, InvalidArg, "Empty cpu list for pinning"),
        (9, b"\1", CONFIG, InvalidArg, "vcpu 9 is out of range of persistent cpu count 2"),
        (0, b"\1", LIVE, OperationInvalid, "domain is not running"),
    ],
)
def test_a_pin_that_cannot_be_is_refused(
    vcpu: int, cpumap: bytes, flags: int, error: type[VirtError], words: str
) -> None:
    with pytest.raises(error, match=words):
        run(part()[0].domain_pin_vcpu_flags(off(), vcpu, cpumap, flags))


def test_an_unknown_iothread_is_refused() -> None:
    with pytest.raises(InvalidArg, match="iothreadid 9 not found"):
        run(part()[0].domain_pin_iothread(off(extra=PINNED), 9, b"\1", CONFIG))
    with pytest.raises(InvalidArg, match="iothread 9 not found"):
        run(part()[0].domain_pin_iothread(on(PINNED), 9, b"\1", LIVE))
