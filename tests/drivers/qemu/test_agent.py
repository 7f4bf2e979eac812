"""The guest agent: Debian's real one over a unix socket, and fakes that are late, broken or hostile."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pyvirtd.constants.error import ErrorDomain, ErrorNumber
from pyvirtd.drivers.qemu.agent import BLOCK, DEFAULT, Agent, AgentCommandRefused, AgentUnsynced
from pyvirtd.errors import AgentUnresponsive, InternalError, VirtError
from tests.guest import agent_program


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: sockets live in it."""
    with tempfile.TemporaryDirectory(prefix="pv-ga-") as made:
        yield Path(made)


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@pytest.fixture
def real(folder: Path) -> Iterator[Path]:
    """The socket of a real qemu-ga."""
    program = shutil.which("qemu-ga", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or agent_program()
    if not program:
        pytest.skip("QEMU's guest agent is not to be had")
    path = folder / "ga.sock"
    argv = [str(program), "-m", "unix-listen", "-p", str(path), "-t", str(folder), "-f", str(folder / "pid")]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 20
        while not listens(path):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield path
        process.kill()


class Fake:
    """An agent of our own. `answer` maps a command to the bytes that come back; syncs are answered unless told."""

    def __init__(self, answer: Callable[[dict[str, Any]], bytes]) -> None:
        self.answer = answer
        self.sync: Callable[[int], bytes] = lambda number: b'\xff{"return": %d}\n' % number
        self.received: list[bytes] = []
        self.connections = 0
        self.hello = b""
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        writer.write(self.hello)
        while line := await self._line(reader):
            self.received.append(line)
            message = json.loads(line.lstrip(b"\xff"))
            if isinstance(message, dict) and message.get("execute") == "guest-sync-delimited":
                writer.write(self.sync(message["arguments"]["id"]))
            else:
                writer.write(self.answer(message))

    async def _line(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.readline()
        except ConnectionError:
            return b""

    def hang_up(self) -> None:
        for writer in self.writers:
            writer.transport.abort()

    @asynccontextmanager
    async def listening(self, folder: Path) -> AsyncIterator[Agent]:
        server = await asyncio.start_unix_server(self.serve, folder / "fake.sock", limit=1 << 24)
        agent = Agent(folder / "fake.sock")
        try:
            yield agent
        finally:
            await agent.close()
            server.close()
            self.hang_up()
            await asyncio.sleep(0)


def always(data: bytes) -> Fake:
    return Fake(lambda _message: data)


def with_agent(fake: Fake, folder: Path, work: Callable[[Agent], Awaitable[None]]) -> None:
    async def main() -> None:
        async with fake.listening(folder) as agent:
            await asyncio.wait_for(work(agent), 30)

    asyncio.run(main())


def failure(fake: Fake, folder: Path, timeout: int = BLOCK) -> VirtError:
    """How guest-ping fails."""
    caught: list[VirtError] = []

    async def work(agent: Agent) -> None:
        with pytest.raises(VirtError) as info:
            await agent.execute("guest-ping", timeout=timeout)
        caught.append(info.value)

    with_agent(fake, folder, work)
    return caught[0]


# --- a real agent -----------------------------------------------------------------------------------------------


def test_real_agent_answers_commands_in_a_row(real: Path) -> None:
    async def work() -> tuple[Any, Any]:
        agent = Agent(real)
        try:
            return await agent.execute("guest-ping"), await agent.execute("guest-info", timeout=DEFAULT)
        finally:
            await agent.close()

    ping, info = asyncio.run(work())
    assert ping == {}
    assert {"guest-sync-delimited", "guest-shutdown"} <= {item["name"] for item in info["supported_commands"]}


def test_real_agent_is_understood_after_half_a_command_of_somebody_else(real: Path) -> None:
    async def work() -> Any:
        _, writer = await asyncio.open_unix_connection(real)
        writer.write(b'{"execute": "guest-pi')
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        agent = Agent(real)
        try:
            return await agent.execute("guest-ping")
        finally:
            await agent.close()

    assert asyncio.run(work()) == {}


def test_real_agent_refuses_with_its_own_words(real: Path) -> None:
    async def work() -> None:
        agent = Agent(real)
        try:
            with pytest.raises(AgentCommandRefused) as info:
                await agent.execute("nope")
            assert info.value.qga_class == "CommandNotFound"
            words = "unable to execute QEMU agent command 'nope': The command nope has not been found"
            assert info.value.message == f"internal error: {words}"
            assert info.value.domain == ErrorDomain.QEMU
            assert await agent.execute("guest-ping") == {}
        finally:
            await agent.close()

    asyncio.run(work())


def test_real_agent_answers_a_clients_own_json_as_it_is(real: Path) -> None:
    async def work() -> str:
        agent = Agent(real)
        try:
            return await agent.raw('{"execute": "guest-ping", "id": 5}')
        finally:
            await agent.close()

    assert json.loads(asyncio.run(work())) == {"return": {}, "id": 5}


# --- answers ----------------------------------------------------------------------------------------------------


def test_an_answer_may_be_of_any_type(folder: Path) -> None:
    async def work(agent: Agent) -> None:
        assert await agent.execute("guest-ping") == [1, "x", None]

    with_agent(always(b'{"return": [1, "x", null]}\n'), folder, work)


def test_the_connection_is_kept_and_synchronized_once(folder: Path) -> None:
    fake = always(b'{"return": {}}\n')

    async def work(agent: Agent) -> None:
        for _ in range(5):
            await agent.execute("guest-ping")

    with_agent(fake, folder, work)
    assert fake.connections == 1
    assert len(fake.received) == 6


def test_commands_at_the_same_time_take_turns(folder: Path) -> None:
    fake = Fake(lambda message: json.dumps({"return": message["arguments"]}).encode() + b"\n")

    async def work(agent: Agent) -> None:
        answers = await asyncio.gather(*(agent.execute("echo", {"n": n}) for n in range(20)))
        assert answers == [{"n": n} for n in range(20)]

    with_agent(fake, folder, work)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"error": "x"}\n', "unable to execute QEMU agent command 'guest-ping': unknown QEMU command error"),
        (b'{"error": {"desc": 7}}\n', "unable to execute QEMU agent command 'guest-ping': unknown QEMU command error"),
        (b'{"error": {"desc": "dd"}}\n', "unable to execute QEMU agent command 'guest-ping': dd"),
        (b'{"foo": 1}\n', "unable to execute QEMU agent command 'guest-ping'"),
        (b"[1, 2]\n", "Parsed JSON reply '[1, 2]' isn't an object"),
        (b"garbage\n", "cannot parse json garbage: "),
        (b'{"return": NaN}\n', 'cannot parse json {"return": NaN}: '),
        (b"\x00\x1b[2J\n", "cannot parse json \ufffd\ufffd[2J: "),
        (b'{"return": ' + b"[" * 100_000 + b"\n", "cannot parse json "),
        (b'{"return": [' + b"[]," * 200_000 + b"1]}\n", "the guest agent's reply has too many parts"),
        (b'{"return": "' + b"x" * (11 << 20), "the guest agent's reply is too long"),
    ],
)
def test_a_bad_answer_is_an_internal_error(folder: Path, data: bytes, words: str) -> None:
    error = failure(always(data), folder)

    assert error.code == ErrorNumber.INTERNAL_ERROR
    assert error.message.startswith(f"internal error: {words}")
    assert len(error.message) < 3000


