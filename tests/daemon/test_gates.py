"""The gates: for every procedure what its declaration says, and libvirt's words where one does not open."""

import asyncio
import itertools
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pyvirtd.api.rpc import Need, Procedure
from pyvirtd.api.types import DomainRef
from pyvirtd.constants.error import ErrorDomain, ErrorNumber
from pyvirtd.core.access import Identity
from pyvirtd.core.driver import Driver
from pyvirtd.core.registry import driver_classes
from pyvirtd.daemon.transport import UnixTransport
from pyvirtd.errors import NoDomain, OperationFailed
from pyvirtd.wire.packet import Status
from pyvirtd.wire.xdr import Struct
from tests.daemon.doubles import DoubleDriver, Knowing, Refusing, rule
from tests.daemon.harness import TEST, Answered, RawClient, Serving, every_call, procedure, serving
from tests.daemon.test_bad_input import smallest

Work = Callable[[Serving, DoubleDriver], Awaitable[None]]
DENIED = ErrorNumber.OPERATION_DENIED


def run(folder: Path, work: Work, config: str = "") -> None:
    async def main() -> None:
        async with serving(folder, config, [DoubleDriver]) as server:
            driver = server.host.drivers[0]
            assert isinstance(driver, DoubleDriver)
            await work(server, driver)

    asyncio.run(main())


def arguments(declared: Procedure, **given: Any) -> bytes:
    """The least arguments of a procedure, about the domain that there is, with some given by name."""
    values = list(declared.args.decode(smallest(declared.args.fields)))
    for index, (name, kind) in enumerate(declared.args.fields):
        if isinstance(kind, Struct) and kind.cls is DomainRef:
            values[index] = TEST
        if name in given:
            values[index] = given[name]
    return declared.args.encode(*values)


async def outcome(client: RawClient, declared: Procedure, **given: Any) -> Answered | None:
    """The error that a call gets, if any."""
    serial = client.send_call(declared.number, arguments(declared, **given), program=declared.program.number)
    packet = await client.reply(serial)
    assert packet is not None, f"{declared.name} closed the connection"
    return Answered(packet) if packet.status == Status.ERROR else None


# --- authentication -------------------------------------------------------------------------------------------------


def test_only_authentication_passes_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UnixTransport, "identity", lambda self: Identity(1, 65534, 65534))

    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect(opened=False)
        passed = set()
        for declared in every_call():
            error = await outcome(client, declared)
            if error is None or error.message != "authentication required":
                passed.add(declared.name)
            else:
                assert (error.code, error.domain) == (ErrorNumber.RPC, ErrorDomain.RPC)
        assert passed == {"auth_list", "auth_sasl_init", "auth_sasl_start", "auth_sasl_step", "auth_polkit"}

    run(tmp_path, work)


