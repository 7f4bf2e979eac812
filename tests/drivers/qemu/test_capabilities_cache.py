"""When an emulator is asked, who waits for whom, and what makes an answer void."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pyvirtd.drivers.qemu.capabilities import CapabilitiesCache, ProbeFailed, QemuCapabilities
from pyvirtd.drivers.qemu.capabilities import cache as module
from pyvirtd.errors import SystemError_
from tests.drivers.qemu.capabilities_data import make_capabilities


class Probes:
    """Stands for QEMU: counts how often it was asked, and waits when told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.at_once = self.most_at_once = 0
        self.fail: ProbeFailed | None = None
        self.gate: asyncio.Event | None = None

    async def __call__(self, binary: str) -> QemuCapabilities:
        self.asked.append(binary)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await (self.gate.wait() if self.gate else asyncio.sleep(0))
        finally:
            self.at_once -= 1
        if self.fail:
            raise self.fail
        return make_capabilities(binary)


@pytest.fixture
def binary(tmp_path: Path) -> str:
    return make_binary(tmp_path, "qemu-system-x86_64")


def make_binary(directory: Path, name: str) -> str:
    path = directory / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def ask(directory: Path | None, probes: Probes, binary: str) -> QemuCapabilities:
    """A new cache, as after a restart, asked once."""

    async def once() -> QemuCapabilities:
        return await CapabilitiesCache(directory, probes).get(binary)

    return asyncio.run(once())


def test_second_question_is_answered_from_memory(binary: str) -> None:
    async def twice(probes: Probes) -> bool:
        cache = CapabilitiesCache(None, probes)
        return await cache.get(binary) is await cache.get(binary)

    probes = Probes()
    assert asyncio.run(twice(probes))
    assert probes.asked == [binary]


def test_askers_at_the_same_time_share_one_probe(binary: str) -> None:
    async def crowd(probes: Probes) -> int:
        cache = CapabilitiesCache(None, probes)
        return len({id(caps) for caps in await asyncio.gather(*(cache.get(binary) for _ in range(10)))})

    probes = Probes()
    assert asyncio.run(crowd(probes)) == 1
    assert probes.asked == [binary]


def test_asker_that_gives_up_does_not_take_the_answer_from_others(binary: str) -> None:
    async def run(probes: Probes) -> QemuCapabilities:
        probes.gate = asyncio.Event()
        cache = CapabilitiesCache(None, probes)
        first, second = (asyncio.ensure_future(cache.get(binary)) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0)
        probes.gate.set()
        return await second

    probes = Probes()
    assert asyncio.run(run(probes)).binary == binary
    assert probes.asked == [binary]


def test_few_probes_run_at_once(tmp_path: Path) -> None:
    async def run(probes: Probes) -> None:
        cache = CapabilitiesCache(None, probes)
        binaries = [make_binary(tmp_path, f"qemu-system-{number}") for number in range(8)]
        await asyncio.gather(*(cache.get(b) for b in binaries))

    probes = Probes()
    asyncio.run(run(probes))
    assert len(probes.asked) == 8
    assert probes.most_at_once == module.PROBES_AT_ONCE


def test_answer_survives_a_restart(tmp_path: Path, binary: str) -> None:
    probes = Probes()
    assert ask(tmp_path / "cache", probes, binary) == ask(tmp_path / "cache", probes, binary)
    assert probes.asked == [binary]


def replaced(binary: str) -> None:
    Path(binary).unlink()
    make_binary(Path(binary).parent, Path(binary).name)


def touched(binary: str) -> None:
    os.utime(binary, ns=(1, 1))


def other_mode(binary: str) -> None:
    Path(binary).chmod(0o700)  # changes only ctime


@pytest.mark.parametrize("change", [replaced, touched, other_mode])
def test_changed_binary_is_asked_again(tmp_path: Path, binary: str, change: Callable[[str], None]) -> None:
    probes = Probes()

    async def run() -> None:
        cache = CapabilitiesCache(tmp_path / "cache", probes)
        await cache.get(binary)
        change(binary)
        assert cache.cached(binary) is None
        await cache.get(binary)

    asyncio.run(run())
    assert len(probes.asked) == 2