def test_an_agent_is_of_use_again_after_a_bad_answer(folder: Path) -> None:
    answers = [b"garbage\n", b'{"return": 2}\n']
    fake = Fake(lambda _message: answers.pop(0))

    async def work(agent: Agent) -> None:
        with pytest.raises(InternalError):
            await agent.execute("guest-ping")
        assert await agent.execute("guest-ping") == 2

    with_agent(fake, folder, work)
    assert fake.connections == 2


def test_events_of_the_agent_are_skipped(folder: Path) -> None:
    async def work(agent: Agent) -> None:
        assert await agent.execute("guest-ping") == 3

    with_agent(always(b'{"event": "X"}\n{"return": 3}\n'), folder, work)


def test_a_second_answer_is_not_taken_for_the_next_commands(folder: Path) -> None:
    answers = [b'{"return": 1}\n{"return": "again"}\n', b'{"return": 2}\n']
    fake = Fake(lambda _message: answers.pop(0))

    async def work(agent: Agent) -> None:
        assert await agent.execute("guest-ping") == 1
        assert await agent.execute("guest-ping") == 2

    with_agent(fake, folder, work)


# --- time -------------------------------------------------------------------------------------------------------


def test_a_late_answer_is_not_taken_for_the_next_commands(folder: Path) -> None:
    answers = [b"", b'{"return": "right"}\n']
    fake = Fake(lambda _message: answers.pop(0))

    async def work(agent: Agent) -> None:
        with pytest.raises(AgentUnresponsive, match="Guest agent not available for now"):
            await agent.execute("guest-ping", timeout=1)
        fake.hello = b'{"return": "late"}\n'
        assert await agent.execute("guest-ping", timeout=1) == "right"

    with_agent(fake, folder, work)


