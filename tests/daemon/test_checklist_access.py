"""Faults that libvirt once had in access control, each tried on ours. Numbered; with the CVE's name.

The rules here are doubles that refuse one permission; tests/integration/test_polkit.py asks the real polkitd.
"""

import asyncio
import json
import os
import re
import subprocess
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pyvirtd.api.rpc import ADMIN, PROCEDURES, Answer, Part, Procedure, Program, rpc
from pyvirtd.constants.domain import DomainXMLFlags
from pyvirtd.constants.error import ErrorNumber
from pyvirtd.core.access.actions import permissions
from pyvirtd.core.access.identity import Identity
from pyvirtd.core.access.polkit import Authority
from pyvirtd.errors import AuthFailed, DBusServiceError
from pyvirtd.model.domain import DomainDef
from pyvirtd.util.bus import BusError, Reply, Service, variant
from pyvirtd.wire.packet import PacketType, Status, frame
from pyvirtd.wire.xdr import UInt
from pyvirtd.xml.element import INACTIVE, LIVE, MIGRATABLE
from tests.api.test_abi import ALSO_DENIED, DENIED_WITH_SECRETS
from tests.daemon.doubles import DoubleDriver, Knowing, Refusing, rule
from tests.daemon.harness import TEST, Answered, RawClient, Serving, eventually, every_call, procedure, serving
from tests.daemon.test_bad_input import smallest
from tests.daemon.test_gates import denying, outcome
from tests.model.test_samples import SAMPLES, elements, load, view_of
from tests.support.host import ROOT, SessionHost

Work = Callable[[Serving, DoubleDriver], Awaitable[None]]
BOTH = pytest.mark.parametrize("kind", [Refusing, Knowing])
REGISTER = "connect_domain_event_callback_register_any"


def run(folder: Path, work: Work, config: str = "") -> None:
    async def main() -> None:
        async with serving(folder, config, [DoubleDriver]) as server:
            driver = server.host.drivers[0]
            assert isinstance(driver, DoubleDriver)
            await work(server, driver)

    asyncio.run(main())


def facts(reference: Path) -> dict[tuple[str, int], dict[str, object]]:
    """What the protocol says of each procedure, by program and number."""
    programs = json.loads((reference / "protocol/protocol.json").read_text())
    return {
        (program, known["number"]): known
        for program, content in programs.items()
        if isinstance(content, dict)
        for known in content.get("procedures", [])
    }


def test_14_cve_2019_10161_the_read_only_socket_takes_each_call_as_the_protocol_says(
    tmp_path: Path, reference: Path
) -> None:
    """Every procedure, on libvirt-sock-ro."""
    known = facts(reference)

    async def work(server: Serving, driver: DoubleDriver) -> None:
        tried = 0
        for declared in every_call():
            if declared.name in ("connect_close", "connect_set_identity"):  # the second one depends on who asks
                continue
            says = known.get((declared.program.name, declared.number))
            if says is None:  # of a later release
                continue
            client = await server.connect(read_only=True)
            denied = await is_denied(client, declared)
            expected = says["read_only"] is False or declared.name in ALSO_DENIED
            assert denied is expected, f"{declared.name}: {says['read_only']}"
            conditional = isinstance(says["read_only"], str) or declared.name in DENIED_WITH_SECRETS
            assert (declared.ro_deny is not None) is conditional, declared.name
            if declared.ro_deny is not None:
                assert await is_denied(client, declared, **denying(declared.ro_deny)), declared.name
            await client.close()
            tried += 1
        assert tried > 400

    run(tmp_path, work)


async def is_denied(client: RawClient, declared: Procedure, **given: int) -> bool:
    error = await outcome(client, declared, **given)
    return error is not None and error.code == ErrorNumber.OPERATION_DENIED


def test_14_a_procedure_that_says_nothing_of_itself_is_not_for_the_read_only_socket() -> None:
    class Made(Part, program=Program("made", 0x7FFFFFFF)):
        @rpc(1, "domain:read")
        def domain_made_up(self, flags: UInt) -> Answer[None]: ...

    made = Made.procedures["domain_made_up"]
    del PROCEDURES[made.program.number, made.number]
    assert not made.read_only
    assert not made.before_auth


def test_14_cve_2019_10166_no_program_that_a_client_names_is_run_for_its_capabilities(session: SessionHost) -> None:
    ran = session.path("ran")
    for name in ("emulator", "qemu-system-x86_64"):
        program = session.write(f"bin/{name}", f"#!/bin/sh\ntouch {ran}\n")
        program.chmod(0o755)
        done = session.virsh(["domcapabilities", "--emulatorbin", str(program)])
        assert done.returncode != 0
        assert str(program) in done.stderr
        assert not ran.exists()


def test_15_cve_2013_4401_converting_needs_the_right_to_write() -> None:
    for name in ("connect_domain_xml_from_native", "connect_domain_xml_to_native"):
        declared = procedure(name)
        assert not declared.read_only
        assert [need.permission for need in declared.needs] == ["connect:write"]


