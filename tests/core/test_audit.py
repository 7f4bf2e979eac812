"""Audit records: how they are worded, and that the kernel takes them."""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import closing

import pytest

from pyvirtd.constants.domain import DomainEventStartedDetailType, DomainShutoffReason
from pyvirtd.core import audit_records as records
from pyvirtd.core.audit import (
    HEADER,
    NETLINK_AUDIT,
    TEXT_MAX,
    Audit,
    Record,
    RecordType,
    encode,
    message,
    packet,
)
from pyvirtd.core.cgroup_limits import DeviceRule
from pyvirtd.errors import InternalError
from pyvirtd.model.domain import DomainDef
from pyvirtd.xml.element import LIVE
from tests.support.domains import bare_domain

UUID = "c7a5fdbd-edaf-9455-926a-d65c16db1801"
AUDIT_GET, READLOG_GROUP = 1000, 1

# With what libvirtd 9.0 logs of the same guest with audit_logging = 1.
DEVICES = """
<disk type='file'><source file='/images/a.img'/><target dev='vda'/></disk>
<disk type='file' device='cdrom'><target dev='hda' bus='ide'/></disk>
<disk type='network'><source protocol='nbd' name='exp'><host name='127.0.0.1'/></source><target dev='vdb'/></disk>
<filesystem type='mount'><source dir='/srv/a b'/><target dir='t'/></filesystem>
<interface type='user'><mac address='52:54:00:11:22:33'/></interface>
<smartcard mode='host'/>
<serial type='pty'><source path='/dev/pts/0'/></serial>
<serial type='tcp'><source mode='bind' host='127.0.0.1' service='7777'/></serial>
<console type='pty'><source path='/dev/pts/0'/></console>
<tpm><backend type='emulator' version='2.0'/></tpm>
<hostdev mode='subsystem' type='usb'><source><address bus='1' device='12'/></source></hostdev>
<hostdev mode='subsystem' type='pci'><source><address domain='0' bus='6' slot='0x12' function='5'/></source></hostdev>
<redirdev bus='usb' type='spicevmc'/>
<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
<rng model='virtio'><backend model='builtin'/></rng>
<shmem name='shm0'><model type='ivshmem-plain'/><size unit='M'>4</size></shmem>
"""
RESOURCES = """
disk old-disk="?" new-disk="/images/a.img"
fs old-fs="?" new-fs=2F7372762F612062
net old-net="?" new-net="52:54:00:11:22:33"
dev bus=usb device="001.012"
dev bus=pci device="0000:06:12.5"
dev bus=usb device=555342207265646972646576
chardev old-chardev="?" new-chardev="/dev/pts/0"
smartcard old-smartcard="?" new-smartcard="nss-smartcard-device"
rng old-rng="?" new-rng="/dev/urandom"
tpm-emulator device="/run/tpm.sock"
shmem size=4194304 path=/dev/shm/shm0
mem old-mem=0 new-mem=65536
vcpu old-vcpu=0 new-vcpu=1
iothread old-iothread=0 new-iothread=2
"""


def live_domain(name: str = "audited", devices: str = "", extra: str = "") -> DomainDef:
    extra = f"<uuid>{UUID}</uuid>{extra}"
    return DomainDef.parse(bare_domain(name, devices=devices, extra=extra), LIVE)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("plain-1", '"plain-1"'),
        ("aud it", "617564206974"),
        ('a"b', "612262"),
        ("x\n res=success", "780A207265733D73756363657373"),
        ("ü", "C3BC"),
    ],
)
def test_values_that_could_be_taken_for_fields_are_hexadecimal(value: str, encoded: str) -> None:
    assert encode(value) == encoded


def test_a_start_leaves_the_records_that_libvirtd_leaves() -> None:
    live = live_domain(devices=DEVICES, extra="<iothreads>2</iothreads>")
    *resources, control = records.started(live, "booted", 77, success=True, tpm_socket="/run/tpm.sock")
    who = f'vm="audited" uuid={UUID}'
    expected = []
    for line in RESOURCES.split("\n")[1:-1]:
        kind, _, fields = line.partition(" ")
        expected.append(Record(RecordType.RESOURCE, f"virt=qemu resrc={kind} reason=start {who} {fields}"))
    assert resources == expected
    assert control == Record(RecordType.CONTROL, f"virt=qemu op=start reason=booted {who} vm-pid=77")


def test_a_failed_start_and_a_stop_name_no_process() -> None:
    live = live_domain("two words")
    *_, failed = records.started(live, "restored", 0, success=False)
    who = f"vm=74776F20776F726473 uuid={UUID}"
    assert failed == (RecordType.CONTROL, f"virt=qemu op=start reason=restored {who} vm-pid=0", False)
    assert records.stopped(live, "saved") == (
        RecordType.CONTROL,
        f"virt=qemu op=stop reason=saved {who} vm-pid=0",
        True,
    )


def test_labels_are_those_of_confined_guests() -> None:
    label = "<label>+64055:+64055</label><imagelabel>+64055:+64055</imagelabel>"
    live = live_domain(extra=f"<seclabel type='static' model='dac' relabel='yes'>{label}</seclabel>")
    text = f'virt=qemu vm="audited" uuid={UUID} vm-ctx=+64055:+64055 img-ctx=+64055:+64055 model=dac'
    assert list(records.machine_ids(live)) == [Record(RecordType.MACHINE_ID, text)]
    assert list(records.machine_ids(live_domain())) == []


