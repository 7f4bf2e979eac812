"""Interfaces whose packets go through passt."""

import pytest

from pyvirtd.drivers.qemu.helpers.passt import arguments
from pyvirtd.model.domain import DomainDef
from tests.guest import Guest
from tests.support.domains import ADDRESS, tiny_domain
from tests.support.host import SystemHost
from tests.support.passt import needs_passt

DOMAIN = "<domain type='qemu'><name>x</name><memory>1</memory><os><type>hvm</type></os><devices>{}</devices></domain>"
FORWARDS = """<portForward proto='tcp' address='2001:db8::1'><range start='22' to='2022'/>
<range start='1000' end='1050'/><range start='1030' end='1040' exclude='yes'/></portForward>
<portForward proto='udp' address='1.2.3.4' dev='eth0'><range start='5000' end='5020' to='6000'/></portForward>
<portForward proto='tcp'/>"""
PASST = "<interface type='user'>{}<model type='virtio'/><backend type='passt'/></interface>"


def test_what_the_interface_says_becomes_options() -> None:
    ips = "<ip address='172.17.2.0' family='ipv4' prefix='24'/><ip address='fd01::feed' family='ipv6'/>"
    xml = PASST.format(f"<mac address='52:54:00:00:00:01'/><source dev='eth42'/>{ips}{FORWARDS}")
    net = DomainDef.parse(DOMAIN.format(xml)).devices.interface[0]
    assert arguments(net, "/s") == [
        "--foreground",
        "--one-off",
        "--socket",
        "/s",
        "--mac-addr",
        "52:54:00:00:00:01",
        "--interface",
        "eth42",
        "--address",
        "172.17.2.0",
        "--netmask",
        "24",
        "--address",
        "fd01::feed",
        "--tcp-ports",
        "2001:db8::1/22:2022,1000-1050,~1030-1040",
        "--udp-ports",
        "1.2.3.4%eth0/5000-5020:6000-6020",
        "--tcp-ports",
        "all",
    ]


@pytest.mark.guest
@needs_passt
def test_guest_gets_an_address_and_the_host_reaches_it(host: SystemHost, guest: Guest) -> None:
    for argv in (
        ["ip", "link", "add", "outside", "type", "veth", "peer", "name", "far"],
        ["ip", "link", "set", "far", "up"],
        ["ip", "addr", "add", "192.0.2.9/24", "dev", "outside"],
        ["ip", "link", "set", "outside", "up"],
        ["ip", "route", "add", "default", "via", "192.0.2.1"],
    ):
        assert host.run(argv).returncode == 0
    forward = "<portForward proto='tcp'><range start='7777'/></portForward>"
    host.define(tiny_domain(host.adopt(guest), "through", devices=PASST.format(forward)))
    host.ok("start through")
    with host.terminal("console through") as console:
        console.expect("tiny# ", 60)
        assert "192.0.2.9" in console.command(ADDRESS)
        console.command("nc -ll -p 7777 -e echo from inside >/dev/null 2>&1 &")
        answer = host.run(["sh", "-c", "sleep 1; (sleep 2) | busybox nc -w 5 127.0.0.1 7777"])
        assert answer.stdout == "from inside\n"
    pid_file = host.path(f"/run/libvirt/qemu/passt/{host.ok('domid through')}-through-net0.pid")
    assert pid_file.exists()
    host.ok("destroy through")
    assert not pid_file.exists()
    host.ok("undefine through")
    host.run(["ip", "link", "del", "outside"])
