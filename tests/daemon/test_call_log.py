"""Who a connection is, and the entry that each changing call leaves."""

import asyncio
import logging
import os
import pwd
import socket as sockets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pyvirtd.api.types import TypedParam
from pyvirtd.constants.error import ErrorNumber
from pyvirtd.constants.host import TypedParameterType as Kind
from pyvirtd.core.access import Identity
from pyvirtd.daemon.transport import UnixTransport
from pyvirtd.log import ENTRY, Logs, parse_outputs
from pyvirtd.log.records import journal_fields
from tests.daemon.doubles import Refusing, rule
from tests.daemon.harness import TEST, Answered, Serving, eventually, serving

Work = Callable[[Serving], Awaitable[None]]
DEFINITION = "<domain type='test'><name>new</name><memory>8192</memory><os><type>hvm</type></os></domain>"


def run(folder: Path, work: Work) -> None:
    async def main() -> None:
        async with serving(folder) as server:
            await work(server)

    asyncio.run(main())


def entries(caplog: pytest.LogCaptureFixture) -> list[dict[str, str]]:
    """The journal's fields of the entries so far."""
    return [journal_fields(record) for record in caplog.records if getattr(record, ENTRY, False)]


def test_a_change_leaves_one_entry_that_says_who_and_what(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(server: Serving) -> None:
        client = await server.connect()
        await client.call("domain_suspend", TEST)

    run(tmp_path, work)
    (entry,) = entries(caplog)
    assert {
        "PYVIRTD_CALL": "domain_suspend",
        "PYVIRTD_OBJECT": "test",
        "PYVIRTD_OBJECT_UUID": "6695eb01-f6a4-8304-79aa-97f2502e193f",
        "PYVIRTD_UID": str(os.geteuid()),
        "PYVIRTD_USER": pwd.getpwuid(os.geteuid()).pw_name,
        "PYVIRTD_PID": str(os.getpid()),
        "PYVIRTD_RESULT": "success",
    }.items() <= entry.items()
    assert float(entry["PYVIRTD_DURATION_MS"]) < 1000
    assert "PYVIRTD_ERROR" not in entry


def test_what_a_call_makes_is_what_its_entry_is_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(server: Serving) -> None:
        await (await server.connect()).call("domain_define_xml", DEFINITION)

    run(tmp_path, work)
    (entry,) = entries(caplog)
    assert (entry["PYVIRTD_CALL"], entry["PYVIRTD_OBJECT"]) == ("domain_define_xml", "new")


def test_a_change_that_fails_leaves_an_entry_with_the_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(server: Serving) -> None:
        client = await server.connect()
        with pytest.raises(Answered):
            await client.call("domain_resume", TEST)
        rule(server.server, Refusing("domain:suspend"))
        with pytest.raises(Answered):
            await client.call("domain_suspend", TEST)

    run(tmp_path, work)
    failed, denied = entries(caplog)
    assert failed["PYVIRTD_RESULT"] == denied["PYVIRTD_RESULT"] == "failed"
    assert failed["PYVIRTD_ERROR_CODE"] != str(int(ErrorNumber.ACCESS_DENIED))
    assert denied["PYVIRTD_ERROR_CODE"] == str(int(ErrorNumber.ACCESS_DENIED))


def test_looking_leaves_no_entry_nor_does_what_never_began(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(server: Serving) -> None:
        client = await server.connect(read_only=True)
        await client.call("connect_list_all_domains", 1, 0)
        with pytest.raises(Answered):
            await client.call("domain_suspend", TEST)

    run(tmp_path, work)
    assert entries(caplog) == []


class Kept:
    """A writer that keeps."""

    def __init__(self, _target: str = "") -> None:
        self.texts: list[str] = []

    def write(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def close(self) -> None: ...


def test_the_journal_gets_entries_whatever_the_level_and_files_do_not() -> None:
    logs = Logs()
    writers = [Kept(), Kept()]
    logs.writing.outputs = tuple(zip(parse_outputs("3:journald 1:stderr"), writers, strict=True))
    logs.attach()
    try:
        for extra in ({ENTRY: True}, {}):
            record = logging.getLogger("pyvirtd.x").makeRecord(
                "x", logging.INFO, "", 0, f"{extra}", (), None, extra=extra
            )
            logging.getLogger("pyvirtd.x").handle(record)
        logging.getLogger("pyvirtd.x").warning("loud")
        logs.writing.flush()
    finally:
        logs.close()
    assert [kept.texts for kept in writers] == [["{'entry': True}", "loud"], ["loud"]]


# --- who ------------------------------------------------------------------------------------------------------------


def test_a_connection_knows_its_peer_from_the_kernel() -> None:
    async def main() -> Identity:
        ours, theirs = sockets.socketpair(sockets.AF_UNIX, sockets.SOCK_STREAM)

        class Nobody:
            def received(self, data: bytes) -> None: ...
            def writable(self) -> None: ...
            def lost(self) -> None: ...

        transport = UnixTransport(ours, Nobody())
        try:
            return transport.identity()
        finally:
            transport.close()
            theirs.close()

    found = asyncio.run(main())
    assert (found.pid, found.uid, found.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert found.start_time
    assert found.address == found.sasl_user_name == found.x509_dname == ""


def params(**values: tuple[int, Any]) -> list[TypedParam]:
    return [TypedParam(name.replace("_", "-"), value) for name, value in values.items()]


def test_roots_proxy_speaks_for_somebody_else(tmp_path: Path) -> None:
    async def work(server: Serving) -> None:
        client = await server.connect()
        given = params(
            unix_user_id=(Kind.ULLONG, 1000),
            process_id=(Kind.LLONG, 4242),
            process_time=(Kind.ULLONG, 77),
            sasl_user_name=(Kind.STRING, "fred@EXAMPLE"),
        )
        await client.call("connect_set_identity", given, 0)
        expected = Identity(pid=4242, uid=1000, start_time=77, sasl_user_name="fred@EXAMPLE")
        assert server.peers()[0].identity == expected
        with pytest.raises(Answered) as caught:  # the one it speaks for may not do the same
            await client.call("connect_set_identity", [], 0)
        assert caught.value.code == ErrorNumber.OPERATION_DENIED

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (params(nope=(Kind.INT, 1)), ErrorNumber.ARGUMENT_UNSUPPORTED),
        (params(user_name=(Kind.INT, 1)), ErrorNumber.INVALID_ARG),
        (params(process_id=(Kind.LLONG, -1)), ErrorNumber.INVALID_ARG),
        (params(unix_user_id=(Kind.ULLONG, 2**63)), ErrorNumber.INVALID_ARG),
    ],
)
def test_an_identity_that_makes_no_sense_is_refused(tmp_path: Path, given: list[TypedParam], code: int) -> None:
    async def work(server: Serving) -> None:
        client = await server.connect()
        before = server.peers()[0].identity
        with pytest.raises(Answered) as caught:
            await client.call("connect_set_identity", given, 0)
        assert caught.value.code == code
        assert server.peers()[0].identity == before

    run(tmp_path, work)


def test_nobody_but_root_takes_another_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UnixTransport, "identity", lambda self: Identity(1, 65533, 65533, 1))

    async def work(server: Serving) -> None:
        client = await server.connect(opened=False)
        await eventually(server.peers)
        server.peers()[0].let_in()
        await client.open()
        with pytest.raises(Answered) as caught:
            await client.call("connect_set_identity", params(unix_user_id=(Kind.ULLONG, 0)), 0)
        assert caught.value.code == ErrorNumber.OPERATION_DENIED

    run(tmp_path, work)
