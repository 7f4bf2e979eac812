"""What may go wrong while a guest is saved or restored: it runs on or is saved whole, never neither."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.guest import Guest
from tests.support.domains import bare_domain, tiny_domain
from tests.support.host import Host, SessionHost, SystemHost

pytestmark = pytest.mark.guest
NAME, BARE = "tiny", "bare"
SAVE = """
try: conn.lookupByName(sys.argv[1]).saveParams({'file': sys.argv[2], 'image_format': sys.argv[3]})
except libvirt.libvirtError as error: print(error)
else: print("saved")
"""
PARTIAL, COMPLETE = b"LibvirtQemudPart", b"LibvirtQemudSave"
RUNS_ON = "running (save canceled)"


@pytest.fixture(scope="module")
def running(session: SessionHost, guest: Guest) -> SessionHost:
    """The tiny guest, booted, with a mark in its memory; most tests leave it running."""
    session.define(tiny_domain(session.adopt(guest), NAME))
    session.ok(f"start {NAME}")
    with session.terminal(f"console {NAME}") as console:
        console.expect("tiny# ", 60)
        console.command("echo mark > /tmp/mark")
    return session


@pytest.fixture
def image(session: SessionHost) -> Iterator[Path]:
    path = session.path("saved.img")
    path.unlink(missing_ok=True)
    yield path
    path.unlink(missing_ok=True)


def eventually(condition: Callable[[], object], timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def state(host: Host, name: str = NAME) -> str:
    return host.ok(f"domstate {name} --reason")


def mark(host: Host) -> str:
    with host.terminal(f"console {NAME} --force") as console:
        console.prompt()
        return console.command("cat /tmp/mark")


def begin(host: Host, image: Path, word: str = "xz") -> "subprocess.Popen[str]":
    """A client that saves the guest, once the save is well under way. xz takes half a minute for the tiny guest."""
    host_python = host.command(["/usr/bin/python3", "-c", f"import libvirt, sys; conn = libvirt.open()\n{SAVE}"])
    client = host.popen([*host_python[-3:], NAME, str(image), word])
    eventually(lambda: "Save" in host.ok(f"domjobinfo {NAME}"))
    eventually(lambda: client.poll() is not None or (image.exists() and image.stat().st_size > 100_000))
    return client


def outcome(client: "subprocess.Popen[str]") -> str:
    return client.communicate(timeout=60)[0].strip().splitlines()[-1]


def processes(host: Host, name: str) -> list[int]:
    """The guest's QEMU, of this daemon."""
    return [int(word) for word in host.run(["pgrep", "-f", f"guest={name},.*{host.folder.name}"]).stdout.split()]


def started(host: Host) -> None:
    """The bare machine runs, whatever the test before has left."""
    if state(host, BARE).startswith("paused"):
        host.ok(f"destroy {BARE}")
    if not state(host, BARE).startswith("running"):
        host.ok(f"start {BARE}")


def compressors(host: Host) -> list[int]:
    """xz as this daemon's child."""
    return [int(word) for word in host.run(["pgrep", "-P", str(host.pid), "-x", "xz"]).stdout.split()]


# --- the guest runs on --------------------------------------------------------------------------------------------


def test_another_client_ends_the_save(running: SessionHost, image: Path) -> None:
    client = begin(running, image)
    assert state(running) == "paused (saving)"
    running.ok(f"domjobabort {NAME}")
    assert outcome(client) == "operation aborted: job 'domain save' canceled by client"
    assert state(running) == RUNS_ON
    assert not image.exists()
    assert mark(running) == "mark"


def test_a_compressor_that_dies_costs_the_save_only(running: SessionHost, image: Path) -> None:
    client = begin(running, image)
    for pid in compressors(running):
        os.kill(pid, 9)
    assert outcome(client) == "operation failed: 'xz' was killed by SIGKILL"
    assert state(running) == RUNS_ON
    assert not image.exists()


def test_a_compressor_that_hangs_does_not_hold_up_the_abort(running: SessionHost, image: Path) -> None:
    client = begin(running, image)
    for pid in compressors(running):
        os.kill(pid, 19)
    begun = time.monotonic()
    running.ok(f"domjobabort {NAME}")
    assert "canceled by client" in outcome(client)
    assert time.monotonic() - begun < 15, "it was waited for"
    assert state(running) == RUNS_ON
    eventually(lambda: not compressors(running))


