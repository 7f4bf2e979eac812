"""Files and sockets that a guest is started with, seen on a real host."""

import json
import re

import pytest

from tests.support.domains import bare_domain
from tests.support.host import SystemHost

CHARDEVS = """
<serial type='file'><source path='/var/lib/libvirt/out' append='on'/><log file='/var/lib/libvirt/log' append='off'/>
</serial>
<serial type='unix'><source mode='bind' path='/var/lib/libvirt/serial.sock'/></serial>
<channel type='unix'><target type='virtio' name='org.a'/></channel>
"""


def test_sockets_listen_and_files_are_open_before_qemu_runs(host: SystemHost) -> None:
    host.write("/var/lib/libvirt/out", "before\n")
    host.write("/var/lib/libvirt/log", "old\n")
    host.define(bare_domain("files", devices=CHARDEVS))
    host.ok("start files --paused")
    try:
        assert host.path("/var/lib/libvirt/out").read_text() == "before\n"
        assert host.path("/var/lib/libvirt/log").read_text() == ""
        listening = host.run(["ss", "-xlH"]).stdout
        assert "/var/lib/libvirt/serial.sock " in listening
        assert re.search("/var/lib/libvirt/qemu/channel/target/domain-[0-9]+-files/org.a ", listening)
        argv = host.run(["sh", "-c", "tr '\\0' ' ' </proc/$(cat /run/libvirt/qemu/files.pid)/cmdline"]).stdout
        assert "opaque=serial0-source" in argv
        assert "logfile=/dev/fdset/1,logappend=on" in argv
    finally:
        host.ok("destroy files")
        host.ok("undefine files")


@pytest.mark.parametrize(
    ("serial", "words"),
    [
        ("<serial type='file'><source path='/nowhere/a'/></serial>", "Unable to open file: /nowhere/a"),
        (
            "<serial type='unix'><source mode='bind' path='/nowhere/a'/></serial>",
            "Unable to bind to UNIX socket path '/nowhere/a'",
        ),
    ],
)
def test_directory_that_is_missing_is_named(host: SystemHost, serial: str, words: str) -> None:
    host.define(bare_domain("files", devices=serial))
    assert f"{words}: No such file or directory" in host.virsh("start files").stderr
    host.ok("undefine files")


def test_descriptors_that_nobody_gave_are_missed(host: SystemHost) -> None:
    host.write("/var/lib/libvirt/a.img", "x" * 512)
    source = "<source file='/var/lib/libvirt/a.img' fdgroup='mine'/>"
    host.define(bare_domain("files", devices=f"<disk type='file'>{source}<target dev='vda'/></disk>"))
    said = host.virsh("start files").stderr
    assert "file descriptor group 'mine' was not associated with the domain" in said
    host.ok("undefine files")


@pytest.mark.parametrize("backing", ["<source type='file'/>", "<access mode='shared'/>"])
def test_memory_in_files_has_a_directory_while_the_guest_runs(host: SystemHost, backing: str) -> None:
    host.define(bare_domain("memory", extra=f"<memoryBacking>{backing}</memoryBacking>"))
    host.ok("start memory --paused")
    found = host.run(["sh", "-c", "cd /var/lib/libvirt/qemu/ram && ls"]).stdout.split()
    assert [name.partition("-")[2] for name in found] == ["memory"]
    host.ok("destroy memory")
    assert host.run(["sh", "-c", "cd /var/lib/libvirt/qemu/ram && ls"]).stdout.split() == []
    host.ok("undefine memory")


def test_balloon_of_a_paused_guest_is_what_qemu_tells(host: SystemHost) -> None:
    extra = "<currentMemory unit='MiB'>48</currentMemory>"
    host.define(bare_domain("balloon", devices="<memballoon model='virtio'/>", extra=extra))
    host.ok("start balloon --paused")
    actual = json.loads(host.ok(["qemu-monitor-command", "balloon", '{"execute":"query-balloon"}']))
    assert f"<currentMemory unit='KiB'>{actual['return']['actual'] // 1024}<" in host.ok("dumpxml balloon")
    host.ok("destroy balloon")
    host.ok("undefine balloon")
