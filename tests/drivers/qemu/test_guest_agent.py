"""What the guest's agent is asked and how its answers are read: agents of every kind, and Debian's in a real guest."""

import asyncio
import json
import socket
import struct
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from pyvirtd.api.types import DomainInterface, IPAddress, TypedParam
from pyvirtd.constants.domain import DomainPausedReason, DomainState
from pyvirtd.constants.error import ErrorNumber
from pyvirtd.drivers.qemu import agent_calls, guest_agent, guest_info, neighbours
from pyvirtd.drivers.qemu.agent import AgentCommandRefused
from pyvirtd.drivers.qemu.agent_calls import DiskPlace
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.guest_agent import GuestAgent
from pyvirtd.drivers.qemu.monitor import CommandRefused
from pyvirtd.errors import (
    AgentUnresponsive,
    ArgumentUnsupported,
    BadCall,
    InternalError,
    InvalidArg,
    OperationInvalid,
    OperationUnsupported,
    VirtError,
)
from pyvirtd.model.chardev import UnixSource
from tests.drivers.qemu.stats_support import FakeMonitor, off, running
from tests.drivers.qemu.tune_support import FakeDriver
from tests.guest import Guest
from tests.support.domains import tiny_domain
from tests.support.host import SystemHost

T = TypeVar("T")
CHANNEL = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
DISKS = (
    "<disk type='file'><target dev='vda' bus='virtio'/><address type='pci' bus='0x04' slot='0x00'/></disk>"
    "<disk type='file'><target dev='sda' bus='scsi'/><address type='drive' controller='1' target='2' unit='3'/></disk>"
    "<controller type='scsi' index='1'><address type='pci' bus='0x05' slot='0x00'/></controller>"
    "<interface type='user'><mac address='52:54:00:aa:bb:cc'/><target dev='tap7'/></interface>"
)
VDA = {"pci-controller": {"domain": 0, "bus": 4, "slot": 0, "function": 0}, "bus": 0, "target": 0, "unit": 0}
SDA = {"pci-controller": {"domain": 0, "bus": 5, "slot": 0, "function": 0}, "bus": 0, "target": 2, "unit": 3}


class CannedAgent:
    """Answers from a table, what is not in it as an agent that lacks the command."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.response_timeout = -2

    async def execute(self, command: str, arguments: Any = None, timeout: int | None = None) -> Any:
        self.asked.append((command, arguments or {}))
        answer = self.answers.get(command, AgentCommandRefused(command, "CommandNotFound", "no such command"))
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def dom() -> QemuDomain:
    """A running domain with an agent's channel that is connected."""
    made = off(devices=CHANNEL + DISKS)
    running(made, {"rtc-reset-reinjection": {}})
    made.live_def.devices.channel[0].source = [UnixSource(path="/nonexistent/agent")]
    made.running.agent_connected = True
    return made


@pytest.fixture
def part() -> GuestAgent:
    return GuestAgent(FakeDriver().as_driver)


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> CannedAgent:
    canned = CannedAgent({})
    for module in (agent_calls, guest_agent):
        monkeypatch.setattr(module, "agent_of", lambda dom: canned)
    return canned


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, 10))


def values(params: list[TypedParam]) -> dict[str, Any]:
    return {param.field: param.value[1] for param in params}


# --- whether there is an agent ----------------------------------------------------------------------------------


def test_an_agent_that_is_connected_is_kept(dom: QemuDomain) -> None:
    dom.agent_timeout = 7
    found = agent_calls.agent_of(dom)
    assert (found.path, found.response_timeout) == ("/nonexistent/agent", 7)
    assert agent_calls.agent_of(dom) is found


def test_a_domain_without_the_channel_has_no_agent() -> None:
    dom = off()
    running(dom, {})
    with pytest.raises(ArgumentUnsupported, match="QEMU guest agent is not configured"):
        agent_calls.agent_of(dom)


def test_a_channel_that_nobody_opened_is_no_agent(dom: QemuDomain) -> None:
    dom.running.agent_connected = None
    with pytest.raises(AgentUnresponsive, match="QEMU guest agent is not connected"):
        agent_calls.agent_of(dom)