@pytest.mark.parametrize("paused", [False, True], ids=["running", "paused"])
def test_a_daemon_that_is_killed_leaves_the_guest_as_it_was(running: SessionHost, image: Path, paused: bool) -> None:
    if paused:
        running.ok(f"suspend {NAME}")
    client = begin(running, image)
    running.kill()
    client.communicate(timeout=10)
    running.start()
    expected = "paused (user)" if paused else RUNS_ON
    eventually(lambda: state(running) == expected)
    assert image.read_bytes()[:16] == PARTIAL
    done = running.virsh(f"restore {image}")
    assert "save image is incomplete" in done.stderr
    if paused:
        running.ok(f"resume {NAME}")
    assert mark(running) == "mark"
    running.ok(f"save {NAME} {image}")
    running.ok(f"restore {image}")


def test_a_daemon_that_is_killed_leaves_no_managed_image(running: SessionHost) -> None:
    image = running.path(f"config/libvirt/qemu/save/{NAME}.save")
    code = "conn.lookupByName(sys.argv[1]).saveParams({'image_format': 'xz'})"
    client = running.popen(["/usr/bin/python3", "-c", f"import libvirt, sys; conn = libvirt.open()\n{code}", NAME])
    eventually(lambda: image.exists() and image.stat().st_size > 100_000)
    running.kill()
    client.communicate(timeout=10)
    running.start()
    eventually(lambda: state(running) == RUNS_ON)
    assert not image.exists()
    assert mark(running) == "mark"


def test_a_save_whose_client_is_gone_is_finished(running: SessionHost, image: Path) -> None:
    client = begin(running, image, "gzip")
    client.kill()
    client.communicate()
    eventually(lambda: state(running) == "shut off (saved)", 60)
    assert image.read_bytes()[:16] == COMPLETE
    running.ok(f"restore {image}")
    assert mark(running) == "mark"


def test_a_file_that_is_being_written_is_nobody_elses(running: SessionHost, image: Path) -> None:
    """Not of another save's, and not of what an earlier daemon has left running."""
    running.define(bare_domain("other"))
    running.ok("start other")
    client = begin(running, image)
    done = running.virsh(f"save other {image}")
    assert f"Failed to create file '{image}': Device or resource busy" in done.stderr
    assert state(running, "other") == RUNS_ON
    running.ok(f"domjobabort {NAME}")
    assert "canceled" in outcome(client)
    running.ok(f"save other {image}")
    with image.open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_EX)
        assert "Device or resource busy" in running.virsh(f"restore {image}").stderr
    running.ok(f"restore {image}")
    running.ok("destroy other")
    running.ok("undefine other")


@pytest.mark.parametrize("where", ["directory", "missing", "pipe", "unwritable"])
def test_a_path_that_cannot_be_written_is_named(running: SessionHost, where: str) -> None:
    path = running.path(where)
    if where == "directory":
        path.mkdir(exist_ok=True)
        reason = "Is a directory"
    elif where == "pipe":
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path)
            path.chmod(0o666)
        reason = "Operation not permitted"
    elif where == "missing":
        path = path / "file"
        reason = "No such file or directory"
    else:
        path = Path("/proc/version")
        reason = "Permission denied"
    done = running.virsh(f"save {NAME} {path}")
    assert f"Failed to create file '{path}': {reason}" in done.stderr
    assert state(running) == RUNS_ON


def test_a_file_that_was_there_is_for_its_owner_only(running: SessionHost, image: Path) -> None:
    running.write(image.name, "x" * 1000).chmod(0o666)
    running.run(["true"])
    if os.geteuid() == 0:
        found = running.path("run").stat()
        os.chown(image, found.st_uid, found.st_gid)
    running.ok(f"save {NAME} {image}")
    assert image.stat().st_mode & 0o777 == 0o600
    running.ok(f"restore {image}")


# --- a whole image or none ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare(session: SessionHost) -> SessionHost:
    session.define(bare_domain(BARE))
    return session


def whole(path: Path) -> bool:
    return path.exists() and path.read_bytes()[:16] == COMPLETE


@pytest.mark.parametrize("moment", [0.0, 0.01, 0.03, 0.06])
def test_an_abort_at_any_moment(bare: SessionHost, image: Path, moment: float) -> None:
    started(bare)
    conn = bare.connect()
    dom = conn.lookupByName(BARE)
    client = bare.popen(["virsh", "-q", "-c", bare.uri, "save", BARE, str(image)])
    deadline = time.monotonic() + 10
    while client.poll() is None and time.monotonic() < deadline and not dom.jobInfo()[0]:
        pass
    time.sleep(moment)
    with contextlib.suppress(Exception):
        dom.abortJob()
    client.communicate(timeout=20)
    conn.close()
    if client.returncode == 0:
        assert (state(bare, BARE), whole(image)) == ("shut off (saved)", True)
        bare.ok(f"restore {image}")
    else:
        assert (state(bare, BARE), image.exists()) == (RUNS_ON, False)


