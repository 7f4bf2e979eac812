"""Waiting for a helper's socket."""

import asyncio
import os
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyvirtd.drivers.qemu.helpers import base
from pyvirtd.drivers.qemu.helpers.base import Helper
from pyvirtd.util.process import spawn


class Some(Helper):
    """A helper that the tests start."""

    title, program = "some", "sleep"

    def __init__(self, run: Any, pid_file: Path) -> None:
        super().__init__(run)
        self.pid_file = pid_file

    async def start(self) -> None: ...


def some(folder: Path) -> Some:
    return Some(SimpleNamespace(name="g"), folder / "pid")


def test_a_socket_is_there_when_it_listens(tmp_path: Path) -> None:
    path = tmp_path / "a b"
    assert not base._listens(path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert not base._listens(path)
        server.listen()
        assert base._listens(path)
        assert not base._listens(tmp_path / "a")
    assert not base._listens(path)  # only its name is left


def test_one_of_many_sockets_by_that_name_may_listen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        lines = [f"0: 00000002 00000000 {flags} 0001 01 77 {path}\n" for flags in ("00000000", "00010000")]
        longer = f"0: 00000002 00000000 00010000 0001 01 77 /x {path}\n"
        for text, there in ((lines[0] + longer, False), ("".join(lines), True)):
            monkeypatch.setattr(base, "SOCKETS", tmp_path / "unix")
            (tmp_path / "unix").write_text(text)
            assert base._listens(path) is there


def test_waiting_for_a_socket_does_not_hold_up_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, plain = [], base._listens

    def listens(path: Path) -> bool:
        looked.append(threading.current_thread() is threading.main_thread())
        return plain(path)

    monkeypatch.setattr(base, "_listens", listens)
    path = tmp_path / "s"

    async def main() -> None:
        helper = some(tmp_path)
        helper.process = spawn(["sleep", "60"])
        waiting = asyncio.ensure_future(helper._wait_for(path))
        await asyncio.sleep(0.02)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
            await waiting
        await helper.stop()

    asyncio.run(main())
    assert looked
    assert not any(looked)


def test_a_helper_is_found_again_by_its_program(tmp_path: Path) -> None:
    async def main() -> None:
        helper = some(tmp_path)
        assert not await helper.find()
        helper.pid_file.write_text("no number")
        assert not await helper.find()
        helper.pid_file.write_text(f"{os.getpid()}")
        assert not await helper.find()
        process = spawn(["sleep", "60"])
        helper.pid_file.write_text(f"{process.pid}\n")
        assert await helper.find()
        await helper.stop()
        await process.wait()
        assert not helper.pid_file.exists()

    asyncio.run(main())