def test_a_guest_that_is_paused_or_off_is_not_asked(dom: QemuDomain) -> None:
    dom.set_state(DomainState.PAUSED, DomainPausedReason.USER)
    for silent in (dom, off()):
        with pytest.raises(OperationInvalid, match="domain is not running"):
            agent_calls.agent_of(silent)


# --- file systems and disks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "target"),
    [
        (DiskPlace((0, 4, 0, 0), 0, 0, 0), "vda"),
        (DiskPlace((0, 5, 0, 0), 0, 2, 3), "sda"),
        (DiskPlace((0, 5, 0, 0), 0, 2, 4), None),
        (DiskPlace((0, 9, 0, 0), 0, 0, 0), None),
        (None, None),
    ],
)
def test_disks_are_found_by_their_place(dom: QemuDomain, place: DiskPlace | None, target: str | None) -> None:
    assert guest_info.target_at(dom.live_def, place) == target


def test_file_systems_come_in_the_order_of_mounting(part: GuestAgent, dom: QemuDomain, agent: CannedAgent) -> None:
    agent.answers["guest-get-fsinfo"] = [
        {"name": "sda1", "mountpoint": "/data", "type": "xfs", "disk": [SDA, VDA, {"bus": 1}]},
        {"name": "vda1", "mountpoint": "/", "type": "ext4"},
    ]
    found, count = run(part.domain_get_fsinfo(dom, 0))
    assert count == 2
    assert [(item.mountpoint, item.dev_aliases) for item in found] == [("/", []), ("/data", ["sda", "vda"])]


def test_freezing_some_file_systems_names_them(part: GuestAgent, dom: QemuDomain, agent: CannedAgent) -> None:
    agent.answers |= {"guest-fsfreeze-freeze": 3, "guest-fsfreeze-freeze-list": 1, "guest-fsfreeze-thaw": 3}
    assert run(part.domain_fsfreeze(dom, [], 0)) == 3
    assert run(part.domain_fsfreeze(dom, ["/a"], 0)) == 1
    assert agent.asked[-1] == ("guest-fsfreeze-freeze-list", {"mountpoints": ["/a"]})
    assert run(part.domain_fsthaw(dom, [], 0)) == 3
    with pytest.raises(ArgumentUnsupported):
        run(part.domain_fsthaw(dom, ["/a"], 0))


# --- information ------------------------------------------------------------------------------------------------


def test_all_information_has_libvirts_names(part: GuestAgent, dom: QemuDomain, agent: CannedAgent) -> None:
    agent.answers |= {
        "guest-get-users": [{"user": "bob", "domain": "D", "login-time": 1515975891.567572}],
        "guest-get-osinfo": {"id": "i", "pretty-name": "p", "other": "x"},
        "guest-get-timezone": {"zone": "UTC", "offset": -3600},
        "guest-get-host-name": {"host-name": "h"},
        "guest-get-fsinfo": [
            {
                "name": "n",
                "mountpoint": "/",
                "type": "ext4",
                "total-bytes": 9,
                "used-bytes": 1,
                "disk": [{**VDA, "serial": "s", "dev": "/dev/vda1"}],
            }
        ],
        "guest-get-disks": [
            {"name": "/dev/vda", "partition": False, "address": {**VDA, "serial": "s"}, "alias": "a"},
            {"name": "/dev/vda1", "partition": True, "dependencies": ["/dev/vda"]},
        ],
        "guest-network-get-interfaces": [
            {
                "name": "eth0",
                "hardware-address": "52:54:00:00:00:01",
                "ip-addresses": [{"ip-address-type": "ipv6", "ip-address": "fe80::1", "prefix": 64}],
            }
        ],
    }
    found = values(run(part.domain_get_guest_info(dom, 0, 0)))
    assert list(found.items()) == [
        ("user.count", 1),
        ("user.0.name", "bob"),
        ("user.0.domain", "D"),
        ("user.0.login-time", 1515975891567),
        ("os.id", "i"),
        ("os.pretty-name", "p"),
        ("timezone.name", "UTC"),
        ("timezone.offset", -3600),
        ("hostname", "h"),
        ("fs.count", 1),
        ("fs.0.name", "n"),
        ("fs.0.mountpoint", "/"),
        ("fs.0.fstype", "ext4"),
        ("fs.0.total-bytes", 9),
        ("fs.0.used-bytes", 1),
        ("fs.0.disk.count", 1),
        ("fs.0.disk.0.alias", "vda"),
        ("fs.0.disk.0.serial", "s"),
        ("fs.0.disk.0.device", "/dev/vda1"),
        ("disk.count", 2),
        ("disk.0.name", "/dev/vda"),
        ("disk.0.partition", 0),
        ("disk.0.serial", "s"),
        ("disk.0.alias", "vda"),
        ("disk.0.guest_alias", "a"),
        ("disk.1.name", "/dev/vda1"),
        ("disk.1.partition", 1),
        ("disk.1.dependency.count", 1),
        ("disk.1.dependency.0.name", "/dev/vda"),
        ("if.count", 1),
        ("if.0.name", "eth0"),
        ("if.0.hwaddr", "52:54:00:00:00:01"),
        ("if.0.addr.count", 1),
        ("if.0.addr.0.type", "ipv6"),
        ("if.0.addr.0.addr", "fe80::1"),
        ("if.0.addr.0.prefix", 64),
    ]


