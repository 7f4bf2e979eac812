"""Documents made to hurt: each gets a clear error, no file is read, and other clients are answered meanwhile."""

import json

import pytest

from tests.support.domains import bare_domain
from tests.support.host import SessionHost

SYSTEM_ERRORS = (1, 8, 27, 35, 55, 67)  # internal, argument, XML, XML detail, operation, unsupported configuration
PATIENCE_S = 1.0  # for a call of another client that needs no work; a busy test machine included

ATTACK = """
import json, sys, threading, time
slow, failed, done = [0.0], [], threading.Event()
other = libvirt.open(conn.getURI())
def watch():
    while not done.is_set():
        began = time.monotonic()
        other.getLibVersion()
        slow[0] = max(slow[0], time.monotonic() - began)
        time.sleep(0.02)
watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
text = eval(sys.argv[1])
try:
    dom = conn.defineXML(text)
    answer = [0, dom.name()]
    dom.undefine()
except libvirt.libvirtError as error:
    answer = [error.get_error_code(), error.get_error_message()]
done.set()
watcher.join()
print(json.dumps([*answer, slow[0]]))
"""


def attack(session: SessionHost, expression: str) -> tuple[int, str, float]:
    """What defining the document gave (code 0: accepted), and the longest wait of another client meanwhile."""
    code, message, slow = json.loads(session.python(ATTACK, expression, timeout=120))
    return code, message, slow


def around(inner: str, *, name: str = "hostile") -> str:
    """A valid domain with something in it, as a Python expression of the client."""
    before, devices, after = bare_domain(name).partition("<devices>")
    return f"{before + devices!r} + {inner} + {after!r}"


def with_doctype(subset: str, inner: str) -> str:
    return repr(f"<!DOCTYPE domain [{subset}]>" + bare_domain("hostile").replace("</name>", f"{inner}</name>"))


BOMB = "".join(f"<!ENTITY e{n} '{f'&e{n - 1};' * 10}'>" for n in range(1, 10))


@pytest.mark.parametrize(
    "expression",
    [
        with_doctype("<!ENTITY e SYSTEM 'file:///etc/passwd'>", "&e;"),
        with_doctype("<!ENTITY e SYSTEM 'http://127.0.0.1:1/'>", "&e;"),
        with_doctype("<!ENTITY % e SYSTEM 'file:///etc/passwd'> %e;", ""),
        with_doctype(f"<!ENTITY e0 'ha'>{BOMB}", "&e9;"),
    ],
    ids=["file", "network", "parameter", "bomb"],
)
def test_entities_are_refused_and_nothing_is_read(session: SessionHost, expression: str) -> None:
    code, message, slow = attack(session, expression)
    assert code in SYSTEM_ERRORS
    assert "root:" not in message
    assert slow < PATIENCE_S


@pytest.mark.parametrize(
    "inner",
    [
        "'<a>'*100000+'</a>'*100000",
        "'<disk '+' '.join('a%d=\"1\"'%n for n in range(200000))+'/>'",
        "'<a/>'*900000",
        "'<hub/>'*300000",
        "'<sound model=\"ac97\"/>'*4000",
        "'<a b=\"'+'x'*3500000+'\"/>'",
    ],
    ids=["deep", "attributes", "unknown-children", "bad-devices", "devices", "long-value"],
)
def test_masses_block_nobody(session: SessionHost, inner: str) -> None:
    code, message, slow = attack(session, around(inner))
    assert code in (0, *SYSTEM_ERRORS), message
    assert slow < PATIENCE_S


@pytest.mark.parametrize("number", ["2147483648", "4294967295", "4294967296", "18446744073709551615", "1" * 4000])
@pytest.mark.parametrize(
    "inner",
    [
        "<disk type='file'><source file='/x'/><target dev='sda' bus='scsi'/>"
        "<address type='drive' controller='{0}' bus='0' target='0' unit='0'/></disk>",
        "<controller type='usb' index='{0}'/>",
        "<channel type='pty'><target type='virtio'/><address type='virtio-serial' controller='{0}' bus='0' port='1'/>"
        "</channel>",
        "<video><model type='qxl' vram='{0}' heads='1'/></video>",
        "<smartcard mode='host'><address type='ccid' controller='{0}' slot='0'/></smartcard>",
    ],
    ids=["drive", "usb", "serial", "video", "ccid"],
)
def test_numbers_at_the_edges_cost_nothing(session: SessionHost, inner: str, number: str) -> None:
    code, message, slow = attack(session, around(repr(inner.format(number))))
    assert code in (0, *SYSTEM_ERRORS), message
    assert slow < PATIENCE_S


@pytest.mark.parametrize("name", ["../up", "a/b", "a\nb", ".", "..", "/etc/passwd"])
def test_names_stay_names(session: SessionHost, name: str) -> None:
    code, message, _ = attack(session, repr(bare_domain("hostile").replace("hostile", name)))
    if "/" in name or "\n" in name:
        assert code in SYSTEM_ERRORS, message
    assert session.ok("list --all --name").strip() == ""


def test_a_definition_whose_values_were_rounded_can_be_read_again(session: SessionHost) -> None:
    """What is accepted must be readable after a restart, whatever its numbers became."""
    session.define(eval(around(repr("<video><model type='qxl' vram='4294967295' vram64='4294967295'/></video>"))))
    session.restart()
    session.ok("dumpxml hostile")
    session.ok("undefine hostile")