def test_a_silent_agent_is_unresponsive(folder: Path) -> None:
    error = failure(always(b""), folder, timeout=1)

    assert error.code == ErrorNumber.AGENT_UNRESPONSIVE
    assert error.message == "Guest agent is not responding: Guest agent not available for now"


def test_zero_seconds_sends_and_does_not_wait(folder: Path) -> None:
    fake = always(b'{"return": {}}\n')

    async def work(agent: Agent) -> None:
        with pytest.raises(AgentUnresponsive, match="Guest agent not available for now"):
            await agent.execute("guest-ping", timeout=0)
        await asyncio.sleep(0.1)
        assert fake.received[-1] == b'{"execute":"guest-ping"}\n'

    with_agent(fake, folder, work)


def test_the_agents_own_timeout_holds_where_a_command_has_none(folder: Path) -> None:
    async def work(agent: Agent) -> None:
        agent.response_timeout = 1
        began = time.monotonic()
        with pytest.raises(AgentUnresponsive):
            await agent.execute("guest-ping")
        assert 0.9 < time.monotonic() - began < 3

    with_agent(always(b""), folder, work)


def test_an_agent_that_dribbles_does_not_stretch_the_deadline(folder: Path) -> None:
    fake = always(b"")

    async def dribble() -> None:
        while True:
            for writer in fake.writers:
                writer.write(b" ")
            await asyncio.sleep(0.05)

    async def work(agent: Agent) -> None:
        dribbling = asyncio.create_task(dribble())
        began = time.monotonic()
        with pytest.raises(AgentUnresponsive):
            await agent.execute("guest-ping", timeout=1)
        assert time.monotonic() - began < 3
        dribbling.cancel()

    with_agent(fake, folder, work)


def test_a_wrong_sync_is_told_apart_from_silence(folder: Path) -> None:
    fake = always(b'{"return": {}}\n')
    fake.sync = lambda _number: b'\xff{"return": 77}\n'

    error = failure(fake, folder, timeout=1)

    assert isinstance(error, AgentUnsynced)
    assert error.code == ErrorNumber.AGENT_UNSYNCED
    assert "Guest agent returned ID: 77 instead of " in error.message


def test_a_right_sync_after_wrong_ones_will_do(folder: Path) -> None:
    fake = always(b'{"return": {}}\n')
    fake.sync = lambda number: b'junk\n{"return": 77}\n{"return": true}\n[]\nhalf\xff{"return": %d}\n' % number

    async def work(agent: Agent) -> None:
        assert await agent.execute("guest-ping") == {}

    with_agent(fake, folder, work)


def test_endless_noise_before_the_sync_is_given_up(folder: Path) -> None:
    fake = always(b'{"return": {}}\n')
    fake.sync = lambda _number: b"x\n" * (2 << 20)

    error = failure(fake, folder)

    assert error.code == ErrorNumber.INTERNAL_ERROR


# --- going ------------------------------------------------------------------------------------------------------


