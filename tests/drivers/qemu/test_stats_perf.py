"""Performance events: counters of this very process."""

import asyncio
import gc
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from pyvirtd.api.types import param_boolean, param_int
from pyvirtd.constants.domain import DomainModificationImpact as Impact
from pyvirtd.drivers.qemu.stats_perf import Counters, Perf, apply_perf, counters_of
from pyvirtd.errors import ArgumentUnsupported, BadCall, InvalidArg, VirtError
from pyvirtd.model.features import PerfEventName
from tests.drivers.qemu.stats_support import off, running
from tests.drivers.qemu.tune_support import FakeDriver

ENABLED = "<perf><event name='cpu_clock' enabled='yes'/><event name='page_faults' enabled='no'/></perf>"


def countable() -> bool:
    counters = Counters()
    try:
        counters.enable(os.getpid(), PerfEventName.CPU_CLOCK)
    except VirtError:
        return False
    counters.close()
    return True


needs_counters = pytest.mark.skipif(not countable(), reason="the kernel opens no counters here")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 10))


def part() -> Perf:
    return Perf(FakeDriver().as_driver)


@needs_counters
def test_a_counter_counts() -> None:
    counters = Counters()
    counters.enable(os.getpid(), PerfEventName.CPU_CLOCK)
    first = counters.read()[PerfEventName.CPU_CLOCK]
    sum(range(100000))
    assert counters.read()[PerfEventName.CPU_CLOCK] > first
    counters.close()
    assert counters.read() == {}


@needs_counters
def test_a_guest_that_starts_is_counted_until_nobody_knows_it() -> None:
    before = open_files()
    dom = off(extra=ENABLED)
    running(dom, {})
    apply_perf(dom)
    assert list(counters_of(dom.running, dom.live_def).read()) == [PerfEventName.CPU_CLOCK]
    assert open_files() > before
    dom.guest = None
    gc.collect()
    assert open_files() == before


@needs_counters
def test_events_are_counted_and_not_counted_on_request() -> None:
    dom = off(extra=ENABLED)
    running(dom, {})
    params = [param_boolean("page_faults", True), param_boolean("cpu_clock", False)]
    run(part().domain_set_perf_events(dom, params, Impact.LIVE))
    assert list(counters_of(dom.running, dom.live_def).read()) == [PerfEventName.PAGE_FAULTS]
    told = {param.field: param.value[1] for param in part().domain_get_perf_events(dom, 0)}
    assert list(told) == list(PerfEventName)
    assert [name for name, on in told.items() if on] == ["page_faults"]
    assert "<event name='cpu_clock' enabled='yes'/>" in dom.config.format()


def test_what_the_kernel_does_not_count_is_refused() -> None:
    dom = off()
    running(dom, {})
    with pytest.raises(ArgumentUnsupported, match="unable to enable host cpu perf event for cmt"):
        run(part().domain_set_perf_events(dom, [param_boolean("cmt", True)], Impact.LIVE))
    assert dom.live_def.perf == []


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ([], BadCall, "params in virDomainSetPerfEvents must not be NULL"),
        ([param_boolean("nope", True)], ArgumentUnsupported, "parameter 'nope' not supported"),
        ([param_int("cmt", 1)], InvalidArg, "invalid type 'int' for parameter 'cmt', expected 'boolean'"),
        ([param_boolean("cmt", True)] * 2, InvalidArg, "parameter 'cmt' occurs multiple times"),
    ],
)
def test_parameters_that_are_none_are_refused(params: list[Any], error: type[VirtError], words: str) -> None:
    with pytest.raises(error, match=words):
        run(part().domain_set_perf_events(off(), params, Impact.CONFIG))
