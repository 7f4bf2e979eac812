"""IOThreads that come, go and change while the guest runs, and in its definition."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from pyvirtd.api.domain_tune import TunePart
from pyvirtd.api.rpc import accepts
from pyvirtd.api.types import TypedParam
from pyvirtd.constants.domain import DomainModificationImpact as Impact
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.constants.host import TypedParameterType as Kind
from pyvirtd.core import audit_records
from pyvirtd.core.edits import change, targets
from pyvirtd.core.params import checked
from pyvirtd.drivers.qemu.cgroups import add_thread, remove_thread
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.tune_pins import iothread_tids, set_affinity
from pyvirtd.drivers.qemu.tune_shared import iothread_ids
from pyvirtd.errors import BadCall, ConfigUnsupported, InvalidArg, OperationInvalid, OperationUnsupported
from pyvirtd.model.cpu import IothreadId
from pyvirtd.model.domain import DomainDef

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

INT_MAX = 2**31 - 1
POLL = {"poll_max_ns": Kind.ULLONG, "poll_grow": Kind.UINT, "poll_shrink": Kind.UINT}
POOL = {"thread_pool_min": Kind.INT, "thread_pool_max": Kind.INT}
UNSET = -1  # a size of the pool that is QEMU's own


class IoThreads(TunePart[QemuDomain]):
    """The procedures that change IOThreads."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver

    @accepts(Impact.LIVE | Impact.CONFIG)
    async def domain_add_iothread(self, dom: QemuDomain, iothread_id: int, flags: int) -> None:
        _check_id(iothread_id)

        def edit(definition: DomainDef, *, live: bool) -> None:
            name_all(definition)
            if iothread_id in iothread_ids(definition):
                raise InvalidArg(f"an IOThread is already using iothread_id '{iothread_id}'", domain=From.DOMAIN)
            definition.iothreadids.append(IothreadId(id=iothread_id))
            definition.iothreads = len(definition.iothreadids)

        async def tell_qemu() -> None:
            with self._audited(dom, 1):
                await dom.monitor.execute("object-add", {"qom-type": "iothread", "id": f"iothread{iothread_id}"})
            cpus = dom.live_def.vcpu.cpuset
            tid = (await iothread_tids(dom.running)).get(iothread_id)
            if tid is not None:
                await add_thread(dom, "iothread", iothread_id, tid)
            if cpus is not None and tid is not None:
                set_affinity(tid, cpus)

        await change(self.driver, dom, flags, edit, tell_qemu)

    @accepts(Impact.LIVE | Impact.CONFIG)
    async def domain_del_iothread(self, dom: QemuDomain, iothread_id: int, flags: int) -> None:
        if not iothread_id:
            raise BadCall("iothread_id in virDomainDelIOThread must not be zero")

        def edit(definition: DomainDef, *, live: bool) -> None:
            name_all(definition)
            if iothread_id not in iothread_ids(definition):
                raise InvalidArg(f"cannot find IOThread '{iothread_id}' in iothreadids list", domain=From.DOMAIN)
            check_unused(definition, iothread_id)
            remove(definition, iothread_id)

        async def tell_qemu() -> None:
            with self._audited(dom, -1):
                await dom.monitor.execute("object-del", {"id": f"iothread{iothread_id}"})
            await remove_thread(dom, "iothread", iothread_id)

        await change(self.driver, dom, flags, edit, tell_qemu)

    @accepts(Impact.LIVE | Impact.CONFIG)
    async def domain_set_iothread_params(
        self, dom: QemuDomain, iothread_id: int, params: list[TypedParam], flags: int
    ) -> None:
        if not params:
            raise BadCall("params in virDomainSetIOThreadParams must not be NULL")
        _check_id(iothread_id)
        wanted = checked(params, POLL | POOL)
        check_values(wanted)
        if targets(dom, flags)[1] and wanted.keys() & POLL.keys():
            raise OperationUnsupported("configuring persistent polling values is not supported", domain=From.QEMU)

        def edit(definition: DomainDef, *, live: bool) -> None:
            name_all(definition)
            thread = next((one for one in definition.iothreadids if one.id == iothread_id), None)
            if thread is None:
                raise InvalidArg(f"cannot find IOThread '{iothread_id}' in iothreadids", domain=From.QEMU)
            set_pool(thread, wanted, live=live)

        async def tell_qemu() -> None:
            await self._tell(dom, iothread_id, wanted)

        await change(self.driver, dom, flags, edit, tell_qemu)

    def _audited(self, dom: QemuDomain, more: int) -> AbstractContextManager[None]:
        live = dom.live_def
        count = len(iothread_ids(live))
        return self.driver.host.audit.outcome(audit_records.amount(live, "iothread", count, count + more))

    async def _tell(self, dom: QemuDomain, number: int, wanted: Mapping[str, Any]) -> None:
        names = list(wanted)
        if (low := wanted.get("thread_pool_min")) is not None and "thread_pool_max" in names:
            # QEMU holds the pool's bounds against each other at each step.
            path = f"/objects/iothread{number}"
            highest = await dom.monitor.execute("qom-get", {"path": path, "property": "thread-pool-max"})
            names.sort(key=lambda name: name == ("thread_pool_min" if low > highest else "thread_pool_max"))
        for name in names:
            arguments = {"path": f"/objects/iothread{number}", "property": name.replace("_", "-")}
            await dom.monitor.execute("qom-set", arguments | {"value": wanted[name]})


