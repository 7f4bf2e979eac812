"""Changes of memory, vcpus and lifecycle actions."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from pyvirtd.constants.domain import DomainLifecycle, DomainLifecycleAction
from pyvirtd.constants.domain import DomainMemoryModFlags as Memory
from pyvirtd.constants.domain import DomainModificationImpact as Impact
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.monitor import CommandRefused
from pyvirtd.drivers.qemu.tune_sets import TuneSets
from pyvirtd.errors import (
    BadCall,
    ConfigUnsupported,
    InternalError,
    InvalidArg,
    OperationInvalid,
    OperationUnsupported,
    Overflow,
    VirtError,
)
from pyvirtd.model.features import LifecycleAction
from tests.drivers.qemu.stats_support import off, running
from tests.drivers.qemu.tune_support import FakeDriver

LIVE, CONFIG = Impact.LIVE, Impact.CONFIG


def part() -> tuple[TuneSets, FakeDriver]:
    driver = FakeDriver()
    return TuneSets(driver.as_driver), driver


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 10))


def test_memory_of_a_domain_that_is_off_is_its_definitions() -> None:
    (sets, driver), dom = part(), off()
    run(sets.domain_set_memory_flags(dom, 32768, 0))
    assert dom.config.current_memory_kib == 32768
    assert driver.saved == ["config"]


def test_memory_of_a_running_guest_is_its_balloons() -> None:
    (sets, _), dom = part(), off()
    monitor = running(dom, {"balloon": {}})
    run(sets.domain_set_memory(dom, 32768))
    assert monitor.asked == ["balloon"]
    assert dom.config.current_memory_kib == 49152
    assert dom.live_def.current_memory_kib == 49152  # until QEMU says what the guest gave


def test_live_and_config_change_together() -> None:
    (sets, driver), dom = part(), off()
    running(dom, {"balloon": {}})
    run(sets.domain_set_memory_flags(dom, 32768, LIVE | CONFIG))
    assert dom.config.current_memory_kib == 32768
    assert sorted(driver.saved) == ["config", "status"]


def test_a_guest_without_balloon_keeps_its_memory() -> None:
    (sets, driver), dom = part(), off()
    running(dom, {"balloon": CommandRefused("balloon", "DeviceNotActive", "No balloon device has been activated")})
    with pytest.raises(OperationInvalid, match="without the balloon device and guest OS balloon driver"):
        run(sets.domain_set_memory_flags(dom, 32768, LIVE | CONFIG))
    assert dom.config.current_memory_kib == 49152
    assert driver.saved == []


def test_the_maximum_takes_the_current_memory_along() -> None:
    (sets, _), dom = part(), off()
    run(sets.domain_set_max_memory(dom, 131072))
    assert (dom.config.memory.kib, dom.config.current_memory_kib) == (131072, 49152)
    run(sets.domain_set_memory_flags(dom, 16384, CONFIG | Memory.MAXIMUM))
    assert (dom.config.memory.kib, dom.config.current_memory_kib) == (16384, 16384)


@pytest.mark.parametrize(
    ("memory", "flags", "error", "words"),
    [
        (0, 0, BadCall, "memory in virDomainSetMemoryFlags must not be zero"),
        (1 << 54, CONFIG, Overflow, "input too large: 18014398509481984"),
        (65537, CONFIG, InvalidArg, "cannot set memory higher than max memory"),
        (4096, LIVE, OperationInvalid, "domain is not running"),
    ],
)
def test_memory_that_cannot_be_is_refused(memory: int, flags: int, error: type[VirtError], words: str) -> None:
    (sets, driver), dom = part(), off()
    with pytest.raises(error, match=words):
        run(sets.domain_set_memory_flags(dom, memory, flags))
    assert driver.saved == []


def test_the_maximum_of_a_running_guest_stays() -> None:
    (sets, _), dom = part(), off()
    running(dom, {})
    with pytest.raises(OperationInvalid, match="cannot resize the maximum memory on an active domain"):
        run(sets.domain_set_max_memory(dom, 131072))


def test_a_domain_with_numa_nodes_is_not_resized() -> None:
    (sets, _), dom = part(), off(extra="<cpu><numa><cell id='0' cpus='0-1' memory='65536'/></numa></cpu>")
    with pytest.raises(OperationInvalid, match="with NUMA nodes cannot be modified with this API"):
        run(sets.domain_set_max_memory(dom, 131072))


def test_a_definition_that_cannot_be_written_is_as_before() -> None:
    (sets, driver), dom = part(), off()
    driver.fails = True
    before = dom.config
    with pytest.raises(InternalError, match="no space left"):
        run(sets.domain_set_memory_flags(dom, 32768, CONFIG))
    assert dom.config is before
    assert dom.config.current_memory_kib == 49152


def test_what_events_say_while_qemu_is_asked_is_kept() -> None:
    (sets, _), dom = part(), off()
    monitor = running(dom, {})

    async def balloon_moves(*_: object) -> None:
        dom.live_def.current_memory_kib = 40000

    monitor.execute = balloon_moves  # type: ignore[method-assign, assignment]
    run(sets.domain_set_memory(dom, 32768))
    assert dom.live_def.current_memory_kib == 40000


# --- vcpus ------------------------------------------------------------------------------------------------------


def test_vcpus_of_a_definition() -> None:
    (sets, driver), dom = part(), off(vcpu="<vcpu>4</vcpu>")
    run(sets.domain_set_vcpus_flags(dom, 2, CONFIG))
    assert dom.config.vcpu.current == 2
    run(sets.domain_set_vcpus_flags(dom, 8, CONFIG | 4))
    assert (dom.config.vcpu.current, dom.config.vcpu.count) == (2, 8)
    assert driver.saved == ["config", "config"]


@pytest.mark.parametrize(
    ("count", "flags", "error", "words"),
    [
        (0, CONFIG, BadCall, "nvcpus in virDomainSetVcpusFlags must not be zero"),
        (2, LIVE | 4, BadCall, "required by flag 'VIR_DOMAIN_VCPU_MAXIMUM'"),
        (2, CONFIG | 8, BadCall, "'VIR_DOMAIN_VCPU_GUEST' and 'VIR_DOMAIN_AFFECT_CONFIG' are mutually exclusive"),
        (3, LIVE, InvalidArg, "greater than max allowable vcpus for the live domain: 3 > 2"),
        (1, LIVE, OperationUnsupported, "not plugged in or out yet"),
        (1, LIVE | CONFIG, OperationUnsupported, "not plugged in or out yet"),
        (2, LIVE | CONFIG | 4, OperationUnsupported, "maximum vcpu count of a live domain can't be modified"),
    ],
)
def test_vcpus_that_cannot_be_are_refused(count: int, flags: int, error: type[VirtError], words: str) -> None:
    (sets, driver), dom = part(), off()
    running(dom, {})
    with pytest.raises(error, match=words):
        run(sets.domain_set_vcpus_flags(dom, count, flags))
    assert driver.saved == []


# --- lifecycle --------------------------------------------------------------------------------------------------


def act(dom: QemuDomain, event: int, action: int, flags: int = 0) -> None:
    run(part()[0].domain_set_lifecycle_action(dom, event, action, flags))


def test_an_action_is_set_in_the_definition() -> None:
    dom = off()
    act(dom, DomainLifecycle.CRASH, DomainLifecycleAction.PRESERVE)
    act(dom, DomainLifecycle.POWEROFF, DomainLifecycleAction.RESTART)
    assert (dom.config.on_crash, dom.config.on_poweroff) == (LifecycleAction.PRESERVE, LifecycleAction.RESTART)


def test_qemu_is_told_what_a_reboot_does() -> None:
    dom = off()
    monitor = running(dom, {"set-action": {}}, schema=frozenset(("set-action",)))
    act(dom, DomainLifecycle.REBOOT, DomainLifecycleAction.DESTROY)
    assert monitor.asked == ["set-action"]
    assert dom.live_def.on_reboot is LifecycleAction.DESTROY
    assert dom.config.on_reboot is LifecycleAction.RESTART


@pytest.mark.parametrize(
    ("event", "action", "error", "words"),
    [
        (3, 0, InvalidArg, "invalid lifecycle type '3'"),
        (0, 6, InvalidArg, "invalid lifecycle action '6'"),
        (0, 4, ConfigUnsupported, "Lifecycle event 'poweroff' doesn't support 'coredump-destroy' action"),
        (2, 2, ConfigUnsupported, "doesn't support the 'rename-restart' action"),
        (1, 3, ConfigUnsupported, "doesn't support the 'preserve' action for 'on_reboot'/'on_poweroff'"),
    ],
)
def test_an_action_that_does_not_fit_is_refused(event: int, action: int, error: type[VirtError], words: str) -> None:
    with pytest.raises(error, match=words):
        act(off(), event, action)


def test_a_guest_may_not_restart_at_poweroff_and_end_at_reboot() -> None:
    dom = off()
    act(dom, DomainLifecycle.POWEROFF, DomainLifecycleAction.RESTART)
    with pytest.raises(ConfigUnsupported, match="'onReboot' set to 'destroy and 'onPoweroff' set to 'reboot'"):
        act(dom, DomainLifecycle.REBOOT, DomainLifecycleAction.DESTROY)
    assert dom.config.on_reboot is LifecycleAction.RESTART
