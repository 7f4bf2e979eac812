"""Asking an emulator: one that is written here as a script, and the real ones where they are installed."""

import asyncio
import os
import sys
import textwrap
import time
from pathlib import Path

import pytest

from pyvirtd.drivers.qemu.capabilities import ProbeFailed, QemuCapabilities, RunAs, probe
from pyvirtd.errors import SystemError_

REAL = Path("/usr/bin/qemu-system-x86_64")

# Speaks enough QMP to be asked; @BODY@ may change `answers` or die.
FAKE = """\
    #!@PYTHON@ -S
    import json, os, signal, socket, sys
    fd = int(sys.argv[sys.argv.index("-chardev") + 1].rpartition("=")[2])
    accel = sys.argv[sys.argv.index("-machine") + 1]
    sock = socket.socket(fileno=fd)
    def say(message):
        sock.sendall(json.dumps(message).encode() + b"\\r\\n")
    def messages():  # a message of a client has no end of line
        text = ""
        while part := sock.recv(65536).decode():
            text += part
            while text.strip():
                try:
                    message, end = json.JSONDecoder().raw_decode(text)
                except ValueError:
                    break
                text = text[end:]
                yield message
    answers = {
        "qmp_capabilities": {},
        "query-version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": "fake"},
        "query-target": {"arch": "x86_64"},
        "query-kvm": {"present": True, "enabled": "kvm" in accel},
        "query-machines": [{"name": "none", "cpu-max": 1}, {"name": "pc-1", "alias": "pc", "cpu-max": 8}],
        "query-cpu-definitions": [{"name": "kvm64" if "kvm" in accel else "qemu64", "unavailable-features": []}],
        "qom-list-types": [{"name": n} for n in ("tcg-accel", "nvme", "virtio-blk-pci", "pc-1-machine")],
        "device-list-properties": [{"name": "serial"}],
        "qom-list-properties": [{"name": "smm"}],
        "query-qmp-schema": [],
    }
    @BODY@
    say({"QMP": {"version": answers["query-version"], "capabilities": []}})
    for asked in messages():
        name = asked["execute"]
        if (asked.get("arguments") or {}).get("typename") in FATAL:
            sys.stderr.write("missing object type\\n"); sys.stderr.flush(); os.kill(os.getpid(), signal.SIGABRT)
        same = {"id": asked["id"]} if "id" in asked else {}
        if name in answers:
            say({"return": answers[name]} | same)
        else:
            say({"error": {"class": "CommandNotFound", "desc": "no"}} | same)
"""


def fake(directory: Path, body: str = "") -> str:
    path = directory / "qemu-system-fake"
    body = "FATAL = []\n" + body
    script = textwrap.dedent(FAKE).replace("@PYTHON@", sys.executable).replace("@BODY@", textwrap.dedent(body))
    path.write_text(script)
    path.chmod(0o755)
    return str(path)


def shell(directory: Path, text: str) -> str:
    path = directory / "qemu-system-shell"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def ask(binary: str, timeout_s: float = 20.0) -> QemuCapabilities:
    return asyncio.run(probe(binary, timeout_s=timeout_s))


def test_each_accelerator_is_asked_for_itself(tmp_path: Path) -> None:
    caps = ask(fake(tmp_path))
    assert caps.version == 7_002_022
    assert [m.name for m in caps.cpu_models("kvm")] == ["kvm64"]
    assert [m.name for m in caps.cpu_models("qemu")] == ["qemu64"]


def test_machine_none_is_no_machine_for_guests(tmp_path: Path) -> None:
    assert [m.name for m in ask(fake(tmp_path)).machines()] == ["pc-1"]


def test_command_this_qemu_lacks_is_no_answer(tmp_path: Path) -> None:
    caps = ask(fake(tmp_path))
    assert caps.tpm_models == ()
    assert caps.sev is None


def test_type_that_kills_qemu_is_left_out(tmp_path: Path) -> None:
    caps = ask(fake(tmp_path, "FATAL = ['nvme']"))
    assert caps.has_device("nvme")
    assert not caps.has_property("nvme", "serial")
    assert caps.has_property("virtio-blk-pci", "serial")


@pytest.mark.skipif(not os.path.exists("/dev/kvm"), reason="no /dev/kvm to fail")
def test_kvm_that_takes_qemu_down_leaves_emulation(tmp_path: Path) -> None:
    caps = ask(fake(tmp_path, "if 'kvm' in accel: sys.exit('ioctl(KVM_CREATE_VM) failed')"))
    assert not caps.kvm_usable
    assert caps.virt_types() == ("qemu",)


def test_emulator_that_does_not_start_is_quoted(tmp_path: Path) -> None:
    binary = shell(tmp_path, "echo 'wrong word' >&2; exit 1")
    with pytest.raises(ProbeFailed) as caught:
        ask(binary)
    assert caught.value.message == (f"internal error: Failed to start QEMU binary {binary} for probing: wrong word\n")


def test_long_complaint_is_cut(tmp_path: Path) -> None:
    with pytest.raises(ProbeFailed) as caught:
        ask(shell(tmp_path, "yes complaint | head -c 1000000 >&2; exit 1"))
    assert len(caught.value.detail) < 70_000


def test_silent_emulator_is_gone_after_its_deadline(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    started = time.monotonic()
    with pytest.raises(ProbeFailed, match=r"no answer within 0\.5 seconds"):
        ask(shell(tmp_path, f"echo $$ > {note}; exec sleep 60"), timeout_s=0.5)
    assert time.monotonic() - started < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_program_without_interpreter_cannot_be_run(tmp_path: Path) -> None:
    path = tmp_path / "qemu-system-x"
    path.write_text("#!/nonexistent\n")
    path.chmod(0o755)
    with pytest.raises((SystemError_, ProbeFailed)):
        ask(str(path))


@pytest.mark.guest
@pytest.mark.skipif(not REAL.exists(), reason="qemu-system-x86_64 is not installed")
def test_real_emulator_tells_what_the_driver_needs() -> None:
    caps = ask(str(REAL), timeout_s=60)
    assert caps.arch == "x86_64"
    machine = caps.machine("q35")
    assert machine is not None
    assert machine.default_cpu == "qemu64"
    assert caps.has_device("virtio-blk-pci")
    assert caps.has_property("virtio-blk-pci", "drive")
    assert caps.supports("blockdev-add/driver=qcow2")
    assert caps.has_option("sandbox.elevateprivileges")
    assert caps.cpu_definition("EPYC") is not None
    assert QemuCapabilities.from_json(caps.to_json()) == caps


@pytest.mark.guest
@pytest.mark.skipif(not REAL.exists() or os.geteuid() != 0, reason="needs root and qemu-system-x86_64")
def test_probe_gives_up_root(tmp_path: Path) -> None:
    note = tmp_path / "who"
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if parent != Path("/tmp") and str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    binary = shell(tmp_path, f"(id -u; grep -E 'CapEff|CapBnd' /proc/self/status) > {note}; exit 1")
    with pytest.raises(ProbeFailed):
        asyncio.run(probe(binary, run_as=RunAs(65534, 65534), timeout_s=20))
    user, bounding, effective = (line.split()[-1] for line in sorted(note.read_text().splitlines()))
    assert user == "65534"
    only_dac_override = 1 << 1
    assert int(bounding, 16) == int(effective, 16) == only_dac_override