def name_all(definition: DomainDef) -> None:
    """Give every thread that is only counted its number."""
    named = {thread.id for thread in definition.iothreadids}
    definition.iothreadids += [IothreadId(id=number) for number in iothread_ids(definition) if number not in named]


def check_unused(definition: DomainDef, number: int) -> None:
    """Raises InvalidArg for a thread that serves a disk or a controller."""
    for disk in definition.devices.disk:
        if disk.driver is not None and disk.driver.iothread == number:
            raise InvalidArg(
                f"cannot remove IOThread {number} since it is being used by disk '{disk.target.dev}'",
                domain=From.DOMAIN,
            )
    if any(getattr(one.driver, "iothread", None) == number for one in definition.devices.controller):
        raise InvalidArg(f"cannot remove IOThread '{number}' since it is being used by controller", domain=From.DOMAIN)


def remove(definition: DomainDef, number: int) -> None:
    """Take a thread out, with what says where and how it runs."""
    definition.iothreadids = [thread for thread in definition.iothreadids if thread.id != number]
    definition.iothreads = len(definition.iothreadids) or None
    tune = definition.cputune
    if tune is None:
        return
    tune.iothreadpin = [pin for pin in tune.iothreadpin if pin.iothread != number]
    for sched in tune.iothreadsched:
        sched.iothreads = frozenset(sched.iothreads or ()) - {number}
    tune.iothreadsched = [sched for sched in tune.iothreadsched if sched.iothreads]


def check_values(wanted: Mapping[str, Any]) -> None:
    """Raises ConfigUnsupported for values that no thread can have."""
    for name in POLL:
        if wanted.get(name, 0) > INT_MAX:
            word = name.replace("_", "-")
            raise ConfigUnsupported(
                f"{word} ({wanted[name]}) must be less than or equal to {INT_MAX}", domain=From.QEMU
            )
    low, high = wanted.get("thread_pool_min", 0), wanted.get("thread_pool_max", UNSET)
    if low < UNSET:
        raise ConfigUnsupported(f"thread_pool_min ({low}) must be equal to or greater than -1", domain=From.QEMU)
    if high != UNSET and high <= 0:
        raise ConfigUnsupported(f"thread_pool_max ({high}) must be a positive number or -1", domain=From.QEMU)


def set_pool(thread: IothreadId, wanted: Mapping[str, Any], *, live: bool) -> None:
    """Note a thread's pool in a definition. Raises OperationInvalid."""
    for name in POOL.keys() & wanted.keys():
        if live and wanted[name] < 0:
            raise OperationInvalid(
                f"{name} ({wanted[name]}) must be equal to or greater than 0 for live change", domain=From.QEMU
            )
    low, high = (_pool(thread, wanted, name) for name in POOL)
    if low > high and not (live and high == UNSET):  # what QEMU chose itself only QEMU knows
        raise OperationInvalid(
            f"thread_pool_min ({low}) can't be greater than thread_pool_max ({high})", domain=From.QEMU
        )
    for name in POOL.keys() & wanted.keys():
        setattr(thread, name, None if wanted[name] == UNSET else wanted[name])


def _pool(thread: IothreadId, wanted: Mapping[str, Any], name: str) -> int:
    value = wanted.get(name, getattr(thread, name))
    return UNSET if value is None else int(value)


def _check_id(number: int) -> None:
    if not number:
        raise InvalidArg("invalid value of 0 for iothread_id", domain=From.QEMU)
