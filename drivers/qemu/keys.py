"""Keys pressed for the user, and interrupts nobody can press."""

from typing import TYPE_CHECKING

from pyvirtd.api.domain_device import DevicePart
from pyvirtd.api.rpc import accepts
from pyvirtd.constants.domain import KeycodeSet
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.jobs import Job
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.keymaps import NAMES, to_qnum
from pyvirtd.errors import BadCall, InternalError, OperationFailed

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

QNUM_MAX = 0xFFFF


class Keys(DevicePart[QemuDomain]):
    """Procedures that act as the guest's keyboard and its NMI button."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver

    @accepts(0)
    async def domain_send_key(
        self, dom: QemuDomain, codeset: int, holdtime: int, keycodes: list[int], flags: int
    ) -> None:
        numbers = qnums(codeset, keycodes)
        async with dom.jobs.hold(Job.MODIFY, "DomainSendKey"):
            monitor = dom.monitor
            for index, number in enumerate(numbers):
                if number > QNUM_MAX:
                    raise OperationFailed(f"keycode {index} is invalid: 0x{number:X}", domain=From.QEMU)
            arguments: dict[str, object] = {"keys": [{"type": "number", "data": number} for number in numbers]}
            if holdtime:
                arguments["hold-time"] = holdtime
            await monitor.execute("send-key", arguments)

    @accepts(0)
    async def domain_inject_nmi(self, dom: QemuDomain, flags: int) -> None:
        async with dom.jobs.hold(Job.MODIFY, "DomainInjectNMI"):
            await dom.monitor.execute("inject-nmi")


def qnums(codeset: int, keycodes: list[int]) -> list[int]:
    """QEMU's numbers for keys of a set. Raises BadCall, and InternalError for a key that the set has not."""
    if codeset not in KeycodeSet.__members__.values():
        raise BadCall(f"Unsupported codeset '{codeset}'")
    if not keycodes:
        raise BadCall("nkeycodes in virDomainSendKey must be greater than zero")
    keys = KeycodeSet(codeset)
    if keys is KeycodeSet.QNUM:
        return keycodes
    table = to_qnum(keys)
    for code in keycodes:
        if code not in table:
            raise InternalError(f"cannot translate keycode {code} of {NAMES[keys]} codeset to qnum keycode")
    return [table[code] for code in keycodes]
