"""Virtual functions that guests have as interfaces: a card of plain files, and a kernel that only remembers."""

import asyncio
import os
import struct
import threading
import uuid
from pathlib import Path

import pytest

from pyvirtd.core import netlink, virtual_functions
from pyvirtd.core.netlink import attribute, nested
from pyvirtd.core.virtual_functions import Function, PortResponse, Settings
from pyvirtd.drivers.qemu import functions
from pyvirtd.drivers.qemu.functions import VirtualFunctions
from pyvirtd.errors import OperationTimeout, VirtError
from pyvirtd.model.domain import DomainDef
from pyvirtd.paths import Paths
from pyvirtd.util.files import THREADS, in_thread
from tests.support.pci import FakeBus

FIRST, SECOND = "0000:06:12.5", "0000:06:12.6"
DOMAIN = (
    "<domain type='qemu'><name>one</name><uuid>{}</uuid><memory>1024</memory><os><type>hvm</type></os>"
    "<devices>{}</devices></domain>"
)
ID, HOST = uuid.UUID(int=5), uuid.UUID(int=6)
BEFORE = Settings(bytes.fromhex("020000000001"), 7, 1)
QBH = "<virtualport type='802.1Qbh'><parameters profileid='blue'/></virtualport>"


class Kernel:
    """Remembers what it is told of functions, and answers with what they have."""

    def __init__(self) -> None:
        self.settings = {0: BEFORE, 1: Settings(bytes(6), 0)}
        self.requests: list[tuple[int, str, bytes, bytes]] = []  # of ports: what, profile, instance, host
        self.responses: list[int] = []
        self.fails_at = -1

    def __call__(self, kind: int, body: bytes, flags: int) -> list[tuple[int, bytes]]:
        link = body[virtual_functions.LINK.size :]
        if kind == virtual_functions.RTM_GETLINK:
            return [(virtual_functions.RTM_NEWLINK, body[: virtual_functions.LINK.size] + self._told())]
        for number in self.settings:
            if (found := virtual_functions.settings_in(link, number)) is not None:
                if number == self.fails_at:
                    raise OSError(95, "")
                self.settings[number] = found
        for ports in (value for word, value in netlink.attributes(link) if word == virtual_functions.IFLA_VF_PORTS):
            port = dict(netlink.attributes(dict(netlink.attributes(ports))[1]))
            self.requests.append((port[6][0], port[2].decode().rstrip("\0"), port[4], port[5]))
        return []

    def _told(self) -> bytes:
        infos = [
            nested(
                1,
                attribute(1, struct.pack("=I32s", number, one.mac)),
                attribute(2, struct.pack("=III", number, one.vlan, one.priority)),
            )
            for number, one in self.settings.items()
        ]
        told = nested(virtual_functions.IFLA_VFINFO_LIST, *infos)
        if self.responses:
            response = struct.pack("=H", self.responses.pop(0))
            told += nested(24, nested(1, attribute(1, struct.pack("=I", 0)), attribute(7, response)))
        return told


def net(function: int = 5, more: str = "") -> str:
    place = f"<address type='pci' domain='0x0000' bus='0x06' slot='0x12' function='0x{function}'/>"
    mac = f"<mac address='52:54:00:00:00:0{function}'/>"
    return f"<interface type='hostdev' managed='yes'>{mac}<source>{place}</source>{more}</interface>"


def domain(devices: str) -> DomainDef:
    live = DomainDef.parse(DOMAIN.format(ID, devices))
    live.id = 1
    return live


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def owner(tmp_path: Path, kernel: Kernel) -> VirtualFunctions:
    bus = FakeBus(tmp_path)
    for number, name in enumerate((FIRST, SECOND)):
        bus.add(name, 7 + number)
        bus.make_function(name, number)
    paths = Paths.system(tmp_path).qemu
    paths.run.mkdir(parents=True, exist_ok=True)
    return VirtualFunctions(paths, bus, HOST, kernel)


def refused(owner: VirtualFunctions, live: DomainDef) -> str:
    with pytest.raises(VirtError) as failed:
        asyncio.run(owner.give(live))
    return failed.value.message


def test_functions_get_what_interfaces_say_and_have_back_what_they_had(owner: VirtualFunctions, kernel: Kernel) -> None:
    live = domain(net(5, "<vlan><tag id='42'/></vlan>") + net(6))
    asyncio.run(owner.give(live))
    assert kernel.settings == {
        0: Settings(bytes.fromhex("525400000005"), 42),
        1: Settings(bytes.fromhex("525400000006"), 0),
    }
    asyncio.run(owner.take_back(live))
    assert kernel.settings == {0: BEFORE, 1: Settings(bytes(6), 0)}
    assert not list(owner._paths.run.iterdir())