def test_devices_of_a_group_are_told_one_by_one() -> None:
    paths = [("/dev/null", DeviceRule("c", "1:3", "rw")), ("/dev/a b", DeviceRule("b", "253:16", "r"))]
    told = records.allowed_devices(
        live_domain(), "/cg/devices/machine/x", paths, [("pty", DeviceRule("c", "136:*", "rw"))]
    )
    who = f'vm="audited" uuid={UUID} cgroup="/cg/devices/machine/x/"'
    assert [(record.type, record.text) for record in told] == [
        (RecordType.RESOURCE, f"virt=qemu resrc=cgroup reason={words.format(who)}")
        for words in (
            "deny {} class=all",
            'allow {} class=path path="/dev/null" rdev=01:03 acl=rw',
            "allow {} class=path path=2F6465762F612062 rdev=FD:10 acl=r",
            "allow {} class=major category=pty maj=88 acl=rw",
        )
    ]


def test_what_an_interface_opens_is_told_with_its_number() -> None:
    live = live_domain(devices=DEVICES)
    interface, tun = live.devices.interface[0], DeviceRule("c", "10:200", "rw")
    head = f'virt=qemu resrc=net reason=open vm="audited" uuid={UUID} net=52:54:00:11:22:33'
    kind = RecordType.RESOURCE
    told = records.opened(live, interface, "/dev/net/tun", tun, success=False)
    assert told == Record(kind, f'{head} path="/dev/net/tun" rdev=0A:C8', success=False)
    assert records.opened(live, interface, "macvtap0", None) == Record(kind, f'{head} path="macvtap0" rdev=?')


def test_a_change_is_told_with_its_outcome(audit: Audit, caplog: pytest.LogCaptureFixture) -> None:
    audit.open(0, logging=True)
    caplog.set_level("INFO")
    record = records.amount(live_domain(), "mem", 65536, 32768)
    assert record.text.endswith('resrc=mem reason=update vm="audited" uuid=' + UUID + " old-mem=65536 new-mem=32768")
    with audit.outcome(record):
        pass
    with pytest.raises(InternalError), audit.outcome(record):
        raise InternalError("no")
    assert [message[:11] for message in caplog.messages] == ["success=yes", "success=no "]


def test_reasons_are_libvirts_words() -> None:
    assert records.word(DomainEventStartedDetailType.FROM_SNAPSHOT) == "from-snapshot"
    assert records.word(DomainShutoffReason.DESTROYED) == "destroyed"


def test_messages_end_with_the_result() -> None:
    sent = message(Record(RecordType.CONTROL, "virt=qemu", success=False), "/usr/sbin/pyvirtd")
    assert sent == b'virt=qemu exe="/usr/sbin/pyvirtd" hostname=? addr=? terminal=? res=failed\0'
    long = message(Record(RecordType.RESOURCE, "x" * 2 * TEXT_MAX), "/p")
    assert len(long) == TEXT_MAX
    assert long.endswith(b"res=success\0")


# --- the kernel -------------------------------------------------------------------------------------------------


@pytest.fixture
def audit() -> Iterator[Audit]:
    made = Audit()
    yield made
    made.close()


def audit_socket(groups: int = 0) -> socket.socket:
    try:
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_AUDIT)
        netlink.bind((0, groups))
    except OSError as error:
        pytest.skip(f"no audit netlink: {error}")
    netlink.settimeout(5)
    return netlink


def audit_enabled() -> bool:
    with closing(audit_socket()) as netlink:
        netlink.send(packet(AUDIT_GET, 1, b""))
        while True:
            data = netlink.recv(TEXT_MAX)
            kind = HEADER.unpack_from(data)[1]
            if kind == AUDIT_GET:
                return bool(struct.unpack_from("=II", data, HEADER.size)[1])
            if struct.unpack_from("=i", data, HEADER.size)[0]:
                return False  # who may not ask may not know


def test_the_kernel_takes_records(audit: Audit, caplog: pytest.LogCaptureFixture) -> None:
    audit_socket().close()
    try:
        audit.open(2, logging=False)
    except InternalError as error:
        pytest.skip(str(error))
    audit.send([records.stopped(live_domain(), "destroyed")])
    audit.close()
    audit._sender.shutdown(wait=True)
    assert "Failed to send" not in caplog.text


def test_listeners_of_the_audit_trail_receive_records(audit: Audit) -> None:
    if os.geteuid() != 0 or not audit_enabled():
        pytest.skip("the kernel's auditing is off (auditctl -e 1), or not ours to see")
    with closing(audit_socket(READLOG_GROUP)) as listener:
        audit.open(2, logging=False)
        audit.send([records.stopped(live_domain("heard"), "destroyed")])
        while True:
            data = listener.recv(2 * TEXT_MAX)
            if b'vm="heard"' in data:
                break
    assert HEADER.unpack_from(data)[1] == RecordType.CONTROL
    assert b'op=stop reason=destroyed vm="heard"' in data
    assert b"res=success'" in data


@pytest.mark.parametrize(("level", "refused"), [(0, False), (1, False), (2, True)])
def test_a_host_without_auditing_stops_who_insists(
    audit: Audit, monkeypatch: pytest.MonkeyPatch, level: int, *, refused: bool
) -> None:
    monkeypatch.setattr("pyvirtd.core.audit._may_write", lambda: False)
    if refused:
        with pytest.raises(InternalError, match="Unable to initialize audit layer"):
            audit.open(level, logging=True)
    else:
        audit.open(level, logging=True)
        audit.send([records.stopped(live_domain(), "destroyed")])
