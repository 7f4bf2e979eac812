"""Screens and display connections, pure and of a real QEMU."""

import asyncio
import socket
import struct
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pyvirtd.drivers.qemu.displays import Displays, screen_arguments
from pyvirtd.errors import InvalidArg, OperationInvalid, VirtError
from pyvirtd.model.domain import DomainDef
from tests.drivers.qemu.stats_support import definition, off, running
from tests.drivers.qemu.tune_support import FakeDriver
from tests.support.domains import bare_domain
from tests.support.host import SystemHost

if TYPE_CHECKING:
    import libvirt

VIDEOS = "<video><model type='qxl' heads='2'/></video><video><model type='qxl' heads='3'/></video>"
SKIP_AUTH = 1


def live(devices: str) -> DomainDef:
    found = definition(devices=devices)
    for index, video in enumerate(found.devices.video):
        video.info.alias = f"video{index}"
    return found


def test_the_first_screen_is_qemus_own_choice() -> None:
    assert screen_arguments(live(VIDEOS), 0) == {}


@pytest.mark.parametrize(
    ("screen", "expected"),
    [
        (1, {"device": "video0", "head": 1}),
        (2, {"device": "video1"}),
        (4, {"device": "video1", "head": 2}),
    ],
)
def test_screens_are_numbered_through_all_heads(screen: int, expected: dict[str, object]) -> None:
    assert screen_arguments(live(VIDEOS), screen) == expected


def test_a_screen_beyond_the_last_is_refused() -> None:
    with pytest.raises(OperationInvalid, match="no such screen ID"):
        screen_arguments(live(VIDEOS), 5)
    with pytest.raises(OperationInvalid, match="no screens to take screenshot from"):
        screen_arguments(live(""), 0)


@pytest.mark.parametrize("kind", [0, 1])
def test_vnc_reads_its_certificates_again(kind: int) -> None:
    dom = off(devices="<graphics type='vnc'/>")
    monitor = running(dom, {"display-reload": {}})
    asyncio.run(Displays(FakeDriver().as_driver).domain_graphics_reload(dom, kind, 0))
    assert monitor.told["display-reload"] == {"type": "vnc", "tls-certs": True}


@pytest.mark.parametrize(("kind", "error"), [(0, OperationInvalid), (7, InvalidArg)])
def test_only_vnc_has_certificates_to_read_again(kind: int, error: type[VirtError]) -> None:
    dom = off(devices="<graphics type='spice'/>")
    monitor = running(dom, {})
    with pytest.raises(error):
        asyncio.run(Displays(FakeDriver().as_driver).domain_graphics_reload(dom, kind, 0))
    assert monitor.asked == []


# --- a real QEMU ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def connection(host: SystemHost) -> "Iterator[libvirt.virConnect]":
    """A client of a daemon with the running domain `d`: a screen, and VNC with a password."""
    devices = "<graphics type='vnc' autoport='yes' passwd='secret'/><video><model type='vga'/></video>"
    host.define(bare_domain("d", devices=devices))
    host.ok("start d")
    opened = host.connect()
    yield opened
    opened.close()


@pytest.fixture
def dom(connection: "libvirt.virConnect") -> "libvirt.virDomain":
    return connection.lookupByName("d")


def picture(connection: "libvirt.virConnect", dom: "libvirt.virDomain") -> bytes:
    stream = connection.newStream()
    assert dom.screenshot(stream, 0) == "image/png"
    data = b""
    while part := stream.recv(1 << 16):
        data += part
    stream.finish()
    return data


@pytest.mark.guest
def test_a_screenshot_is_a_whole_png(connection: "libvirt.virConnect", dom: "libvirt.virDomain") -> None:
    data = picture(connection, dom)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack_from(">II", data, 16)
    assert width >= 320
    assert height >= 200
    assert data.endswith(b"IEND" + struct.pack(">I", zlib.crc32(b"IEND")))


@pytest.mark.guest
def test_screenshots_leave_no_files(
    host: SystemHost, connection: "libvirt.virConnect", dom: "libvirt.virDomain"
) -> None:
    picture(connection, dom)
    assert not list(host.path("/var/lib/libvirt/qemu").rglob("*screendump*"))


def security_types(display: socket.socket) -> set[int]:
    """What a VNC server offers (RFC 6143 7.1.2): 1 asks for nothing, 2 for a password."""
    display.settimeout(10)
    assert display.recv(12) == b"RFB 003.008\n"
    display.send(b"RFB 003.008\n")
    count = display.recv(1)[0]
    return set(display.recv(count))


@pytest.mark.guest
def test_a_client_passes_a_socket_to_the_display(dom: "libvirt.virDomain") -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            dom.openGraphics(0, theirs.fileno())
        assert security_types(ours) == {2}


@pytest.mark.guest
def test_a_client_is_given_a_socket_that_needs_no_password(dom: "libvirt.virDomain") -> None:
    with socket.socket(fileno=dom.openGraphicsFD(0, SKIP_AUTH)) as ours:
        assert security_types(ours) == {1}


@pytest.mark.guest
def test_a_display_that_is_not_there_is_refused(host: SystemHost, dom: "libvirt.virDomain") -> None:
    import libvirt

    libvirt.registerErrorHandler(lambda *_: None, None)
    with pytest.raises(libvirt.libvirtError, match="No graphics backend with index 1"):
        dom.openGraphicsFD(1)
    assert "must be a socket" in host.python(
        "import os\ntry: conn.lookupByName('d').openGraphics(0, os.open('/dev/null', os.O_RDWR))\n"
        "except libvirt.libvirtError as error: print(error)"
    )