def test_daemon_that_was_killed_gives_back_when_it_is_there_again(owner: VirtualFunctions, kernel: Kernel) -> None:
    asyncio.run(owner.give(domain(net(5) + net(6))))
    later = VirtualFunctions(owner._paths, owner._bus, HOST, kernel)
    asyncio.run(later.take_back_left("1-one"))
    assert kernel.settings[0] == BEFORE
    asyncio.run(later.take_back_left("1-one"))  # nothing is left to do


def test_what_cannot_be_given_back_is_left_to_a_later_daemon(owner: VirtualFunctions, kernel: Kernel) -> None:
    live = domain(net(5) + net(6))
    asyncio.run(owner.give(live))
    kernel.fails_at = 0
    asyncio.run(owner.take_back(live))
    assert kernel.settings[0] != BEFORE
    assert kernel.settings[1] == Settings(bytes(6), 0)
    kernel.fails_at = -1
    asyncio.run(VirtualFunctions(owner._paths, owner._bus, HOST, kernel).take_back_left("1-one"))
    assert kernel.settings[0] == BEFORE
    assert not list(owner._paths.run.iterdir())


@pytest.mark.parametrize("port", [False, True])
def test_what_cannot_be_given_back_goes_with_the_functions_next_guest(
    owner: VirtualFunctions, kernel: Kernel, *, port: bool
) -> None:
    live = domain(net(5) + net(6))
    asyncio.run(owner.give(live))
    kernel.fails_at = 0
    asyncio.run(owner.take_back(live))
    kernel.fails_at = -1
    if port:
        kernel.responses = [PortResponse.IN_PROGRESS, PortResponse.SUCCESS]
    live = domain(net(5, QBH if port else ""))
    live.id = 2
    asyncio.run(owner.give(live))
    assert [path.name for path in owner._paths.run.iterdir()] == ["2-one.functions"]
    asyncio.run(owner.take_back(live))
    assert kernel.settings[0] == BEFORE
    assert [request for request, *_ in kernel.requests] == ([2, 3] if port else [])
    assert not list(owner._paths.run.iterdir())


def test_start_that_fails_halfway_has_a_note_of_all(owner: VirtualFunctions, kernel: Kernel) -> None:
    kernel.fails_at = 1
    live = domain(net(5) + net(6))
    words = "Cannot set interface MAC/vlanid to 52:54:00:00:00:06/0 for ifname lo vf 1: Operation not supported"
    assert words in refused(owner, live)
    asyncio.run(owner.take_back(live))
    assert kernel.settings[0] == BEFORE


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            "<vlan trunk='yes'><tag id='1'/><tag id='2'/></vlan>",
            "vlan trunking is not supported by SR-IOV network devices",
        ),
        (
            QBH + "<vlan><tag id='1'/></vlan>",
            "direct setting of the vlan tag is not allowed for hostdev devices using 802.1Qbh mode",
        ),
        (
            "<virtualport type='openvswitch'/>",
            "virtualport type openvswitch is currently not supported on interfaces of type hostdev",
        ),
        ("<virtualport/>", "virtualport type none is currently not supported on interfaces of type hostdev"),
    ],
)
def test_what_no_card_can_do_is_refused(owner: VirtualFunctions, kernel: Kernel, more: str, words: str) -> None:
    assert words in refused(owner, domain(net(5, more)))
    assert kernel.settings[0] == BEFORE
    assert not list(owner._paths.run.iterdir())


def test_cards_that_never_answer_hold_up_no_file_operation(
    owner: VirtualFunctions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "KERNEL_S", 0.2)
    gate = threading.Event()

    async def main() -> list[BaseException | bool]:
        stuck = [owner._timed(Function("eth0", 0), gate.wait) for _ in range(2 * THREADS)]
        calls = [asyncio.ensure_future(call) for call in stuck]
        await asyncio.sleep(0.01)
        async with asyncio.timeout(0.1):
            await in_thread(os.getpid)
        return await asyncio.gather(*calls, return_exceptions=True)

    try:
        assert all(isinstance(error, OperationTimeout) for error in asyncio.run(main()))
    finally:
        gate.set()


def test_switch_is_asked_for_a_port_and_to_let_it_go(owner: VirtualFunctions, kernel: Kernel) -> None:
    kernel.responses = [PortResponse.IN_PROGRESS, PortResponse.IN_PROGRESS, PortResponse.SUCCESS]
    live = domain(net(5, QBH))
    asyncio.run(owner.give(live))
    asyncio.run(owner.take_back(live))
    assert kernel.requests == [(2, "blue", ID.bytes, HOST.bytes), (3, "blue", ID.bytes, HOST.bytes)]
    assert kernel.settings[0] == BEFORE


def test_switch_that_refuses_or_does_not_answer_is_named(
    owner: VirtualFunctions, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.responses = [PortResponse.IN_PROGRESS, 0x102]
    assert "error 258 during port-profile setlink" in refused(owner, domain(net(5, QBH)))
    monkeypatch.setattr(functions, "SWITCH_S", 0.05)
    assert "did not answer about port 0 of 'lo' with profile 'blue'" in refused(owner, domain(net(5, QBH)))