@pytest.mark.parametrize("fact", ["_kvm_access", "_modules_mtime_ns", "_read_microcode"])
def test_changed_host_is_asked_again(tmp_path: Path, binary: str, monkeypatch: pytest.MonkeyPatch, fact: str) -> None:
    probes = Probes()
    ask(tmp_path / "cache", probes, binary)
    monkeypatch.setattr(module, fact, lambda: 12345)
    ask(tmp_path / "cache", probes, binary)
    assert len(probes.asked) == 2


def test_file_of_another_format_is_not_used(tmp_path: Path, binary: str) -> None:
    probes = Probes()
    ask(tmp_path / "cache", probes, binary)
    (file,) = (tmp_path / "cache").iterdir()
    data = json.loads(file.read_text())
    data["identity"]["format"] += 1
    file.write_text(json.dumps(data))
    ask(tmp_path / "cache", probes, binary)
    assert len(probes.asked) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"identity": {}, "capabilities": {}}', "null", "\0"])
def test_broken_file_is_as_good_as_none(tmp_path: Path, binary: str, text: str) -> None:
    probes = Probes()
    ask(tmp_path / "cache", probes, binary)
    (file,) = (tmp_path / "cache").iterdir()
    file.write_text(text)
    assert ask(tmp_path / "cache", probes, binary).arch == "x86_64"
    assert len(probes.asked) == 2


def test_file_that_lies_about_its_contents_is_not_used(tmp_path: Path, binary: str) -> None:
    probes = Probes()
    ask(tmp_path / "cache", probes, binary)
    (file,) = (tmp_path / "cache").iterdir()
    data = json.loads(file.read_text())
    del data["capabilities"]["schema"]
    file.write_text(json.dumps(data))
    ask(tmp_path / "cache", probes, binary)
    assert len(probes.asked) == 2


def test_directory_that_cannot_be_written_costs_only_the_file(tmp_path: Path, binary: str) -> None:
    (tmp_path / "file").write_text("")
    assert ask(tmp_path / "file" / "cache", Probes(), binary).arch == "x86_64"


def test_failure_is_remembered_for_a_while(binary: str, monkeypatch: pytest.MonkeyPatch) -> None:
    probes = Probes()
    probes.fail = ProbeFailed("it does not start")

    async def fail_thrice() -> list[int]:
        cache = CapabilitiesCache(None, probes)
        counts = []
        for retry_after in (60.0, 60.0, 0.0):
            monkeypatch.setattr(module, "RETRY_AFTER_S", retry_after)
            with pytest.raises(ProbeFailed, match="it does not start"):
                await cache.get(binary)
            counts.append(len(probes.asked))
        return counts

    assert asyncio.run(fail_thrice()) == [1, 1, 2]


def test_failure_is_forgotten_when_the_binary_changes(binary: str) -> None:
    probes = Probes()
    probes.fail = ProbeFailed("it does not start")

    async def mend() -> QemuCapabilities:
        cache = CapabilitiesCache(None, probes)
        with pytest.raises(ProbeFailed):
            await cache.get(binary)
        probes.fail = None
        touched(binary)
        return await cache.get(binary)

    assert asyncio.run(mend()).binary == binary


def test_failure_is_not_written(tmp_path: Path, binary: str) -> None:
    probes = Probes()
    probes.fail = ProbeFailed("it does not start")
    with pytest.raises(ProbeFailed):
        ask(tmp_path / "cache", probes, binary)
    assert not list((tmp_path / "cache").glob("*"))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda _path: None, "Cannot check QEMU binary {}: No such file or directory"),
        (Path.mkdir, "QEMU binary {} is not executable: Is a directory"),
        (lambda path: path.write_text(""), "QEMU binary {} is not executable: Permission denied"),
    ],
)
def test_path_that_cannot_be_run_is_never_asked(tmp_path: Path, make: Callable[[Path], object], text: str) -> None:
    path = tmp_path / "qemu-system-x"
    make(path)
    probes = Probes()
    with pytest.raises(SystemError_) as caught:
        ask(None, probes, str(path))
    assert caught.value.message == text.format(path)
    assert probes.asked == []


def test_closing_ends_the_probes_under_way(binary: str) -> None:
    async def run(probes: Probes) -> int:
        probes.gate = asyncio.Event()
        cache = CapabilitiesCache(None, probes)
        asking = asyncio.ensure_future(cache.get(binary))
        await asyncio.sleep(0.01)
        await cache.close()
        with pytest.raises(asyncio.CancelledError):
            await asking
        return probes.at_once

    assert asyncio.run(run(Probes())) == 0