def test_before_a_driver_is_open_only_the_connections_own_calls_pass(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        for declared in every_call():
            if declared.part.__name__ != "SessionPart":
                client = await server.connect(opened=False)
                error = await outcome(client, declared)
                assert error is not None
                assert error.message == "internal error: hypervisor connection not open", declared.name
                await client.close()

    run(tmp_path, work)


# --- read-only ------------------------------------------------------------------------------------------------------


def denying(need: Need) -> dict[str, int]:
    """Arguments under which a condition applies."""
    return {need.param: need.mask if need.equals else need.mask & -need.mask}


def test_the_read_only_socket_lets_through_what_is_declared_so(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        for declared in every_call():
            if declared.name in ("connect_open", "connect_close"):
                continue
            client = await server.connect(read_only=True)
            error = await outcome(client, declared)
            if declared.read_only:
                assert error is None or error.code != DENIED or declared.name == "connect_set_identity", declared.name
            else:
                assert error is not None
                assert error.code == DENIED, declared.name
                assert error.message == f"operation forbidden: read only access prevents vir{declared.api}"
            if declared.ro_deny is not None:
                error = await outcome(client, declared, **denying(declared.ro_deny))
                assert error is not None
                assert error.code == DENIED, declared.name
            await client.close()

    run(tmp_path, work)


@pytest.mark.parametrize("flag", [1, 8])
def test_secrets_are_not_for_the_read_only_socket(tmp_path: Path, flag: int) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        reader, writer = await server.connect(read_only=True), await server.connect()
        assert "<name>test</name>" in await reader.call("domain_get_xml_desc", TEST, 0)
        assert "<name>test</name>" in await writer.call("domain_get_xml_desc", TEST, flag)
        with pytest.raises(Answered) as caught:
            await reader.call("domain_get_xml_desc", TEST, flag)
        assert caught.value.message == "operation forbidden: virDomainGetXMLDesc with secure flag"
        assert caught.value.domain == ErrorDomain.DOMAIN

    run(tmp_path, work)


def test_a_client_may_ask_to_be_read_only_and_open_anew(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect(opened=False)
        await client.call("connect_open", "test:///default", 1)
        with pytest.raises(Answered, match="read only access prevents virDomainSuspend"):
            await client.call("domain_suspend", TEST)
        await client.call("connect_close")
        await client.call("connect_open", "test:///default", 0)
        await client.call("domain_suspend", TEST)

    run(tmp_path, work)


def test_a_read_only_socket_stays_so_whatever_is_opened(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect(read_only=True)
        await client.call("connect_close")
        await client.call("connect_open", "test:///default", 0)
        with pytest.raises(Answered, match="read only access prevents virDomainSuspend"):
            await client.call("domain_suspend", TEST)

    run(tmp_path, work)


# --- support and flags ----------------------------------------------------------------------------------------------


def test_what_no_driver_implements_is_named(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        handlers = server.peers()[0].handlers
        missing = [p for p in every_call() if (p.program.number, p.number) not in handlers]
        assert len(missing) > 300
        for declared in missing:
            error = await outcome(client, declared)
            assert error is not None
            assert error.code == ErrorNumber.NO_SUPPORT
            words = "this function is not supported by the connection driver"
            assert error.message == f"{words}: vir{declared.api}"

    run(tmp_path, work)


def test_flags_that_are_not_accepted_are_refused_by_the_functions_name(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        tried = 0
        for handler in driver.handlers.values():
            declared = handler.procedure
            if declared.flags_index < 0:
                continue
            for bit in range(32):
                if handler.accepted_flags & 1 << bit:
                    continue
                error = await outcome(client, declared, flags=1 << bit)
                assert error is not None
                assert (error.code, error.domain) == (ErrorNumber.INVALID_ARG, ErrorDomain.TEST), declared.name
                assert error.message == f"unsupported flags (0x{1 << bit:x}) in function test{declared.api}"
            tried += 1
        assert tried >= 15

    run(tmp_path, work)


def test_only_the_unsupported_bits_are_named(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        with pytest.raises(Answered, match=r"\(0x90000000\) in function testConnectListAllDomains"):
            await client.call("connect_list_all_domains", 1, 0x90000003)

    run(tmp_path, work)


APIS = ["qemu", "test", "lxc", "network", "storage", "nodedev", "secret", "nwfilter", "interface"]
PREFIXES = {"nodedev": "node", "interface": "netcf"}
LIFECYCLE = ("state", "connectIs", "connectURIProbe", "embeddable", "localOnly", "coloSave")


@pytest.mark.parametrize("name", APIS)
def test_names_of_functions_are_libvirts(name: str, reference: Path) -> None:
    class Named(Driver):
        function_prefix = PREFIXES.get(name, "")

    Named.name = name
    driver = Named.__new__(Named)
    ours = {p.api.lower(): p for p in every_call()}
    known = json.loads((reference / "protocol/driver_apis.json").read_text())[name]
    for api, facts in known.items():
        if api.startswith(LIFECYCLE) or not isinstance(facts, dict) or facts.get("function") in (None, "NULL"):
            continue
        if api.lower() in ours:
            assert driver.function_name(ours[api.lower()]) == facts["function"]


@pytest.mark.parametrize("name", ["qemu", "test"])
def test_functions_of_ours_that_take_flags_are_named_by_that_rule(name: str, reference: Path) -> None:
    """But for those where libvirtd itself names another one."""
    known = json.loads((reference / "protocol/driver_apis.json").read_text())[name]
    functions = {api.lower(): facts["function"] for api, facts in known.items() if isinstance(facts, dict)}
    cls = next(cls for cls in driver_classes() if cls.name == name)
    driver = cls.__new__(cls)
    for part in cls.parts:
        for declared in part.procedures.values():
            named = getattr(getattr(part, declared.name), "function_name", None)
            if part.implements(declared) and named is None and functions.get(declared.api.lower(), "NULL") != "NULL":
                assert driver.function_name(declared) == functions[declared.api.lower()]


# --- objects and access ---------------------------------------------------------------------------------------------


BOTH = pytest.mark.parametrize("kind", [Refusing, Knowing])


@BOTH
def test_a_missing_permission_refuses_the_call(tmp_path: Path, kind: type[Refusing]) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        rules = kind("domain:suspend")
        rule(server.server, rules)
        with pytest.raises(Answered) as caught:
            await client.call("domain_suspend", TEST)
        assert (caught.value.code, caught.value.domain) == (ErrorNumber.ACCESS_DENIED, ErrorDomain.ACCESS)
        assert caught.value.message == "access denied: 'test' denied access"
        assert set(rules.asked) == {("domain:suspend", "test")}

    run(tmp_path, work)


@BOTH
def test_permissions_under_a_condition_are_asked_for_only_then(tmp_path: Path, kind: type[Refusing]) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        rules = kind("domain:read_secure")
        rule(server.server, rules)
        await client.call("domain_get_xml_desc", TEST, 0)
        assert {permission for permission, _ in rules.asked} == {"domain:read"}
        with pytest.raises(Answered, match="access denied"):
            await client.call("domain_get_xml_desc", TEST, 1)
        assert {permission for permission, _ in rules.asked} == {"domain:read", "domain:read_secure"}

    run(tmp_path, work)


@BOTH
def test_lists_hold_only_what_the_client_may_see(tmp_path: Path, kind: type[Refusing]) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        rule(server.server, kind("domain:getattr"))
        assert await client.call("connect_list_all_domains", 1, 0) == []
        assert await client.call("connect_num_of_domains") == 0
        assert await client.call("connect_list_domains", 10) == []

    run(tmp_path, work)


def test_an_object_is_found_by_its_uuid_whatever_name_the_client_knows(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        assert (await client.call("domain_get_state", TEST._replace(name="old", id=99), 0)).state == 1
        with pytest.raises(Answered) as caught:
            await client.call("domain_get_state", TEST._replace(uuid=bytes(16)), 0)
        assert (caught.value.code, caught.value.domain) == (ErrorNumber.NO_DOMAIN, ErrorDomain.TEST)

    run(tmp_path, work)


def test_features_of_the_connection_are_libvirts(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        found = {number for number in range(30) if await client.call("connect_supports_feature", number)}
        assert found == {8, 9, 10, 14, 15, 16}

    run(tmp_path, work)


# --- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["domain_fstrim", "domain_set_user_password"])
@pytest.mark.parametrize("failure", [ZeroDivisionError, RecursionError, MemoryError, AssertionError, UnicodeError])
def test_a_panic_is_an_internal_error_and_a_traceback_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, failure: type[Exception]
) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client, other = await server.connect(), await server.connect()
        driver.failures = [failure("inner workings")]
        error = await outcome(client, procedure(name))
        assert error is not None
        assert error.code == ErrorNumber.INTERNAL_ERROR
        assert error.message == f"internal error: {name} failed: {failure.__name__}"
        assert await other.call("connect_get_hostname") == "localhost"
        assert await client.call("connect_get_hostname") == "localhost"

    with caplog.at_level(logging.ERROR):
        run(tmp_path, work)
    assert "Traceback" in caplog.text
    assert "inner workings" in caplog.text


@pytest.mark.parametrize("text", ["nul\0byte", "lone \udcff surrogate", "x" * 10_000_000, "%s %d", ""])
def test_any_text_fits_an_error(tmp_path: Path, text: str) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        driver.failures = [OperationFailed(text)]
        error = await outcome(client, procedure("domain_fstrim"))
        assert error is not None
        assert error.code == ErrorNumber.OPERATION_FAILED
        assert error.message.startswith("operation failed")

    run(tmp_path, work)


def test_clients_that_fail_at_once_see_their_own_text_only(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        clients = [await server.connect() for _ in range(6)]
        driver.gate.clear()
        texts = [f"fault of {number}" for number in range(len(clients))]
        driver.failures = [OperationFailed(text) for text in texts]
        serials = [client.start("domain_set_user_password", TEST, None, None, 0) for client in clients]
        await asyncio.sleep(0.02)
        other = [client.start("domain_lookup_by_name", f"no{number}") for number, client in enumerate(clients)]
        driver.gate.set()
        for client, serial, text in zip(clients, serials, texts, strict=True):
            with pytest.raises(Answered) as caught:
                await client.answer(serial, "domain_set_user_password")
            assert caught.value.message == f"operation failed: {text}"
        for number, (client, serial) in enumerate(zip(clients, other, strict=True)):
            with pytest.raises(Answered, match=f"no domain with matching name 'no{number}'$"):
                await client.answer(serial, "domain_lookup_by_name")

    run(tmp_path, work)


def test_one_error_raised_for_two_clients_stays_itself(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        shared = NoDomain("gone")
        for _ in range(2):
            client = await server.connect()
            driver.failures = [shared]
            error = await outcome(client, procedure("domain_fstrim"))
            assert error is not None
            assert (error.message, error.domain) == ("Domain not found: gone", ErrorDomain.TEST)

    run(tmp_path, work)


def test_every_procedure_can_be_called_beside_every_other(tmp_path: Path) -> None:
    """All of them from one client without waiting: as many answers as calls."""

    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        driver.failures = [OperationFailed("x")] * 10
        sent = set()
        skipped = ("connect_close", "storage_vol_upload", "storage_vol_download")
        for declared in itertools.chain(every_call(), every_call()):
            if declared.name not in skipped:
                sent.add(client.send_call(declared.number, arguments(declared), program=declared.program.number))
        for serial in sent:
            assert await client.reply(serial) is not None

    run(tmp_path, work)