@pytest.mark.parametrize("moment", [0.0, 0.03, 0.05, 0.07, 0.12])
def test_a_daemon_killed_at_any_moment_of_a_managed_save(bare: SessionHost, moment: float) -> None:
    path = bare.path(f"config/libvirt/qemu/save/{BARE}.save")
    started(bare)
    client = bare.popen(["virsh", "-q", "-c", bare.uri, "managedsave", BARE])
    time.sleep(moment)
    bare.kill()
    client.communicate(timeout=10)
    bare.start()
    if processes(bare, BARE):
        eventually(lambda: state(bare, BARE).startswith("running"))
        assert not path.exists()
    else:
        assert client.returncode != 0 or whole(path)
        assert whole(path), state(bare, BARE)
        bare.ok(f"start {BARE}")
        assert state(bare, BARE) == "running (restored)"


@pytest.mark.parametrize("moment", [0.05, 0.1, 0.15, 0.2])
def test_a_daemon_killed_at_any_moment_of_a_start_from_an_image(bare: SessionHost, moment: float) -> None:
    path = bare.path(f"config/libvirt/qemu/save/{BARE}.save")
    started(bare)
    bare.ok(f"managedsave {BARE}")
    client = bare.popen(["virsh", "-q", "-c", bare.uri, "start", BARE])
    time.sleep(moment)
    bare.kill()
    client.communicate(timeout=10)
    bare.start()
    if processes(bare, BARE):
        eventually(lambda: state(bare, BARE).startswith("running"))
        assert not path.exists()
    else:
        assert whole(path)
        bare.ok(f"start {BARE}")
        assert state(bare, BARE) == "running (restored)"


@pytest.mark.parametrize("resume", ["yes", "no"])
def test_a_guest_that_has_all_of_its_image_goes_on(bare: SessionHost, resume: str) -> None:
    """The daemon died with the image read and the vcpus still stopped: what it had noted then."""
    status = bare.path(f"run/libvirt/qemu/run/{BARE}.xml")
    started(bare)
    bare.ok(f"managedsave {BARE}")
    bare.ok(f"start {BARE}")
    bare.ok(f"suspend {BARE}")
    bare.kill()
    noted = status.read_text().replace("reason='user'", "reason='migration'")
    begun = f"<job type='none' async='start'/><restored image='/image' resume='{resume}'/><domain "
    status.write_text(noted.replace("<domain ", begun, 1))
    bare.start()
    expected = "running (restored)" if resume == "yes" else "paused (migrating)"
    eventually(lambda: state(bare, BARE) == expected)
    bare.ok(f"destroy {BARE}")


def test_a_used_up_image_goes_with_a_guest_that_ended_unseen(bare: SessionHost) -> None:
    """The daemon died before it had removed the image, the guest ran on and ended."""
    saved = bare.path(f"config/libvirt/qemu/save/{BARE}.save")
    status = bare.path(f"run/libvirt/qemu/run/{BARE}.xml")
    started(bare)
    bare.ok(f"managedsave {BARE}")
    image = saved.read_bytes()
    bare.ok(f"start {BARE}")
    bare.kill()
    saved.write_bytes(image)
    noted = f"<restored image='{saved}' resume='yes'/><domain "
    status.write_text(status.read_text().replace("<domain ", noted, 1))
    for pid in processes(bare, BARE):
        os.kill(pid, 9)
    eventually(lambda: not processes(bare, BARE))
    bare.start()
    eventually(lambda: state(bare, BARE).startswith("shut off"))
    eventually(lambda: not saved.exists())


def test_an_image_that_was_restored_by_its_path_stays(bare: SessionHost, image: Path) -> None:
    started(bare)
    bare.ok(f"save {BARE} {image}")
    bare.ok(f"restore {image}")
    assert "<restored" not in bare.path(f"run/libvirt/qemu/run/{BARE}.xml").read_text()
    bare.ok(f"destroy {BARE}")
    assert whole(image)


@pytest.mark.parametrize("word", ["raw", "gzip"])
def test_a_state_that_is_cut_off_leaves_nothing_behind(bare: SessionHost, image: Path, word: str) -> None:
    started(bare)
    bare.python(SAVE, BARE, str(image), word)
    with image.open("r+b") as file:
        file.truncate(90_000 if word == "gzip" else 600_000)
    done = bare.virsh(f"restore {image}")
    expected = "unexpected end of file" if word == "gzip" else "qemu unexpectedly closed the monitor"
    assert expected in done.stderr
    assert state(bare, BARE) == "shut off (failed)"
    assert not processes(bare, BARE)
    assert image.exists()


def test_a_guest_that_dies_meanwhile_leaves_no_file(running: SessionHost, image: Path) -> None:
    client = begin(running, image)
    (pid,) = processes(running, NAME)
    os.kill(pid, 9)
    assert outcome(client) == "operation failed: domain is not running"
    eventually(lambda: state(running) == "shut off (crashed)")
    assert not image.exists()


