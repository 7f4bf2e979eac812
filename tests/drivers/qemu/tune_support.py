"""A driver that is none, for tests of what changes definitions: it counts what it is asked to write."""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from pyvirtd.core.audit import Audit
from pyvirtd.core.host_topology import Topology
from pyvirtd.core.store import NameLocks
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.errors import InternalError
from pyvirtd.model.domain import DomainDef
from pyvirtd.util.process import Identity

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

HOST_CPUS = frozenset((0, 1))


class FakeDriver:
    """Writes nothing; `fails` makes writing fail."""

    def __init__(self) -> None:
        self.saved: list[str] = []
        self.fails = False
        self.credentials = SimpleNamespace(identity=Identity(7, 8), label="+7:+8", privileged=True)
        self.events: list[Any] = []
        self.names = NameLocks()
        self.host = SimpleNamespace(
            privileged=True,
            info=SimpleNamespace(topology=self._topology),
            audit=Audit(),
            events=SimpleNamespace(emit=lambda _driver, body: self.events.append(body)),
        )

    async def _topology(self) -> Topology:
        return Topology(HOST_CPUS, HOST_CPUS, (), (), 1, 1, 2, 1)

    async def save_config(self, dom: QemuDomain, config: DomainDef) -> None:
        self._save("config")
        dom.config = config

    async def save_status(self, dom: QemuDomain) -> None:
        self._save("status")

    def _save(self, what: str) -> None:
        if self.fails:
            raise InternalError("no space left")
        self.saved.append(what)

    @property
    def as_driver(self) -> "QemuDriver":
        return cast("QemuDriver", self)
