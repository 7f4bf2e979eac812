"""Throttle groups that come, go and change while the guest runs, and in its definition."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pyvirtd.api.domain_block import BlockPart
from pyvirtd.api.events import DomainEventTunable
from pyvirtd.api.rpc import accepts
from pyvirtd.api.types import TypedParam, param_string, param_ullong
from pyvirtd.constants.domain import DomainModificationImpact as Impact
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.constants.host import TypedParameterType as Kind
from pyvirtd.core.edits import change
from pyvirtd.core.params import checked
from pyvirtd.drivers.qemu.command.throttle import GROUP_NAME, group_props, limit_names, limits, object_id
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.validate.throttle import check_group
from pyvirtd.errors import BadCall, InvalidArg, OperationInvalid
from pyvirtd.model.disk import ThrottleGroup
from pyvirtd.model.domain import DomainDef

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

KINDS = dict.fromkeys(limit_names(), Kind.ULLONG) | {GROUP_NAME: Kind.STRING}
_PARTS = ("total", "read", "write")


class ThrottleGroups(BlockPart[QemuDomain]):
    """The procedures that change groups."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver

    @accepts(Impact.LIVE | Impact.CONFIG)
    async def domain_set_throttle_group(
        self, dom: QemuDomain, group: str, params: list[TypedParam], flags: int
    ) -> None:
        """Make a group, or change those kinds of an existing one's limits that are given."""
        if not params:
            raise BadCall("params in virDomainSetThrottleGroup must not be NULL")
        wanted = checked(params, KINDS)
        if wanted.pop(GROUP_NAME, group) != group:
            raise InvalidArg(f"throttle group '{group}' cannot be renamed")

        def edit(definition: DomainDef, *, live: bool) -> None:
            check_group(_changed(definition, group, wanted))

        async def tell_qemu() -> None:
            there = find_group(dom.live_def, group) is not None
            live = dom.live_def.copy()
            changed = _changed(live, group, wanted)
            if there:
                place = {"path": f"/objects/{object_id(group)}", "property": "limits"}
                await dom.monitor.execute("qom-set", place | {"value": limits(changed, every=True)})
            else:
                await dom.monitor.execute("object-add", group_props(changed))
            told = [param_ullong(f"blkdeviotune.{name}", value) for name, value in wanted.items()]
            named = param_string(f"blkdeviotune.{GROUP_NAME}", group)
            self.driver.host.events.emit(self.driver, DomainEventTunable(dom, [named, *told]))

        await change(self.driver, dom, flags, edit, tell_qemu)

    @accepts(Impact.LIVE | Impact.CONFIG)
    async def domain_del_throttle_group(self, dom: QemuDomain, group: str | None, flags: int) -> None:
        if group is None:
            raise BadCall("group in virDomainDelThrottleGroup must not be NULL")

        def edit(definition: DomainDef, *, live: bool) -> None:
            found = find_group(definition, group)
            if found is None:
                where = "not found in domain" if live else "was not found in the domain config"
                raise InvalidArg(f"throttle group '{group}' {where}", domain=From.QEMU)
            for disk in definition.devices.disk:
                if any(one.group_name == group for one in disk.throttlefilters):
                    raise OperationInvalid(
                        f"throttle group '{group}' is still being used by disk '{disk.target.dev}'", domain=From.QEMU
                    )
            definition.throttlegroups.remove(found)

        async def tell_qemu() -> None:
            await dom.monitor.execute("object-del", {"id": object_id(group)})

        await change(self.driver, dom, flags, edit, tell_qemu)


def find_group(definition: DomainDef, name: str) -> ThrottleGroup | None:
    """The group of that name."""
    return next((group for group in definition.throttlegroups if group.group_name == name), None)


def _changed(definition: DomainDef, name: str, wanted: Mapping[str, int]) -> ThrottleGroup:
    """Put limits into a definition's group, which is made where there is none. A total takes the place of the limits
    for reading and writing, and they that of the total."""
    group = find_group(definition, name)
    if group is None:
        group = ThrottleGroup(group_name=name)
        definition.throttlegroups.append(group)
    for limit in wanted:
        _, _, rest = limit.partition("_")
        if limit.startswith(_PARTS):
            for part in _PARTS:
                setattr(group, f"{part}_{rest}", None)
    for limit, value in wanted.items():
        setattr(group, limit, value or None)
    return group
