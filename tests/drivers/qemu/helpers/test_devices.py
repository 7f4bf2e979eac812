"""Guests with devices that a program beside QEMU serves: it is there, serves, and ends with its guest."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest import Guest
from tests.support.domains import bare_domain, tiny_domain
from tests.support.host import SessionHost, SystemHost
from tests.support.passt import needs_passt

TPM = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
FOLDER = """<filesystem type='mount'><driver type='virtiofs'/><binary xattr='on'><cache mode='always'/></binary>
<source dir='/var/lib/libvirt/folder'/><target dir='folder'/></filesystem>"""
SHARED = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
PORTS = "".join(f"<controller type='pci' index='{n}' model='pcie-root-port'/>" for n in range(1, 9))
STATE = "/var/lib/libvirt/swtpm"

needs_swtpm = pytest.mark.skipif(not shutil.which("swtpm_setup"), reason="swtpm-tools is not installed")
needs_ovmf = pytest.mark.skipif(not Path("/usr/share/OVMF/OVMF_CODE_4M.fd").exists(), reason="ovmf is not installed")


def alive(host: SystemHost, pid_file: str) -> bool:
    pid = host.path(pid_file).read_text().strip()
    return host.run(["kill", "-0", pid]).returncode == 0


def gone(host: SystemHost, pid_file: str) -> bool:
    return not host.path(pid_file).exists()


@pytest.fixture
def folder(host: SystemHost) -> Iterator[str]:
    host.write("/var/lib/libvirt/folder/word", "shared\n")
    yield "/var/lib/libvirt/folder"
    shutil.rmtree(host.path("/var/lib/libvirt/folder"))


@needs_swtpm
@needs_ovmf
@pytest.mark.guest
def test_guest_boots_by_uefi_with_tpm_and_shared_folder_behind_root_ports(
    host: SystemHost, guest: Guest, folder: str
) -> None:
    xml = tiny_domain(host.adopt(guest), "whole", memory_mib=256, devices=TPM + FOLDER + PORTS, extra=SHARED)
    firmware = "<firmware><feature enabled='no' name='secure-boot'/></firmware>"
    host.define(xml.replace("<os>", f"<os firmware='efi'>{firmware}"))
    host.ok("start whole")
    try:
        with host.terminal("console whole") as console:
            console.expect("tiny# ", 90)
            found = console.command("ls -d /sys/firmware/efi /dev/tpm0")
            assert found.split() == ["/dev/tpm0", "/sys/firmware/efi"]
            assert console.command("mount -t virtiofs folder /mnt && cat /mnt/word") == "shared"
            assert console.command("echo back >/mnt/answer; ls /dev/tpmrm0") == "/dev/tpmrm0"
        assert host.path("/var/lib/libvirt/folder/answer").read_text() == "back\n"
        assert host.ok("dumpxml whole").count("model='pcie-root-port'") == 8
    finally:
        host.ok("destroy whole")
    assert host.virsh("undefine whole").stderr.strip().endswith("cannot undefine domain with nvram")
    host.ok("undefine whole --nvram")
    assert not host.path("/var/lib/libvirt/qemu/nvram/whole_VARS.fd").exists()


@needs_swtpm
def test_tpm_outlives_the_daemon_and_ends_with_its_guest(host: SystemHost) -> None:
    host.define(bare_domain("tpm", devices=TPM))
    host.ok("start tpm --paused")
    pid_file = f"/run/libvirt/qemu/swtpm/{host.ok('domid tpm')}-tpm-swtpm.pid"
    assert alive(host, pid_file)
    host.restart(9)
    assert alive(host, pid_file)
    host.ok("destroy tpm")
    assert gone(host, pid_file)
    uuid = host.ok("domuuid tpm")
    host.ok("undefine tpm --keep-tpm")
    assert uuid in host.run(["ls", STATE]).stdout
    host.define(bare_domain("tpm", devices=TPM).replace("<memory", f"<uuid>{uuid}</uuid><memory"))
    host.ok("start tpm --paused")
    assert uuid in host.run(["ls", STATE]).stdout
    host.ok("destroy tpm")
    host.ok("undefine tpm")
    assert uuid not in host.run(["ls", STATE]).stdout


@needs_swtpm
def test_tpm_of_a_transient_guest_goes_unless_it_is_to_stay(host: SystemHost) -> None:
    for words, left in (("", 0), (" persistent_state='yes'", 1)):
        shutil.rmtree(host.path(STATE), ignore_errors=True)
        devices = TPM.replace(" version", f"{words} version")
        host.ok(["create", "--paused", str(host.client_file("tpm.xml", bare_domain("passing", devices=devices)))])
        host.ok("destroy passing")
        assert len(host.run(["ls", STATE]).stdout.split()) == left


@needs_swtpm
@pytest.mark.parametrize(("kind", "made"), [("dir", "state/tpm2-00.permall"), ("file", "state")])
def test_tpm_keeps_its_state_where_it_is_told_and_talks_as_loud(host: SystemHost, kind: str, made: str) -> None:
    source = f"<source type='{kind}' path='/var/lib/libvirt/tpm/state'/>"
    banks = "<active_pcr_banks><sha256/></active_pcr_banks>"
    devices = TPM.replace(" version", " debug='5' version").replace("/></tpm>", f">{banks}{source}</backend></tpm>")
    host.write("/var/lib/libvirt/tpm/beside", "")
    host.run(["chmod", "755", "/var/lib/libvirt/tpm"])
    name = f"kept-in-{kind}"
    host.define(bare_domain(name, devices=devices))
    try:
        for _ in range(2):
            host.ok(f"start {name} --paused")
            words = host.run(["sh", "-c", f"tr '\\0' ' ' </proc/$(cat /run/libvirt/qemu/swtpm/*{name}*.pid)/cmdline"])
            assert f"{'backend-uri=file://' if kind == 'file' else 'dir='}/var/lib/libvirt/tpm/state" in words.stdout
            assert "-swtpm.log,level=5 " in words.stdout
            host.ok(f"destroy {name}")
            assert host.path(f"/var/lib/libvirt/tpm/{made}").exists()
        log = host.path(f"/var/log/swtpm/libvirt/qemu/{name}-swtpm.log").read_text()
        assert log.count("Successfully created RSA 2048 EK") == 1
        assert "Successfully activated PCR banks sha256" in log
        assert not list(host.path(STATE).glob(host.ok(f"domuuid {name}")))
    finally:
        host.ok(f"undefine {name}")
    assert [path.name for path in host.path("/var/lib/libvirt/tpm").iterdir()] == ["beside"]


def test_folder_that_cannot_be_shared_is_told_with_the_helpers_own_words(host: SystemHost) -> None:
    host.write("/var/lib/libvirt/plain", "a file")
    host.define(bare_domain("folder", devices=FOLDER.replace("folder'", "nowhere'"), extra=SHARED))
    assert "export directory '/var/lib/libvirt/nowhere' does not exist" in host.virsh("start folder").stderr
    host.ok("undefine folder")
    host.define(bare_domain("folder", devices=FOLDER.replace("folder'", "plain'"), extra=SHARED))
    words = host.virsh("start folder").stderr
    assert "virtiofsd died unexpectedly" in words
    assert "is not a directory" in words
    assert host.ok("domstate folder") == "shut off"
    assert host.run(["sh", "-c", "ls /run/libvirt/qemu | grep -- -folder-"]).stdout == ""
    host.ok("undefine folder")


@pytest.mark.skipif(not shutil.which("dbus-daemon"), reason="dbus-daemon is not installed")
def test_display_is_on_a_bus_of_the_guests_own(host: SystemHost) -> None:
    host.define(bare_domain("bus", devices="<graphics type='dbus'/><video><model type='virtio'/></video>"))
    host.ok("start bus --paused")
    address = f"unix:path=/run/libvirt/qemu/dbus/{host.ok('domid bus')}-bus-dbus.sock"
    assert f"<graphics type='dbus' address='{address}'" in host.ok("dumpxml bus")
    names = host.run(
        [
            "dbus-send",
            f"--bus={address}",
            "--print-reply",
            "--dest=org.freedesktop.DBus",
            "/",
            "org.freedesktop.DBus.ListNames",
        ]
    )
    assert "org.qemu" in names.stdout, names.stderr
    assert "<dbusDaemon/>" in host.path("/run/libvirt/qemu/bus.xml").read_text()
    host.restart(9)
    host.ok("destroy bus")
    assert host.run(["sh", "-c", "ls /run/libvirt/qemu/dbus"]).stdout == ""
    host.ok("undefine bus")


@needs_swtpm
@needs_passt
def test_user_has_helpers_of_his_own(session: SessionHost) -> None:
    passt = "<interface type='user'><backend type='passt'/></interface>"
    session.define(bare_domain("own", devices=TPM + passt))
    session.ok("start own --paused")
    files = ("swtpm/1-own-swtpm.pid", "passt/1-own-net0.pid")
    run = session.folder / "run/libvirt/qemu/run"
    for name, program in zip(files, ("swtpm", "passt"), strict=True):  # passt picks a variant of itself
        assert Path(f"/proc/{(run / name).read_text().strip()}/comm").read_text().startswith(program)
    session.ok("destroy own")
    assert not any((run / name).exists() for name in files)
    session.ok("undefine own")


@needs_swtpm
def test_helper_of_a_start_that_was_cut_off_is_ended(host: SystemHost) -> None:
    """The daemon died before anybody noted the guest; a program of another kind with that number is left alone."""
    script = """
set -e
mkdir -p /var/lib/libvirt/qemu/domain-77-orphan /run/libvirt/qemu/swtpm /var/lib/libvirt/orphan
swtpm socket --daemon --tpm2 --ctrl type=unixio,path=/run/libvirt/orphan.sock --tpmstate dir=/var/lib/libvirt/orphan \
  --pid file=/run/libvirt/qemu/swtpm/77-orphan-swtpm.pid
sleep 60 >/dev/null 2>&1 & echo $! >/run/libvirt/qemu/77-orphan-fs0-fs.pid; echo $!
cat /run/libvirt/qemu/swtpm/77-orphan-swtpm.pid
"""
    bystander, orphan = host.run(["sh", "-c", script]).stdout.split()
    host.restart(9)
    commands = [host.run(["cat", f"/proc/{pid}/cmdline"]).stdout for pid in (bystander, orphan)]
    assert commands == ["sleep\x0060\x00", ""]
    assert host.run(["sh", "-c", "ls /run/libvirt/qemu /run/libvirt/qemu/swtpm | grep orphan"]).stdout == ""
    host.run(["kill", bystander])
