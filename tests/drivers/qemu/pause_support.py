"""A guest that is stopped and goes on, with neither QEMU nor a disk."""

from types import SimpleNamespace
from typing import Any, cast

from pyvirtd.constants.domain import DomainEventType, DomainRunningReason, DomainState
from pyvirtd.drivers.qemu.domain import Guest, Phase, QemuDomain
from pyvirtd.errors import VirtError
from pyvirtd.model.domain import DomainDef
from tests.drivers.qemu.definitions import document
from tests.drivers.qemu.tune_support import FakeDriver

UUID = "<uuid>c7a5fdbd-cdaf-9455-926a-d65c16db1809</uuid>"


class World(FakeDriver):
    """A guest whose QEMU takes every command but those with `errors`; the disk refuses the status writes `failing`."""

    def __init__(self) -> None:
        super().__init__()
        self.commands: list[str] = []
        self.told: list[tuple[int, int]] = []
        self.errors: dict[str, VirtError] = {}
        self.writes = 0
        self.failing: set[int] = set()  # by number, the first one is 1
        definition = DomainDef.parse(document(top=UUID))
        self.dom = QemuDomain(definition, persistent=True)
        self.dom.live = definition
        self.guest = SimpleNamespace(
            monitor=self,
            pausing=None,
            stop_pending=False,
            resuming=None,
            ending=None,
            phase=Phase.UP,
            rebooting=False,
        )
        self.dom.guest = cast("Guest", self.guest)
        self.dom.set_state(DomainState.RUNNING, DomainRunningReason.BOOTED)

    async def execute(self, command: str) -> dict[str, Any]:
        self.commands.append(command)
        if command in self.errors:
            raise self.errors[command]
        return {}

    async def save_status(self, dom: QemuDomain) -> None:
        self.writes += 1
        self.fails = self.writes in self.failing
        await super().save_status(dom)

    def emit_lifecycle(self, dom: QemuDomain, event: DomainEventType, detail: int) -> None:
        self.told.append((event, detail))

    @property
    def state(self) -> tuple[DomainState, int]:
        return self.dom.state, self.dom.reason