# --- the system daemon ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["raw", "gzip"])
@pytest.mark.parametrize("options", ["", "--bypass-cache"])
def test_a_disk_that_is_full_costs_the_save_only(host: SystemHost, guest: Guest, word: str, options: str) -> None:
    if "tiny" not in host.ok("list --name --all"):
        host.define(tiny_domain(host.adopt(guest), NAME))
        host.ok(f"start {NAME}")
        host.run(["mkdir", "-p", "/var/lib/libvirt/small"])
        host.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", "/var/lib/libvirt/small"])
        time.sleep(3)  # the kernel and the RAM disk are in memory by then
    flags = "libvirt.VIR_DOMAIN_SAVE_BYPASS_CACHE" if options else "0"
    code = SAVE.replace("sys.argv[3]})", f"sys.argv[3]}}, {flags})")
    words = host.python(code, NAME, "/var/lib/libvirt/small/image", word)
    assert "No space left on device" in words
    assert state(host) == RUNS_ON
    assert host.run(["ls", "/var/lib/libvirt/small"]).stdout == ""


def test_a_file_of_another_user_becomes_roots(host: SystemHost) -> None:
    host.ok(["create", str(host.client_file("other.xml", bare_domain("other")))])
    path = host.path("/var/lib/libvirt/given")
    path.write_bytes(b"x" * 1000)
    path.chmod(0o666)
    shutil.chown(path, "nobody", "nogroup")
    host.ok("save other /var/lib/libvirt/given")
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (0, 0, 0o600)
    path.unlink()


def test_the_image_is_roots_alone(host: SystemHost) -> None:
    host.define(bare_domain(BARE))
    host.ok(f"start {BARE}")
    host.ok(f"managedsave {BARE}")
    found = host.path(f"/var/lib/libvirt/qemu/save/{BARE}.save").stat()
    assert (found.st_uid, found.st_mode & 0o777) == (0, 0o600)
    host.ok(f"start {BARE}")
    host.ok(f"destroy {BARE}")
    host.ok(f"undefine {BARE}")


def test_a_used_up_image_that_cannot_be_removed_goes_at_the_guests_end(host: SystemHost) -> None:
    """And what it is in the way of, a new image, is not begun before."""
    path = f"/var/lib/libvirt/qemu/save/{BARE}.save"
    host.define(bare_domain(BARE))
    host.ok(f"start {BARE}")
    for word in ("managedsave", "destroy"):
        host.ok(f"managedsave {BARE}")
        assert host.run(["mount", "--bind", path, path]).returncode == 0  # nobody can remove it
        host.ok(f"start {BARE}")
        eventually(lambda: f"cannot remove managed save file '{path}': Device or resource busy" in host.log())
        assert "Device or resource busy" in host.virsh(f"managedsave {BARE}").stderr
        assert state(host, BARE) == "running (restored)"
        assert host.run(["umount", path]).returncode == 0
        host.ok(f"{word} {BARE}")
        assert host.path(path).exists() is (word == "managedsave")
        host.ok(f"start {BARE}")
    host.ok(f"destroy {BARE}")
    host.ok(f"undefine {BARE}")


@pytest.mark.parametrize(
    ("reason", "job", "after"), [("migration", "start", "running (restored)"), ("save", "save", RUNS_ON)]
)
def test_what_one_daemon_cannot_recover_the_next_one_does(host: SystemHost, reason: str, job: str, after: str) -> None:
    """Two daemons that die in a row; the image that is in the way keeps the first from getting further."""
    path, status = f"/var/lib/libvirt/qemu/save/{BARE}.save", host.path(f"/run/libvirt/qemu/{BARE}.xml")
    host.define(bare_domain(BARE))
    host.ok(f"start {BARE}")
    host.ok(f"suspend {BARE}")
    host.kill()
    restored = f"<restored image='{path}' resume='yes'/>" if job == "start" else ""
    noted = status.read_text().replace("reason='user'", f"reason='{reason}'")
    status.write_text(noted.replace("<domain ", f"<job type='none' async='{job}'/>{restored}<domain ", 1))
    host.write(path, "image")
    assert host.run(["mount", "--bind", path, path]).returncode == 0  # nobody can remove it
    host.start()
    eventually(lambda: f"is not recovered: cannot remove managed save file '{path}'" in host.log())
    assert state(host, BARE).startswith("paused")
    host.kill()
    assert host.run(["umount", path]).returncode == 0
    host.start()
    eventually(lambda: state(host, BARE) == after)
    eventually(lambda: "<job" not in status.read_text() and "<restored" not in status.read_text())
    assert not host.path(path).exists()
    host.ok(f"destroy {BARE}")
    host.ok(f"undefine {BARE}")
