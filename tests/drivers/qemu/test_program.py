"""A client's own words to the monitor: what is passed on, what is answered here, and QEMU's own events."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pyvirtd.api.events import QemuMonitorEvent
from pyvirtd.drivers.qemu.program import COMMAND_MAX, event_filter, parse_command, refusal_of
from pyvirtd.drivers.qemu.taint import Taint, messages
from pyvirtd.errors import InternalError, InvalidArg
from tests.drivers.qemu.stats_support import off
from tests.support.domains import bare_domain
from tests.support.host import SystemHost

REGEX, NOCASE = 1, 2

# --- commands ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["garbage", "", '{"execute":"x"', '{"execute":"a"}\n{"execute":"b"}', "{'execute':'x'}", "[" * 100000]
    # What json.loads takes and QEMU's parser does not, answering without an id.
    + ['{"execute":"x","arguments":{"a":' + bad + "}}" for bad in ("NaN", "Infinity", "1e999", '"\\ud800"')],
)
def test_what_is_no_json_goes_nowhere(text: str) -> None:
    with pytest.raises(InternalError, match="cannot parse json"):
        parse_command(text)


def test_a_command_with_more_parts_than_qemu_takes_goes_nowhere() -> None:
    with pytest.raises(InternalError):
        parse_command("[" + "1," * (COMMAND_MAX // 2) + "1]")


def test_a_command_with_an_id_of_its_own_is_refused() -> None:
    with pytest.raises(InternalError, match="Unable to append command 'id' string"):
        parse_command('{"execute":"query-status","id":"mine"}')


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], "QMP input must be a JSON object"),
        ("x", "QMP input must be a JSON object"),
        ({}, "QMP input lacks member 'execute'"),
        ({"nope": 1}, "QMP input member 'nope' is unexpected"),
        ({"exec-oob": "x"}, "QMP input member 'exec-oob' is unexpected"),
        ({"execute": 5}, "QMP input member 'execute' must be a string"),
        ({"execute": "x", "arguments": []}, "QMP input member 'arguments' must be an object"),
    ],
)
def test_what_is_no_command_is_answered_as_qemu_would(command: Any, words: str) -> None:
    assert refusal_of(command) == {"error": {"class": "GenericError", "desc": words}}


def test_a_command_is_passed_on() -> None:
    command = parse_command('{"execute":"qu\u00e9ry","arguments":{"a":1.5}}')
    assert refusal_of(command) is None
    assert command == {"execute": "qu\u00e9ry", "arguments": {"a": 1.5}}


# --- events -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "flags", "wanted"),
    [
        ("STOP", 0, {"STOP"}),
        ("stop", 0, set()),
        ("stop", NOCASE, {"STOP"}),
        ("^(STOP|RES.*)$", REGEX, {"STOP", "RESUME"}),
        ("TO", REGEX, {"STOP"}),
        ("^st.p$", REGEX, set()),
        ("^st.p$", REGEX | NOCASE, {"STOP"}),
    ],
)
def test_events_are_chosen_by_name(name: str, flags: int, wanted: set[str]) -> None:
    wants = event_filter(name, flags)
    assert wants is not None
    assert {word for word in ("STOP", "RESUME") if wants(QemuMonitorEvent(off(), word, 0, 0, None))} == wanted


def test_what_is_no_regular_expression_is_refused() -> None:
    with pytest.raises(InvalidArg, match=r"failed to compile regex '\('"):
        event_filter("(", REGEX)


def test_taints_are_told_in_words() -> None:
    assert messages([Taint.CUSTOM_MONITOR, "newer-taint"]) == [
        "tainted: custom monitor control commands issued",
        "tainted: newer-taint",
    ]


# --- a real QEMU ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(host: SystemHost) -> Iterator[SystemHost]:
    """A host with the paused domain `p`."""
    host.define(bare_domain("p"))
    host.ok("start p --paused")
    yield host
    host.ok("destroy p")


def monitor(host: SystemHost, command: str, *options: str) -> str:
    return host.ok(["qemu-monitor-command", "p", *options, command])


@pytest.mark.guest
def test_answers_come_with_the_id_and_the_order_that_qemu_gives(running: SystemHost) -> None:
    answer = monitor(running, '{"execute":"query-name"}')
    assert answer.startswith('{"return":{"name":"p"},"id":"libvirt-')
    answer = monitor(running, '{"execute":"nope"}')
    assert answer.startswith('{"id":"libvirt-')
    assert answer.endswith('"error":{"class":"CommandNotFound","desc":"The command nope has not been found"}}')


@pytest.mark.guest
@pytest.mark.parametrize("text", ["{}", '{"nope":1}', '{"execute":1}', '{"execute":"x","arguments":1}'])
def test_what_is_no_command_does_not_cost_the_monitor(running: SystemHost, text: str) -> None:
    assert json.loads(monitor(running, text))["error"]["class"] == "GenericError"
    assert monitor(running, "info name", "--hmp") == "p"


@pytest.mark.guest
def test_a_command_takes_one_descriptor(running: SystemHost) -> None:
    code = """
import libvirt_qemu
dom, file = conn.lookupByName("p"), open("/dev/null")
ask = lambda files: libvirt_qemu.qemuMonitorCommandWithFiles(
    dom, '{"execute":"getfd","arguments":{"fdname":"x"}}', files, 0)
print(ask([file.fileno()])[0].partition(",")[0], "No file descriptor supplied" in ask([])[0])
try: ask([file.fileno()] * 2)
except libvirt.libvirtError as error: print(error)
"""
    assert running.python(code).splitlines() == [
        '{"return":{} True',
        "invalid argument: at most 1 fd can be passed to qemu along with a command",
    ]


@pytest.mark.guest
def test_a_monitor_command_taints_the_guest(running: SystemHost) -> None:
    monitor(running, "info name", "--hmp")
    assert "tainted: custom monitor control commands issued" in running.ok("dominfo p")
    log = running.path("/var/log/libvirt/qemu/p.log").read_text()
    assert log.count(" is tainted: custom-monitor\n") == 1
    assert "<taint flag='custom-monitor'/>" in running.path("/run/libvirt/qemu/p.xml").read_text()


@pytest.mark.guest
def test_events_reach_whom_they_are_for(running: SystemHost) -> None:
    client = running.popen(
        ["virsh", "qemu-monitor-event", "p", "--event", "^RES", "--regex", "--loop", "--timeout", "30"]
    )
    try:
        deadline = time.monotonic() + 20
        resumed = 0
        while resumed < 3 and time.monotonic() < deadline:  # virsh does not say when it listens
            running.ok("resume p")
            running.ok("suspend p")
            resumed += 1
            time.sleep(0.2)
    finally:
        client.terminate()
    text, _ = client.communicate(timeout=20)
    assert "event RESUME at " in text
    assert "STOP" not in text


@pytest.mark.guest
def test_a_registration_ends_once(running: SystemHost) -> None:
    code = """
import libvirt_qemu, time
libvirt.virEventRegisterDefaultImpl(); conn = libvirt.open()
number = libvirt_qemu.qemuMonitorEventRegister(conn, conn.lookupByName("p"), "STOP", print, None, 0)
libvirt_qemu.qemuMonitorEventDeregister(conn, number)
print("over")
"""
    assert running.python(code) == "over"