def test_what_an_old_agent_lacks_is_an_error_only_when_asked_for(
    part: GuestAgent, dom: QemuDomain, agent: CannedAgent
) -> None:
    agent.answers["guest-get-host-name"] = {"host-name": "h"}
    assert values(run(part.domain_get_guest_info(dom, 0, 0))) == {"hostname": "h"}
    with pytest.raises(AgentCommandRefused):
        run(part.domain_get_guest_info(dom, 1, 0))


def test_unknown_types_of_information_are_refused(part: GuestAgent, dom: QemuDomain) -> None:
    with pytest.raises(InvalidArg, match="unsupported guest information types '0x80'"):
        run(part.domain_get_guest_info(dom, 0x81, 0))


def test_addresses_of_an_alias_count_to_its_interface(part: GuestAgent, dom: QemuDomain, agent: CannedAgent) -> None:
    address = {"ip-address-type": "ipv4", "ip-address": "1.2.3.4", "prefix": 24}
    agent.answers["guest-network-get-interfaces"] = [
        {"name": "eth0", "hardware-address": "m"},
        {"name": "eth0:1", "ip-addresses": [address]},
        {"name": "sit0"},
    ]
    assert run(part.domain_interface_addresses(dom, 1, 0)) == [
        DomainInterface("eth0", "m", [IPAddress(0, "1.2.3.4", 24)]),
        DomainInterface("sit0", None, []),
    ]


def test_neighbours_of_the_host_are_matched_by_mac(
    part: GuestAgent, dom: QemuDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def table() -> list[tuple[str, IPAddress]]:
        return [("52:54:00:aa:bb:cc", IPAddress(0, "10.0.0.2", 0)), ("52:54:00:00:00:00", IPAddress(0, "10.0.0.3", 0))]

    monkeypatch.setattr(guest_agent, "neighbours", table)
    found = run(part.domain_interface_addresses(dom, 2, 0))
    assert found == [DomainInterface("tap7", "52:54:00:aa:bb:cc", [IPAddress(0, "10.0.0.2", 0)])]
    assert run(part.domain_interface_addresses(dom, 0, 0)) == []
    with pytest.raises(ArgumentUnsupported, match="Unknown IP address data source 3"):
        run(part.domain_interface_addresses(dom, 3, 0))


def test_the_kernels_own_neighbours_are_left_out() -> None:
    def entry(family: int, state: int, address: bytes) -> bytes:
        body = struct.pack("=BxxxiHBB", family, 2, state, 0, 0)
        for kind, data in ((1, address), (2, bytes.fromhex("525400000001"))):
            body += struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)
        return body

    ipv6 = socket.inet_pton(socket.AF_INET6, "fe80::1")
    assert neighbours.entry(entry(socket.AF_INET6, 2, ipv6)) == [("52:54:00:00:00:01", IPAddress(1, "fe80::1", 0))]
    assert neighbours.entry(entry(socket.AF_INET6, 0x40, ipv6)) == []
    assert neighbours.entry(struct.pack("=BxxxiHBB", socket.AF_INET, 2, 2, 0, 0)) == []


# --- hostnames, time, vcpus, users ------------------------------------------------------------------------------


def test_the_two_sources_of_a_hostname_exclude_each_other(part: GuestAgent, dom: QemuDomain) -> None:
    with pytest.raises(BadCall, match="are mutually exclusive"):
        run(part.domain_get_hostname(dom, 3))