@BOTH
def test_16_cve_2014_0028_events_of_hidden_objects_are_not_told(tmp_path: Path, kind: type[Refusing]) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        actor, watcher, seeing = [await server.connect() for _ in range(3)]
        for client in (watcher, seeing):
            await client.call(REGISTER, 0, None)
            await client.call("connect_domain_event_register_any", 4)
        server.peers()[1].rules = kind("domain:getattr", about="test")
        await actor.call("domain_suspend", TEST)
        assert len(await seeing.events(1)) == 1
        assert await watcher.call("connect_get_hostname") == "localhost"
        assert not watcher.packets

    run(tmp_path, work)


@BOTH
@pytest.mark.parametrize("permission", ["connect:read", "connect:search_domains", "domain:getattr"])
def test_17_cve_2013_4399_subscriptions_end_with_the_client_whatever_it_may(
    tmp_path: Path, kind: type[Refusing], permission: str
) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        watcher = await server.connect()
        await watcher.call(REGISTER, 0, None)
        rule(server.server, kind(permission))
        assert server.host.events.wanted("domain", 0)
        await watcher.close()
        await eventually(lambda: not server.host.events.wanted("domain", 0))
        await (await server.connect(opened=False)).call("auth_list")

    run(tmp_path, work)


IMPLEMENTED = ("connect:read", "connect:search_domains", "domain:getattr", "domain:read", "domain:start", "domain:stop")


@BOTH
@pytest.mark.parametrize("permission", permissions())
def test_18_cve_2014_8136_a_call_that_was_denied_holds_up_nobody(
    tmp_path: Path, kind: type[Refusing], permission: str
) -> None:
    """Every permission refused to one client, on every procedure that asks for it; another one then does the same."""
    asking = [p for p in every_call() if any(need.permission == permission for need in p.needs)]
    asking = [p for p in asking if p.stream is None and p.name != "connect_open"]

    async def work(server: Serving, driver: DoubleDriver) -> None:
        poor, rich = await server.connect(), await server.connect()
        server.peers()[0].rules = rules = kind(permission)
        handlers, denied = server.peers()[0].handlers, 0
        for declared in asking:
            if (declared.program.number, declared.number) not in handlers:
                continue
            need = next(need for need in declared.needs if need.permission == permission)
            flags = {} if not need.param or need.clear else denying(need)
            rules.asked.clear()
            error = await outcome(poor, declared, **flags)
            assert error is not None
            # A flag that the driver does not know is refused before anything is asked.
            asked = any(word == permission for word, _ in rules.asked)
            assert (error.code == ErrorNumber.ACCESS_DENIED) is asked, f"{declared.name}: {error}"
            denied += asked
        assert denied or permission not in IMPLEMENTED
        async with asyncio.timeout(5):
            assert (await rich.call("domain_get_state", TEST, 0)).state == 1
            await rich.call("domain_suspend", TEST)
            await rich.call("domain_resume", TEST)

    run(tmp_path, work)


@BOTH
@pytest.mark.parametrize("flag", [DomainXMLFlags.SECURE, DomainXMLFlags.MIGRATABLE])
def test_19_cve_2014_7823_passwords_need_a_right_of_their_own(
    tmp_path: Path, kind: type[Refusing], flag: DomainXMLFlags
) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        rule(server.server, kind("domain:read_secure"))
        assert "<name>test</name>" in await client.call("domain_get_xml_desc", TEST, 0)
        with pytest.raises(Answered) as caught:
            await client.call("domain_get_xml_desc", TEST, flag)
        assert caught.value.code == ErrorNumber.ACCESS_DENIED

    run(tmp_path, work)


def test_19_cve_2015_0236_every_call_that_shows_xml_with_passwords_asks_for_it() -> None:
    for name in ("domain", "domain_snapshot", "domain_checkpoint", "domain_managed_save"):
        declared = procedure(f"{name}_get_xml_desc")
        assert any(need.permission == "domain:read_secure" for need in declared.needs), name
        assert declared.ro_deny is not None
    assert not procedure("domain_save_image_get_xml_desc").read_only


PASSWORD = "no-word-that-is-elsewhere"


def hide(document: DomainDef) -> int:
    """Put a password into each field that is declared or named as one; how many there are."""
    fields = [(one, field) for one in elements(document) for field in one.fields()]
    secret = [(one, field.attribute) for one, field in fields if field.secure or "passw" in field.attribute]
    words = [(one, name) for one, name in secret if isinstance(getattr(one, name), str)]
    for one, name in words:
        setattr(one, name, PASSWORD)
    return len(words)


def test_19_cve_2020_14301_no_document_has_a_password_in_it_unless_asked_for() -> None:
    """Of the samples, which together have every field of a document, in every view."""
    tried = 0
    for name in SAMPLES:
        document = load(name)
        if isinstance(document, DomainDef) and (hidden := hide(document)):
            assert document.format(view_of(name)).count(PASSWORD) == hidden, name
            for view in (INACTIVE, LIVE, MIGRATABLE, LIVE | MIGRATABLE):
                assert PASSWORD not in document.format(view), (name, view)
            tried += hidden
    assert tried > 2


