"""The calls that dump a guest."""

from typing import TYPE_CHECKING

from pyvirtd.api.domain_save import SavePart
from pyvirtd.api.rpc import accepts
from pyvirtd.constants.domain import DomainCoreDumpFlags as Flags
from pyvirtd.constants.domain import DomainCoreDumpFormat
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.dump import core_dump
from pyvirtd.errors import BadCall

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

ALL = Flags.CRASH | Flags.LIVE | Flags.RESET | Flags.BYPASS_CACHE | Flags.MEMORY_ONLY
EXCLUSIVE = ((Flags.CRASH, Flags.LIVE), (Flags.CRASH, Flags.RESET), (Flags.LIVE, Flags.RESET))


class Dumps(SavePart[QemuDomain]):
    """virDomainCoreDump and its younger form with a format."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver

    @accepts(ALL, function="qemuDomainCoreDumpWithFormat")
    async def domain_core_dump(self, dom: QemuDomain, to: str, flags: int) -> None:
        await self.domain_core_dump_with_format(dom, to, DomainCoreDumpFormat.RAW, flags)

    @accepts(ALL)
    async def domain_core_dump_with_format(self, dom: QemuDomain, to: str, dumpformat: int, flags: int) -> None:
        if dumpformat not in list(DomainCoreDumpFormat):
            raise BadCall(f"dumpformat '{dumpformat}' is not supported")
        for one, other in EXCLUSIVE:
            if flags & one and flags & other:
                raise BadCall(f"Flags 'VIR_DUMP_{one.name}' and 'VIR_DUMP_{other.name}' are mutually exclusive")
        dom.running  # noqa: B018 - raises for a domain that is off, before anything else
        await core_dump(self.driver, dom, to, DomainCoreDumpFormat(dumpformat), Flags(flags))