def test_no_lease_is_no_hostname(part: GuestAgent, dom: QemuDomain) -> None:
    with pytest.raises(VirtError, match="no hostname found for domain d") as caught:
        run(part.domain_get_hostname(dom, 1))
    assert caught.value.code == ErrorNumber.NO_HOSTNAME


def test_time_is_in_seconds_and_nanoseconds(part: GuestAgent, dom: QemuDomain, agent: CannedAgent) -> None:
    agent.answers |= {"guest-get-time": 1600000000000000005, "guest-set-time": {}}
    assert run(part.domain_get_time(dom, 0)) == (1600000000, 5)
    run(part.domain_set_time(dom, 1600000000, 5, 0))
    assert agent.asked[-1] == ("guest-set-time", {"time": 1600000000000000005})
    run(part.domain_set_time(dom, 0, 0, 1))
    assert agent.asked[-1] == ("guest-set-time", {})
    assert monitor_of(dom).asked == ["rtc-reset-reinjection"] * 2
    with pytest.raises(InvalidArg, match="is too big for guest agent"):
        run(part.domain_set_time(dom, 1 << 62, 0, 0))


def test_machines_without_a_pcs_clock_set_their_time(part: GuestAgent, dom: QemuDomain, agent: CannedAgent) -> None:
    agent.answers["guest-set-time"] = {}
    monitor_of(dom).answers["rtc-reset-reinjection"] = CommandRefused("x", "CommandNotFound", "not here")
    run(part.domain_set_time(dom, 1, 0, 0))


def monitor_of(dom: QemuDomain) -> FakeMonitor:
    monitor: Any = dom.monitor
    assert isinstance(monitor, FakeMonitor)
    return monitor


VCPUS = [
    {"logical-id": 0, "online": True, "can-offline": False},
    {"logical-id": 1, "online": True, "can-offline": True},
    {"logical-id": 2, "online": False, "can-offline": True},
]


def test_vcpus_are_told_as_sets(part: GuestAgent, dom: QemuDomain, agent: CannedAgent) -> None:
    agent.answers["guest-get-vcpus"] = VCPUS
    found = values(run(part.domain_get_guest_vcpus(dom, 0)))
    assert found == {"vcpus": "0-2", "online": "0-1", "offlinable": "1-2"}


def test_only_vcpus_that_change_are_told_to_the_agent(part: GuestAgent, dom: QemuDomain, agent: CannedAgent) -> None:
    agent.answers |= {"guest-get-vcpus": VCPUS, "guest-set-vcpus": 1}
    run(part.domain_set_guest_vcpus(dom, "0-2", 1, 0))
    assert agent.asked[-1] == ("guest-set-vcpus", {"vcpus": [{"logical-id": 2, "online": True}]})


@pytest.mark.parametrize(
    ("cpus", "state", "error", "words"),
    [
        ("0", 0, OperationUnsupported, "vCPU '0' is not offlinable"),
        ("0-1,7", 1, InvalidArg, "guest is missing vCPUs '7'"),
        ("x", 1, InvalidArg, "Failed to parse bitmap 'x'"),
        ("1", 2, BadCall, "unsupported state value"),
    ],
)
def test_vcpus_that_cannot_be_set(
    part: GuestAgent, dom: QemuDomain, agent: CannedAgent, cpus: str, state: int, error: type[VirtError], words: str
) -> None:
    agent.answers["guest-get-vcpus"] = VCPUS
    with pytest.raises(error, match=words):
        run(part.domain_set_guest_vcpus(dom, cpus, state, 0))


@pytest.mark.parametrize("answer", [0, -1, 2, "x", None])
def test_an_agent_that_sets_no_vcpus_is_not_asked_for_ever(
    part: GuestAgent, dom: QemuDomain, agent: CannedAgent, answer: Any
) -> None:
    agent.answers |= {"guest-get-vcpus": VCPUS, "guest-set-vcpus": answer}
    with pytest.raises(InternalError):
        run(part.domain_set_guest_vcpus(dom, "1", 0, 0))