def test_an_agent_that_goes_ends_the_command(folder: Path) -> None:
    fake = always(b"")

    async def work(agent: Agent) -> None:
        asyncio.get_running_loop().call_later(0.2, fake.hang_up)
        with pytest.raises(AgentUnresponsive, match="Guest agent disappeared while executing command"):
            await agent.execute("guest-ping")

    with_agent(fake, folder, work)


def test_close_ends_the_command_that_waits_and_later_ones(folder: Path) -> None:
    async def work(agent: Agent) -> None:
        waiting = asyncio.create_task(agent.execute("guest-ping"))
        await asyncio.sleep(0.2)
        await agent.close()
        with pytest.raises(AgentUnresponsive, match="disappeared"):
            await waiting
        with pytest.raises(AgentUnresponsive, match="QEMU guest agent is not connected"):
            await agent.execute("guest-ping")

    with_agent(always(b""), folder, work)


def test_a_cancelled_command_leaves_the_agent_usable(folder: Path) -> None:
    answers = [b"", b'{"return": 2}\n']
    fake = Fake(lambda _message: answers.pop(0))

    async def work(agent: Agent) -> None:
        waiting = asyncio.create_task(agent.execute("guest-ping"))
        await asyncio.sleep(0.2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await agent.execute("guest-ping") == 2

    with_agent(fake, folder, work)


def test_no_socket_is_an_unresponsive_agent(folder: Path) -> None:
    with pytest.raises(AgentUnresponsive, match="failed to connect to agent socket: No such file or directory"):
        asyncio.run(Agent(folder / "none").execute("guest-ping"))


def test_shutdown_is_done_when_the_agent_goes(folder: Path) -> None:
    fake = always(b"")

    async def work(agent: Agent) -> None:
        asyncio.get_running_loop().call_later(0.2, fake.hang_up)
        await agent.shutdown("reboot")

    with_agent(fake, folder, work)
    assert json.loads(fake.received[-1]) == {"execute": "guest-shutdown", "arguments": {"mode": "reboot"}}


def test_shutdown_is_done_when_the_daemon_lets_go(folder: Path) -> None:
    async def work(agent: Agent) -> None:
        waiting = asyncio.create_task(agent.shutdown())
        await asyncio.sleep(0.2)
        await agent.close()
        await waiting

    with_agent(always(b""), folder, work)


def test_shutdown_that_the_guest_refuses_or_ignores_fails(folder: Path) -> None:
    async def refused(agent: Agent) -> None:
        with pytest.raises(AgentCommandRefused, match="no shutdown program"):
            await agent.shutdown()

    async def ignored(agent: Agent) -> None:
        with pytest.raises(AgentUnresponsive, match="not available"):
            await agent.shutdown(timeout_s=0.2)

    with_agent(always(b'{"error": {"desc": "no shutdown program"}}\n'), folder, refused)
    with_agent(always(b""), folder, ignored)


# --- a client's own JSON ----------------------------------------------------------------------------------------


def test_raw_refuses_what_is_no_json_before_the_guest_sees_it(folder: Path) -> None:
    fake = always(b'{"return": {}}\n')

    async def work(agent: Agent) -> None:
        with pytest.raises(InternalError, match="cannot parse json nojson: "):
            await agent.raw("nojson")

    with_agent(fake, folder, work)
    assert fake.received == []


def test_raw_names_a_command_that_has_no_name(folder: Path) -> None:
    async def work(agent: Agent) -> None:
        with pytest.raises(AgentCommandRefused, match="QEMU agent command '<unknown>': bad"):
            await agent.raw("[1]")

    with_agent(always(b'{"error": {"desc": "bad"}}\n'), folder, work)


def test_raw_gives_back_text_that_can_be_encoded(folder: Path) -> None:
    async def work(agent: Agent) -> None:
        text = await agent.raw('{"execute": "guest-ping"}')
        assert json.loads(text.encode()) == {"return": "\ud800 é"}

    with_agent(always(b'{"return": "\\ud800 \xc3\xa9"}\n'), folder, work)