@BOTH
def test_20_cve_2025_12748_a_document_is_read_no_further_than_its_name_before_the_check(
    tmp_path: Path, kind: type[Refusing]
) -> None:
    broken = "<domain><name>{}</name><uuid>3ca17b4b-ca6f-4a28-83ea-97dcc03bd15b</uuid><memory>no number</memory>"

    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        rules = kind("domain:write", about="forbidden")
        rule(server.server, rules)
        for name, code in (("forbidden", ErrorNumber.ACCESS_DENIED), ("allowed", ErrorNumber.XML_DETAIL)):
            for call, rest in (("domain_define_xml", ()), ("domain_create_xml", (0,))):
                with pytest.raises(Answered) as caught:
                    await client.call(call, broken.format(name), *rest)
                assert caught.value.code == code, (name, call)
        assert ("domain:write", "forbidden") in rules.asked

    run(tmp_path, work)


def test_20_a_long_document_holds_up_no_other_client_before_the_check(tmp_path: Path) -> None:
    long = "<domain><devices>" + "<disk><a/></disk>" * 100_000 + "</devices><name>x</name></domain>"

    async def work(server: Serving, driver: DoubleDriver) -> None:
        poor, other = await server.connect(), await server.connect()
        server.peers()[0].rules = Refusing("domain:write")
        serial = poor.start("domain_define_xml", long)
        meanwhile = 0
        while not poor.packets:
            await other.call("connect_get_hostname")
            meanwhile += 1
        with pytest.raises(Answered, match="access denied"):
            await poor.answer(serial, "domain_define_xml")
        assert meanwhile > 3

    run(tmp_path, work)


def test_21_cve_2013_4311_the_subject_is_the_process_that_connected(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        await server.connect()
        identity = server.peers()[0].identity
        assert (identity.pid, identity.uid, identity.gid) == (os.getpid(), os.geteuid(), os.getegid())
        fields = await asyncio.to_thread(Path("/proc/self/stat").read_text)
        assert identity.start_time == int(fields.rpartition(")")[2].split()[19])
        if (fd := server.peers()[0].transport.peer_pidfd()) is not None:
            about = await asyncio.to_thread(Path(f"/proc/self/fdinfo/{fd}").read_text)
            os.close(fd)
            assert f"Pid:\t{os.getpid()}\n" in about

    run(tmp_path, work)


def test_21_cve_2013_4311_polkit_is_asked_about_one_process_and_no_later_one_of_its_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, Any]] = []

    class Bus:
        async def call(self, _service: Service, _member: str, _signature: str, body: list[Any], **_: object) -> Reply:
            kind, subject = body[0]
            assert kind == "unix-process"
            asked.append(subject)
            raise BusError("no", refusal=True)

    async def connected(authority: Authority) -> Bus:
        return Bus()

    monkeypatch.setattr(Authority, "_connected", connected)
    check = partial(Authority().check, action="org.libvirt.unix.manage")
    with pytest.raises(DBusServiceError):
        asyncio.run(check(Identity(pid=7, uid=8, gid=9, start_time=77)))
    assert asked == [{"pid": variant("u", 7), "start-time": variant("t", 77), "uid": variant("i", 8)}]
    for unsure in (Identity(pid=7, uid=8), Identity(pid=7, start_time=77), Identity(uid=8, start_time=77)):
        with pytest.raises(AuthFailed):
            asyncio.run(check(unsure))
    assert len(asked) == 1


@pytest.mark.parametrize("unit", sorted((ROOT / "systemd").rglob("*-admin.socket"), key=str), ids=str)
def test_22_cve_2019_10132_systemd_makes_the_admin_socket_for_the_daemons_user_alone(unit: Path) -> None:
    text = unit.read_text()
    assert "libvirt-admin-sock\n" in text
    assert re.findall("^SocketMode=(.*)$", text, re.MULTILINE) == ["0600"]


def test_22_cve_2019_10132_the_admin_socket_is_the_daemons_users_alone(tmp_path: Path) -> None:
    with SessionHost() as session:
        session.start()
        path = session.socket.with_name("libvirt-admin-sock")
        assert path.stat().st_mode & 0o077 == 0
        if os.geteuid() != 0:
            return
        # Neither does the mode alone decide: somebody else who is let as far as the socket is turned away.
        for folder in (session.folder, *path.parents):
            if folder.is_relative_to(session.folder):
                folder.chmod(0o755)
        path.chmod(0o777)
        opening = procedure("connect_open", ADMIN)
        call = frame(ADMIN.number, 1, opening.number, PacketType.CALL, 1, Status.OK, smallest(opening.args.fields))
        code = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
            f"s.sendall({call!r}); print(s.recv(4096))"
        )
        argv = [
            "setpriv",
            "--reuid=65533",
            "--regid=65533",
            "--clear-groups",
            "/usr/bin/python3",
            "-c",
            code,
            str(path),
        ]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        assert "authentication required" in done.stdout, done