def test_passwords_travel_encoded(part: GuestAgent, dom: QemuDomain, agent: CannedAgent) -> None:
    agent.answers["guest-set-user-password"] = {}
    run(part.domain_set_user_password(dom, "root", "s\u00e9cret", 1))
    assert agent.asked == [
        ("guest-set-user-password", {"crypted": True, "username": "root", "password": "c8OpY3JldA=="})
    ]


@pytest.mark.parametrize(
    ("flags", "command", "extra"),
    [
        (0, "guest-ssh-add-authorized-keys", {"reset": True}),
        (1, "guest-ssh-add-authorized-keys", {"reset": False}),
        (2, "guest-ssh-remove-authorized-keys", {}),
    ],
)
def test_ssh_keys_are_set_added_and_removed(
    part: GuestAgent, dom: QemuDomain, agent: CannedAgent, flags: int, command: str, extra: dict[str, bool]
) -> None:
    agent.answers[command] = {}
    run(part.domain_authorized_ssh_keys_set(dom, "al", ["k"], flags))
    assert agent.asked == [(command, {"username": "al", "keys": ["k"], **extra})]


def test_the_timeout_of_answers_is_the_domains_and_its_agents(dom: QemuDomain, part: GuestAgent) -> None:
    found = agent_calls.agent_of(dom)
    assert run(part.domain_agent_set_response_timeout(dom, 5, 0)) == 0
    assert (dom.agent_timeout, found.response_timeout) == (5, 5)
    with pytest.raises(InvalidArg, match="guest agent timeout '-3' is less than the minimum '-2'"):
        run(part.domain_agent_set_response_timeout(dom, -3, 0))


# --- agents that lie --------------------------------------------------------------------------------------------

Call = Callable[[GuestAgent, QemuDomain], Coroutine[Any, Any, Any]]
READS: list[tuple[str, Call]] = [
    ("guest-get-users", lambda part, dom: part.domain_get_guest_info(dom, 1, 0)),
    ("guest-get-osinfo", lambda part, dom: part.domain_get_guest_info(dom, 2, 0)),
    ("guest-get-timezone", lambda part, dom: part.domain_get_guest_info(dom, 4, 0)),
    ("guest-get-host-name", lambda part, dom: part.domain_get_guest_info(dom, 8, 0)),
    ("guest-get-host-name", lambda part, dom: part.domain_get_hostname(dom, 0)),
    ("guest-get-fsinfo", lambda part, dom: part.domain_get_guest_info(dom, 16, 0)),
    ("guest-get-fsinfo", lambda part, dom: part.domain_get_fsinfo(dom, 0)),
    ("guest-get-disks", lambda part, dom: part.domain_get_guest_info(dom, 32, 0)),
    ("guest-network-get-interfaces", lambda part, dom: part.domain_interface_addresses(dom, 1, 0)),
    ("guest-get-vcpus", lambda part, dom: part.domain_get_guest_vcpus(dom, 0)),
    ("guest-get-time", lambda part, dom: part.domain_get_time(dom, 0)),
    ("guest-ssh-get-authorized-keys", lambda part, dom: part.domain_authorized_ssh_keys_get(dom, "x", 0)),
    ("guest-fsfreeze-freeze", lambda part, dom: part.domain_fsfreeze(dom, [], 0)),
]
NEVER_RIGHT: list[Any] = ["x", None, True, -5, 1.5, 1 << 70, [1], [None], [[]], [{}, 1]]
# Fields of every name that a reader looks for, each of a wrong type or out of range.
ODD: list[Any] = [5, -1, 1 << 70, 1e308, True, None, "\ud800\0", [], [5], {}, {"domain": -1}, [{"pci-controller": 7}]]
RIGHT = {
    "user": "u",
    "login-time": 1,
    "offset": 0,
    "host-name": "h",
    "mountpoint": "/",
    "name": "n",
    "type": "t",
    "partition": True,
    "logical-id": 1,
    "online": True,
    "can-offline": True,
    "keys": [],
}
OPTIONAL = (
    "domain",
    "id",
    "zone",
    "total-bytes",
    "disk",
    "address",
    "dependencies",
    "hardware-address",
    "ip-addresses",
)


@pytest.mark.parametrize(("command", "call"), READS)
@pytest.mark.parametrize("answer", NEVER_RIGHT, ids=repr)
def test_an_answer_of_the_wrong_type_is_an_error(
    part: GuestAgent, dom: QemuDomain, agent: CannedAgent, command: str, call: Call, answer: Any
) -> None:
    agent.answers[command] = answer
    with pytest.raises(VirtError):
        run(call(part, dom))


