"""What a guest leaves at its end: each thing is taken back, whatever becomes of the others."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pyvirtd.drivers.qemu import process
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.helpers import Helpers
from pyvirtd.errors import InternalError
from pyvirtd.model.domain import DomainDef
from pyvirtd.paths import Paths
from tests.drivers.qemu.definitions import document

UUID = "<uuid>c7a5fdbd-cdaf-9455-926a-d65c16db1809</uuid>"


class World:
    """A driver, and the functions of other modules, of which each only notes its name, or raises at it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, fails: str, error: Exception) -> None:
        self.done: list[str] = []
        self.fails, self.error = fails, error
        self.host = SimpleNamespace(paths=Paths.system(folder))
        self.config = None
        self.functions = SimpleNamespace(take_back=self.step("functions"))
        self.pci = SimpleNamespace(take_back=self.step("pci"))
        self.ports = SimpleNamespace(release=lambda _live: self.done.append("ports"))
        self.helpers = SimpleNamespace(stop=self.step("helpers"))
        for module, name in ((process.shares, "remove"), (process.transient, "remove_overlays")):
            monkeypatch.setattr(module, name, self.step(name))
        for name in ("remove_tpm", "close_interfaces", "remove_status", "_remove_group"):
            monkeypatch.setattr(process, name, self.step(name))
        monkeypatch.setattr(process, "remove_memory_directories", lambda *_: self.done.append("memory"))

    def step(self, name: str) -> Any:
        async def step(*_: object) -> None:
            self.done.append(name)
            if name == self.fails:
                raise self.error

        return step

    async def ending_hooks(self, _dom: QemuDomain, _live: DomainDef, between: Any) -> None:
        self.done.append("hooks")
        await between

    def clean_up(self) -> None:
        live = DomainDef.parse(document(top=UUID))
        dom = QemuDomain(live, persistent=False)
        helpers = cast("Helpers", self.helpers)
        asyncio.run(process.clean_up(cast("Any", self), dom, live, [], helpers, None, None))


STEPS = ["helpers", "_remove_group", "functions", "pci", "remove", "remove_tpm", "memory", "ports"]
STEPS += ["close_interfaces", "hooks", "remove_overlays", "remove_status"]


@pytest.mark.parametrize("fails", ["helpers", "remove_tpm", "close_interfaces", "remove_status"])
@pytest.mark.parametrize("error", [InternalError("no"), OSError(28, "full")], ids=["virt", "os"])
def test_step_that_fails_keeps_no_other_from_being_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, fails: str, error: Exception
) -> None:
    world = World(monkeypatch, tmp_path, fails, error)
    world.clean_up()
    assert world.done == STEPS
    assert "not all that it was given could be taken back" in caplog.text


def test_even_a_fault_of_ours_lets_the_others_be_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    world = World(monkeypatch, tmp_path, "remove_tpm", KeyError("ours"))
    with pytest.raises(KeyError):
        world.clean_up()
    assert world.done == STEPS
