"""IOThreads that come, go and change."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from pyvirtd.api.types import TypedParam, param_int, param_string, param_uint, param_ullong
from pyvirtd.constants.domain import DomainModificationImpact as Impact
from pyvirtd.drivers.qemu.monitor import CommandRefused
from pyvirtd.drivers.qemu.tune_iothreads import IoThreads
from pyvirtd.errors import (
    ArgumentUnsupported,
    BadCall,
    ConfigUnsupported,
    InvalidArg,
    OperationInvalid,
    OperationUnsupported,
    VirtError,
)
from pyvirtd.model.domain import DomainDef
from tests.drivers.qemu.stats_support import off, running
from tests.drivers.qemu.tune_support import FakeDriver

LIVE, CONFIG = Impact.LIVE, Impact.CONFIG
DISK = (
    "<disk type='file'><driver name='qemu' type='raw' iothread='2'/><source file='/x'/>"
    "<target dev='vda' bus='virtio'/></disk>"
    "<controller type='scsi' index='0' model='virtio-scsi'><driver iothread='3'/></controller>"
)
PINNED = "<cputune><iothreadpin iothread='1' cpuset='0'/></cputune>"


def part() -> tuple[IoThreads, FakeDriver]:
    driver = FakeDriver()
    return IoThreads(driver.as_driver), driver


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 10))


def numbers(definition: DomainDef) -> list[int]:
    return [thread.id for thread in definition.iothreadids]


def test_threads_that_were_only_counted_get_their_numbers() -> None:
    (threads, driver), dom = part(), off(extra="<iothreads>2</iothreads>")
    run(threads.domain_add_iothread(dom, 7, CONFIG))
    assert (numbers(dom.config), dom.config.iothreads) == ([1, 2, 7], 3)
    assert driver.saved == ["config"]


def test_a_thread_comes_and_goes_in_guest_and_definition() -> None:
    (threads, driver), dom = part(), off(extra="<iothreads>1</iothreads>")
    monitor = running(dom, {"object-add": {}, "object-del": {}, "query-iothreads": []})
    run(threads.domain_add_iothread(dom, 4, LIVE | CONFIG))
    assert monitor.told["object-add"] == {"qom-type": "iothread", "id": "iothread4"}
    assert numbers(dom.live_def) == numbers(dom.config) == [1, 4]
    run(threads.domain_del_iothread(dom, 4, LIVE | CONFIG))
    assert monitor.told["object-del"] == {"id": "iothread4"}
    assert numbers(dom.live_def) == numbers(dom.config) == [1]
    assert driver.saved == ["status", "config"] * 2


def test_what_qemu_refuses_changes_nothing() -> None:
    (threads, driver), dom = part(), off(extra="<iothreads>1</iothreads>")
    running(dom, {"object-add": CommandRefused("object-add", "GenericError", "no")})
    with pytest.raises(CommandRefused):
        run(threads.domain_add_iothread(dom, 4, LIVE | CONFIG))
    assert dom.live_def.iothreads == dom.config.iothreads == 1
    assert driver.saved == []


def test_a_thread_that_goes_takes_its_pinning_along() -> None:
    (threads, _), dom = part(), off(extra=f"<iothreads>1</iothreads>{PINNED}")
    run(threads.domain_del_iothread(dom, 1, CONFIG))
    assert dom.config.iothreads is None
    assert dom.config.cputune is not None
    assert dom.config.cputune.iothreadpin == []


@pytest.mark.parametrize(
    ("number", "error", "text"),
    [
        (0, BadCall, "must not be zero"),
        (9, InvalidArg, "cannot find IOThread '9' in iothreadids list"),
        (2, InvalidArg, "cannot remove IOThread 2 since it is being used by disk 'vda'"),
        (3, InvalidArg, "cannot remove IOThread '3' since it is being used by controller"),
    ],
)
def test_threads_that_may_not_go(number: int, error: type[VirtError], text: str) -> None:
    (threads, _), dom = part(), off(extra="<iothreads>3</iothreads>", devices=DISK)
    with pytest.raises(error, match=text):
        run(threads.domain_del_iothread(dom, number, CONFIG))


@pytest.mark.parametrize(("number", "text"), [(0, "invalid value of 0"), (1, "already using iothread_id '1'")])
def test_numbers_that_may_not_be_added(number: int, text: str) -> None:
    (threads, _), dom = part(), off(extra="<iothreads>1</iothreads>")
    with pytest.raises(InvalidArg, match=text):
        run(threads.domain_add_iothread(dom, number, CONFIG))


def test_the_pool_is_set_in_the_order_that_qemu_takes() -> None:
    (threads, _), dom = part(), off(extra="<iothreads>1</iothreads>")
    monitor = running(dom, {"qom-set": {}, "qom-get": 64})
    run(threads.domain_set_iothread_params(dom, 1, pool(70, 80), LIVE))
    assert monitor.asked == ["qom-get", "qom-set", "qom-set"]
    assert monitor.told["qom-set"]["property"] == "thread-pool-min"
    run(threads.domain_set_iothread_params(dom, 1, pool(1, 2), LIVE))
    assert monitor.told["qom-set"]["property"] == "thread-pool-max"
    thread = dom.live_def.iothreadids[0]
    assert (thread.thread_pool_min, thread.thread_pool_max) == (1, 2)


def pool(low: int, high: int) -> list[TypedParam]:
    return [param_int("thread_pool_min", low), param_int("thread_pool_max", high)]


def test_polling_is_qemus_alone() -> None:
    (threads, driver), dom = part(), off(extra="<iothreads>1</iothreads>")
    monitor = running(dom, {"qom-set": {}})
    run(threads.domain_set_iothread_params(dom, 1, [param_ullong("poll_max_ns", 5)], LIVE))
    assert monitor.told["qom-set"] == {"path": "/objects/iothread1", "property": "poll-max-ns", "value": 5}
    with pytest.raises(OperationUnsupported, match="configuring persistent polling values"):
        run(threads.domain_set_iothread_params(dom, 1, [param_ullong("poll_max_ns", 5)], LIVE | CONFIG))
    assert driver.saved == ["status"]


@pytest.mark.parametrize(
    ("params", "error", "text"),
    [
        ([], BadCall, "params in virDomainSetIOThreadParams must not be NULL"),
        ([param_string("foo", "x")], ArgumentUnsupported, "parameter 'foo' not supported"),
        ([param_int("poll_grow", 1)], InvalidArg, "invalid type 'int' for parameter 'poll_grow', expected 'uint'"),
        (pool(2, 1), OperationInvalid, "thread_pool_min \\(2\\) can't be greater than thread_pool_max \\(1\\)"),
        (pool(0, 0), ConfigUnsupported, "thread_pool_max \\(0\\) must be a positive number or -1"),
        (pool(-2, 4), ConfigUnsupported, "thread_pool_min \\(-2\\) must be equal to or greater than -1"),
        ([param_uint("poll_grow", 2**31)], ConfigUnsupported, "poll-grow \\(2147483648\\) must be less than or equal"),
    ],
)
def test_values_that_cannot_be(params: list[TypedParam], error: type[VirtError], text: str) -> None:
    (threads, driver), dom = part(), off(extra="<iothreads>1</iothreads>")
    with pytest.raises(error, match=text):
        run(threads.domain_set_iothread_params(dom, 1, params, CONFIG))
    assert driver.saved == []


def test_a_running_guests_pool_has_real_sizes() -> None:
    (threads, _), dom = part(), off(extra="<iothreads>1</iothreads>")
    running(dom, {"qom-set": {}})
    with pytest.raises(OperationInvalid, match="must be equal to or greater than 0 for live change"):
        run(threads.domain_set_iothread_params(dom, 1, [param_int("thread_pool_max", -1)], LIVE))