@pytest.mark.parametrize(("command", "call"), READS)
def test_odd_fields_raise_nothing_but_our_errors(
    part: GuestAgent, dom: QemuDomain, agent: CannedAgent, command: str, call: Call
) -> None:
    for field in (*RIGHT, *OPTIONAL):
        for odd in ODD:
            item = {**RIGHT, field: odd}
            for answer in (item, [item]):
                agent.answers[command] = answer
                try:
                    found = run(call(part, dom))
                except VirtError:
                    continue
                json.dumps(found, default=str).encode()
                assert "\\ud800" not in json.dumps(found)
                assert "\\u0000" not in json.dumps(found)


# --- a real guest -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def booted(host: SystemHost, guest: Guest) -> Iterator[SystemHost]:
    """A host with the tiny guest at its shell, a small disk mounted, its agent at work."""
    image = host.write("/var/lib/libvirt/images/a.img", bytes(16 << 20))
    disk = f"<disk type='file'><source file='{host.inside(image)}'/><target dev='vda' bus='virtio'/></disk>"
    host.define(
        tiny_domain(host.adopt(guest), devices=disk + "<interface type='user'><model type='virtio'/></interface>")
    )
    host.ok("start tiny")
    with host.terminal("console tiny") as console:
        console.expect("tiny guest ready", 60)
        console.prompt()
        console.command("mke2fs -q /dev/vda; mount -t ext2 /dev/vda /mnt; udhcpc -q -n -i eth0 -s /etc/udhcpc.sh")
        # A message of the kernel's may look like the end of the command.
        console.send(
            "until grep -q /mnt /proc/mounts && ip addr | grep -q 10.0.2; do sleep 0.1; done; echo all-se't'\n"
        )
        console.expect("all-set", 30)
    yield host
    host.ok("destroy tiny")


@pytest.mark.guest
def test_a_real_guest_tells_its_mounts(booted: SystemHost) -> None:
    assert booted.ok("domfsinfo tiny").splitlines()[-1].split() == ["/mnt", "vda", "ext2", "vda"]
    assert booted.python("dom = conn.lookupByName('tiny'); print(dom.fsFreeze(), dom.fsThaw())") == "1 1"


@pytest.mark.guest
def test_a_real_guest_tells_its_addresses_and_names(booted: SystemHost) -> None:
    assert "10.0.2.15/24" in booted.ok("domifaddr tiny --source agent")
    assert booted.ok("domhostname tiny --source agent") == "tiny"
    info = dict(line.split(":", 1) for line in booted.ok("guestinfo tiny").splitlines())
    found = {key.strip(): value.strip() for key, value in info.items()}
    assert (found["os.id"], found["hostname"], found["disk.0.alias"]) == ("tiny", "tiny", "vda")


@pytest.mark.guest
def test_a_real_guest_takes_keys_and_commands(booted: SystemHost) -> None:
    code = """
import libvirt_qemu
dom = conn.lookupByName("tiny")
dom.authorizedSSHKeysSet("root", ["ssh-rsa AAAA a"], 0)
dom.authorizedSSHKeysSet("root", ["ssh-rsa BBBB b"], 1)
print(sorted(dom.authorizedSSHKeysGet("root")))
dom.authorizedSSHKeysSet("root", ["ssh-rsa AAAA a"], 2)
print(dom.authorizedSSHKeysGet("root"), libvirt_qemu.qemuAgentCommand(dom, '{"execute":"guest-ping"}', 5, 0))
"""
    assert booted.python(code).splitlines() == [
        "['ssh-rsa AAAA a', 'ssh-rsa BBBB b']",
        "['ssh-rsa BBBB b'] {\"return\":{}}",
    ]


@pytest.mark.guest
def test_a_real_guest_sleeps_and_wakes(booted: SystemHost) -> None:
    booted.ok("dompmsuspend tiny mem")
    assert booted.ok("domstate tiny") == "pmsuspended"
    booted.ok("dompmwakeup tiny")
    with booted.terminal("console tiny --force") as console:
        console.prompt()
    assert booted.ok("domstate tiny --reason") == "running (event wakeup)"
