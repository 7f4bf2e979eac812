"""Tap and macvtap devices in a network namespace of the test's own, as root."""

import asyncio
import ctypes
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pyvirtd.core import netdev, tap
from pyvirtd.errors import ConfigUnsupported, InternalError, SystemError_, VirtError
from pyvirtd.model.net import Interface
from pyvirtd.xml.element import LIVE

T = TypeVar("T")
CLONE_NEWNET = 0x40000000  # linux/sched.h
MAC, HOST_MAC = "52:54:00:11:22:33", "fe:54:00:11:22:33"


class Namespace:
    """A network namespace: one thread lives in it, and what that thread starts."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._thread.submit(self._enter).result()

    @staticmethod
    def _enter() -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")

    def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function in there."""
        return self._thread.submit(lambda: function(*args, **kwargs)).result(60)

    def ip(self, command: str) -> None:
        self.run(subprocess.run, ["ip", *command.split()], check=True)

    def links(self) -> dict[str, dict[str, Any]]:
        """What ip(8) says of every device, by name."""
        done = self.run(subprocess.run, ["ip", "-d", "-j", "link"], check=True, capture_output=True, text=True)
        return {item["ifname"]: item for item in json.loads(done.stdout)}

    def open(self, net: Interface, **options: Any) -> tap.HostInterface:
        made: tap.HostInterface = self.run(asyncio.run, tap.open_interface(net, **options))
        return made

    def close(self) -> None:
        self._thread.shutdown()


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch) -> Iterator[Namespace]:
    if os.geteuid() != 0 or not os.path.exists(tap.TUN):
        pytest.skip("needs root and /dev/net/tun")

    async def at_once(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        return function(*args, **kwargs)

    # The pool's threads live in the host's namespace.
    monkeypatch.setattr(tap, "in_thread", at_once)
    monkeypatch.setattr(tap, "VNET", tap.Names("vnet"))
    monkeypatch.setattr(tap, "MACVTAP", tap.Names("macvtap"))
    made = Namespace()
    yield made
    made.close()


@pytest.fixture
def bridged(namespace: Namespace) -> Namespace:
    """A namespace with a bridge br0 of its own MTU."""
    namespace.ip("link add br0 type bridge")
    namespace.ip("link set br0 mtu 1400 up")
    return namespace


def interface(kind: str = "bridge", rest: str = "", model: str = "virtio") -> Interface:
    source = {"bridge": "<source bridge='br0'/>", "direct": "<source dev='v0' mode='bridge'/>"}.get(kind, "")
    return Interface.parse(
        f"<interface type='{kind}'><mac address='{MAC}'/>{source}<model type='{model}'/>{rest}</interface>",
        LIVE,
    )


def fds_open() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_bridges_tap_is_made_as_libvirt_makes_it(bridged: Namespace) -> None:
    made = bridged.open(interface(), bridge="br0")

    link = bridged.links()["vnet0"]
    assert made.name == "vnet0"
    assert link["address"] == HOST_MAC
    assert link["mtu"] == 1400
    assert link["master"] == "br0"
    assert "UP" in link["flags"]
    assert link["linkinfo"]["info_data"]["vnet_hdr"] is True
    assert link["linkinfo"]["info_data"]["persist"] is False
    made.close()


def test_descriptors_are_for_the_guests_process_alone(bridged: Namespace) -> None:
    made = bridged.open(interface(), bridge="br0")

    (fd,) = made.taps
    assert not os.get_inheritable(fd)
    assert not os.get_blocking(fd)
    assert tap.tap_name(fd) == "vnet0"
    made.close()


def test_a_tap_ends_with_its_last_descriptor(bridged: Namespace) -> None:
    made = bridged.open(interface(), bridge="br0")

    made.close()

    assert "vnet0" not in bridged.links()


def test_only_virtio_gets_the_header(bridged: Namespace) -> None:
    made = bridged.open(interface(model="e1000"), bridge="br0")

    assert bridged.links()["vnet0"]["linkinfo"]["info_data"]["vnet_hdr"] is False
    made.close()


def test_queues_are_descriptors_of_one_device(bridged: Namespace) -> None:
    made = bridged.open(interface(rest="<driver queues='3'/>"), bridge="br0")

    assert len(made.taps) == 3
    assert {tap.tap_name(fd) for fd in made.taps} == {"vnet0"}
    assert bridged.links()["vnet0"]["linkinfo"]["info_data"]["multi_queue"] is True
    made.close()


def test_an_own_name_an_own_mtu_and_isolation(bridged: Namespace) -> None:
    rest = "<target dev='mytap'/><mtu size='1300'/><port isolated='yes'/>"
    made = bridged.open(interface(rest=rest), bridge="br0")

    link = bridged.links()["mytap"]
    assert made.name == "mytap"
    assert link["mtu"] == 1300
    assert link["linkinfo"]["info_slave_data"]["isolated"] is True
    made.close()


def test_names_are_counted_on_and_never_used_twice(bridged: Namespace) -> None:
    names = []
    for _ in range(3):
        made = bridged.open(interface(), bridge="br0")
        names.append(made.name)
        made.close()

    assert names == ["vnet0", "vnet1", "vnet2"]


def test_names_of_others_and_of_running_guests_are_skipped(bridged: Namespace) -> None:
    bridged.ip("tuntap add vnet1 mode tap")
    bridged.ip("link add vnet2 type bridge")
    running = interface()
    running.target = None
    tap.reserve_names(running)
    tap.reserve_names(interface(rest="<target dev='vnet0'/>"))

    made = bridged.open(interface(), bridge="br0")

    assert made.name == "vnet3"
    made.close()


def test_a_name_that_is_taken_is_refused(bridged: Namespace) -> None:
    bridged.ip("tuntap add mytap mode tap")

    with pytest.raises(SystemError_, match="Unable to create tap device mytap: Device or resource busy"):
        bridged.open(interface(rest="<target dev='mytap'/>"), bridge="br0")


def test_a_missing_bridge_is_named_and_nothing_is_left(namespace: Namespace) -> None:
    namespace.links()
    before = fds_open()

    with pytest.raises(SystemError_, match="Cannot get interface MTU on 'br9': No such device"):
        namespace.open(interface(), bridge="br9")

    assert fds_open() == before
    assert list(namespace.links()) == ["lo"]


def test_what_is_no_bridge_is_named(bridged: Namespace) -> None:
    bridged.ip("link add v0 type veth peer name v1")

    with pytest.raises(SystemError_, match="Unable to add bridge v0 port vnet0: "):
        bridged.open(interface(), bridge="v0")


@pytest.mark.parametrize("name", ["a" * 16, "a/b"])
def test_a_name_that_the_kernel_does_not_take_is_refused(namespace: Namespace, name: str) -> None:
    with pytest.raises(SystemError_, match=r"Unable to create tap device .*: Invalid argument"):
        namespace.open(interface("ethernet", f"<target dev='{name}'/>"))


def test_the_hosts_end_must_have_an_address_of_its_own() -> None:
    assert tap.host_mac(MAC) == HOST_MAC
    with pytest.raises(ConfigUnsupported, match="reserved value 0xFE - 'fe:00:00:00:00:01'"):
        tap.host_mac("fe:00:00:00:00:01")


def test_an_ethernets_script_gets_the_devices_name(namespace: Namespace, tmp_path: Path) -> None:
    script = tmp_path / "up"
    script.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\nip link show "$1" >> {tmp_path}/called\n')
    script.chmod(0o755)

    made = namespace.open(interface("ethernet", f"<script path='{script}'/>"))

    lines = (tmp_path / "called").read_text().splitlines()
    assert lines[0] == "vnet0"
    assert HOST_MAC in lines[2]
    made.close()


def test_a_script_that_fails_leaves_nothing(namespace: Namespace, tmp_path: Path) -> None:
    script = tmp_path / "up"
    script.write_text("#!/bin/sh\necho no >&2\nexit 3\n")
    script.chmod(0o755)

    with pytest.raises(InternalError, match=r"Child process \(.*/up vnet0\) unexpected exit status 3: no"):
        namespace.open(interface("ethernet", f"<script path='{script}'/>"))

    assert list(namespace.links()) == ["lo"]


def test_an_ethernets_down_script_is_run_at_the_end(namespace: Namespace, tmp_path: Path) -> None:
    script = tmp_path / "down"
    script.write_text(f"#!/bin/sh\necho $1 > {tmp_path}/called\n")
    script.chmod(0o755)
    net = interface("ethernet", f"<target dev='vnet5'/><downscript path='{script}'/>")

    namespace.run(asyncio.run, tap.close_interface(net))

    assert (tmp_path / "called").read_text() == "vnet5\n"


def test_a_device_that_others_manage_is_only_opened(namespace: Namespace) -> None:
    namespace.ip("tuntap add theirs mode tap vnet_hdr")
    address = namespace.links()["theirs"]["address"]

    made = namespace.open(interface("ethernet", "<target dev='theirs' managed='no'/>"))

    link = namespace.links()["theirs"]
    assert tap.tap_name(made.taps[0]) == "theirs"
    assert link["address"] == address
    assert "UP" not in link["flags"]
    made.close()
    assert "theirs" in namespace.links()


def test_a_macvtap_has_the_guests_address_and_goes_at_the_end(namespace: Namespace) -> None:
    namespace.ip("link add v0 type veth peer name v1")
    namespace.ip("link set v0 up")
    net = interface("direct", "<driver queues='2'/>")
    try:
        made = namespace.open(net)
    except VirtError as exc:
        if "does not belong" in exc.detail or "No such file" in exc.detail:
            pytest.skip("no device nodes for macvtap here")
        raise

    link = namespace.links()["macvtap0"]
    assert link["address"] == MAC
    assert link["link"] == "v0"
    assert "UP" in link["flags"]
    assert link["linkinfo"]["info_data"]["mode"] == "bridge"
    assert [tap.tap_name(fd) for fd in made.taps] == ["macvtap0"] * 2
    made.close()
    assert "macvtap0" in namespace.links()
    net = interface("direct", "<target dev='macvtap0'/>")
    namespace.run(asyncio.run, tap.close_interface(net))
    assert "macvtap0" not in namespace.links()
    namespace.run(asyncio.run, tap.close_interface(net))


def test_a_macvtap_needs_the_device_below(namespace: Namespace) -> None:
    with pytest.raises(SystemError_, match="Unable to get index for interface v0: No such device"):
        namespace.open(interface("direct"))


def test_a_macvtap_on_what_cannot_have_one_leaves_nothing(namespace: Namespace) -> None:
    net = interface("direct")
    net.source.dev = "lo"  # type: ignore[union-attr]

    with pytest.raises(SystemError_, match=r"error creating macvtap interface macvtap0@lo \(52:54:00:11:22:33\): "):
        namespace.open(net)

    assert list(namespace.links()) == ["lo"]


def test_a_device_goes_up_and_down(namespace: Namespace) -> None:
    namespace.ip("link add v0 type veth peer name v1")

    namespace.run(netdev.set_up, "v0", up=True)
    assert "UP" in namespace.links()["v0"]["flags"]
    namespace.run(netdev.set_up, "v0", up=False)

    assert "UP" not in namespace.links()["v0"]["flags"]


# --- vhost ----------------------------------------------------------------------------------------------------


def vhost(rest: str, path: Path, *, kvm: bool = True) -> list[int]:
    net = interface(rest=f"<backend vhost='{path}'/>{rest}")
    return tap.open_vhosts(net, 2, kvm=kvm)


def test_vhost_has_a_descriptor_for_each_queue(tmp_path: Path) -> None:
    (tmp_path / "vhost").touch()

    fds = vhost("", tmp_path / "vhost")

    assert len(fds) == 2
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize(("rest", "kvm"), [("<driver name='qemu'/>", True), ("<driver name='vhost'/>", False)])
def test_vhost_is_for_kvm_and_for_those_who_want_it(tmp_path: Path, rest: str, kvm: bool) -> None:
    (tmp_path / "vhost").touch()

    assert vhost(rest, tmp_path / "vhost", kvm=kvm) == []


def test_vhost_may_be_missing_unless_it_was_asked_for(tmp_path: Path) -> None:
    assert vhost("", tmp_path / "none") == []
    with pytest.raises(ConfigUnsupported, match="vhost-net was requested for an interface, but is unavailable"):
        vhost("<driver name='vhost'/>", tmp_path / "none")


# --- a session's bridge ---------------------------------------------------------------------------------------


def test_a_sessions_tap_comes_from_qemus_helper(bridged: Namespace, tmp_path: Path) -> None:
    """A helper of our own, which speaks as QEMU's does: its set-uid and its list of bridges are not ours to test."""
    helper = tmp_path / "helper"
    helper.write_text(
        "#!/usr/bin/python3\n"
        "import fcntl, os, socket, struct, sys\n"
        "options = dict(word[2:].split('=') for word in sys.argv[2:])\n"
        "tun = os.open('/dev/net/tun', os.O_RDWR)\n"
        "fcntl.ioctl(tun, 0x400454ca, struct.pack('16sH22x', b'tap%d', 0x5002))\n"
        "with socket.socket(fileno=int(options['fd'])) as sock:\n"
        "    socket.send_fds(sock, [options['br'].encode()[:1]], [tun])\n"
    )
    helper.chmod(0o755)

    made = bridged.open(interface(), bridge="br0", privileged=False, helper=str(helper))

    assert made.name == "tap0"
    assert not os.get_inheritable(made.taps[0])
    assert not os.get_blocking(made.taps[0])
    made.close()


def test_a_helper_that_refuses_is_quoted(namespace: Namespace, tmp_path: Path) -> None:
    helper = tmp_path / "helper"
    helper.write_text("#!/bin/sh\necho 'access denied by acl file' >&2\nexit 1\n")
    helper.chmod(0o755)

    with pytest.raises(InternalError, match=r"failed to communicate with bridge helper: .*\nstderr=access denied by"):
        namespace.open(interface(), bridge="br0", privileged=False, helper=str(helper))
