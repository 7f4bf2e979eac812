"""Drivers: found by entry point, started in order, named by URIs."""

import asyncio
import logging
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pyvirtd.api.connect import ConnectPart
from pyvirtd.api.rpc import Part, accepts
from pyvirtd.config import DaemonConfig, QemuConfig
from pyvirtd.core import registry
from pyvirtd.core.driver import Driver, Host
from pyvirtd.core.hooks import Hooks
from pyvirtd.core.registry import driver_classes, driver_for_uri, start_drivers
from pyvirtd.errors import InternalError, NoConnect, OperationFailed, VirtError
from pyvirtd.paths import Paths


def host(folder: Path, *, privileged: bool = True) -> Host:
    paths = Paths.system(folder)
    return Host(paths, privileged, DaemonConfig(), QemuConfig(), Hooks(paths))


class Named(Driver):
    """A driver that notes its start."""

    name = "named"
    started: ClassVar[list[str]] = []

    async def start(self) -> None:
        Named.started.append(self.name)


def driver(name: str, *schemes: str, **attributes: Any) -> type[Driver]:
    return type(name, (Named,), {"name": name, "schemes": schemes, **attributes})


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Named.started.clear()


# --- entry points -----------------------------------------------------------------------------------------------------


def test_the_projects_drivers_are_found_by_their_entry_points() -> None:
    assert "test" in [cls.name for cls in driver_classes()]


def test_drivers_others_need_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["zzz", "qemu", "network", "secret", "lxc", "storage", "nwfilter", "interface", "nodedev"]
    points = [_Point(name, driver(name)) for name in names]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    found = [cls.name for cls in driver_classes()]
    wanted = ["secret", "storage", "interface", "nodedev", "network", "nwfilter", "lxc", "qemu", "zzz"]
    assert found == wanted


def test_a_driver_that_does_not_load_is_logged_and_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good = _Point("good", driver("good"))
    bad = EntryPoint("bad", "pyvirtd.no_such_module:Driver", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [bad, good])
    with caplog.at_level(logging.ERROR):
        assert [cls.name for cls in driver_classes()] == ["good"]
    assert "driver bad does not load" in caplog.text


class _Point:
    def __init__(self, name: str, cls: type[Driver]) -> None:
        self.name = name
        self.cls = cls

    def load(self) -> type[Driver]:
        return self.cls


# --- start ------------------------------------------------------------------------------------------------------------


def test_a_driver_that_does_not_start_takes_no_other_down(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(self: Driver) -> None:
        raise OperationFailed("no hypervisor")

    async def panic(self: Driver) -> None:
        raise ZeroDivisionError

    made = host(tmp_path)
    classes = [driver("a", start=refuse), driver("b", start=panic), driver("c")]
    with caplog.at_level(logging.ERROR):
        asyncio.run(start_drivers(made, classes))
    assert [one.name for one in made.drivers] == ["c"]
    assert "driver a does not start: operation failed: no hypervisor" in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(("privileged", "names"), [(True, ["s", "both"]), (False, ["u", "both"])])
def test_drivers_are_of_the_system_or_of_sessions(tmp_path: Path, names: list[str], *, privileged: bool) -> None:
    made = host(tmp_path, privileged=privileged)
    classes = [driver("s", session=False), driver("u", system=False), driver("both")]
    asyncio.run(start_drivers(made, classes))
    assert [one.name for one in made.drivers] == names


def test_each_driver_has_a_table_of_what_it_overrides(tmp_path: Path) -> None:
    class Connect(ConnectPart):
        def __init__(self, driver: Driver) -> None:
            self.driver = driver

        def connect_get_type(self) -> str:
            return "X"

        @accepts(4)
        async def connect_get_sysinfo(self, flags: int) -> str:
            return ""

    class Mine(Named):
        name = "mine"
        parts: ClassVar[tuple[type[Part], ...]] = (Connect,)

    handlers = {handler.procedure.name: handler for handler in Mine(host(tmp_path)).handlers.values()}
    assert set(handlers) == {"connect_get_type", "connect_get_sysinfo"}
    sysinfo = handlers["connect_get_sysinfo"]
    assert (sysinfo.is_async, sysinfo.accepted_flags, sysinfo.function) == (True, 4, "mineConnectGetSysinfo")
    assert handlers["connect_get_type"].accepted_flags == 0


# --- URIs -------------------------------------------------------------------------------------------------------------


def served(folder: Path, *, privileged: bool = True) -> Host:
    made = host(folder, privileged=privileged)
    classes = [driver("alpha", "alpha", "alpha2"), driver("qemu", "qemu"), driver("storage")]
    asyncio.run(start_drivers(made, classes))
    return made


@pytest.mark.parametrize(
    ("uri", "name", "full"),
    [
        ("", "qemu", "qemu:///system"),
        ("qemu:///system", "qemu", "qemu:///system"),
        ("qemu:///system?name=x", "qemu", "qemu:///system?name=x"),
        ("alpha2:///system", "alpha", "alpha2:///system"),
    ],
)
def test_a_uri_names_a_driver(tmp_path: Path, uri: str, name: str, full: str) -> None:
    found, said = driver_for_uri(served(tmp_path), uri)
    assert (found.name, said) == (name, full)


@pytest.mark.parametrize(
    ("uri", "error", "words"),
    [
        ("bar:///system", NoConnect, "no connection driver available for bar:///system"),
        ("QEMU:///system", NoConnect, "no connection driver available for QEMU:///system"),
        ("storage:///system", NoConnect, "no connection driver available for storage:///system"),
        ("qemu", NoConnect, "no connection driver available for URI 'qemu' does not include a driver name"),
        ("qemu:///session", InternalError, "unexpected qemu URI path '/session', try qemu:///system"),
        ("qemu:///", InternalError, "unexpected qemu URI path '/', try qemu:///system"),
        ("qemu:", InternalError, "unexpected qemu URI path '', try qemu:///system"),
        ("qemu://system", InternalError, "invalid URI qemu://system (maybe you want qemu:///system)"),
        ("qemu://host/system", NoConnect, "no connection driver available for qemu://host/system"),
        ("qemu+ssh://host/system", NoConnect, "no connection driver available for qemu+ssh://host/system"),
        ("qemu+unix:///system", NoConnect, "no connection driver available for qemu+unix:///system"),
        ("\n%s://[", NoConnect, "no connection driver"),
    ],
)
def test_other_uris_are_refused(tmp_path: Path, uri: str, error: type[VirtError], words: str) -> None:
    with pytest.raises(error) as caught:
        driver_for_uri(served(tmp_path), uri)
    assert words in caught.value.message


def test_a_session_daemon_serves_the_session(tmp_path: Path) -> None:
    made = served(tmp_path, privileged=False)
    assert driver_for_uri(made, "")[1] == "qemu:///session"
    with pytest.raises(InternalError, match="try qemu:///session"):
        driver_for_uri(made, "qemu:///system")


def test_without_qemu_the_first_hypervisor_is_the_default(tmp_path: Path) -> None:
    made = host(tmp_path)
    asyncio.run(start_drivers(made, [driver("storage"), driver("zed", "zed"), driver("alpha", "alpha")]))
    assert driver_for_uri(made, "")[1] == "zed:///system"
    with pytest.raises(NoConnect):
        driver_for_uri(host(tmp_path), "")
