"""Saved guests through real clients: what was in memory is there again, and the documents in the images."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest import Guest
from tests.support.domains import bare_domain, tiny_domain
from tests.support.host import SessionHost

pytestmark = pytest.mark.guest
NAME, BARE = "tiny", "bare"
VNC = "<graphics type='vnc' passwd='geheim'><listen type='socket'/></graphics>"


@pytest.fixture(scope="module")
def running(session: SessionHost, guest: Guest) -> SessionHost:
    """The tiny guest, booted, with a mark in its memory; every test leaves it running."""
    session.define(tiny_domain(session.adopt(guest), NAME))
    session.ok(f"start {NAME}")
    with session.terminal(f"console {NAME}") as console:
        console.expect("tiny# ", 60)
        console.command("echo mark-$((40 + 2)) > /tmp/mark; sleep 10000 & echo $! > /tmp/pid")
    return session


@pytest.fixture
def bare(session: SessionHost) -> Iterator[SessionHost]:
    """A machine that runs and has nothing to boot."""
    session.define(bare_domain(BARE, devices=VNC))
    session.ok(f"start {BARE}")
    yield session
    session.virsh(f"destroy {BARE}")
    session.ok(f"undefine {BARE} --managed-save")


@pytest.fixture
def image(session: SessionHost) -> Path:
    return session.path("saved.img")


def typed(host: SessionHost, command: str) -> str:
    with host.terminal(f"console {NAME} --force") as console:
        console.prompt()
        return console.command(command)


def state(host: SessionHost, name: str) -> str:
    return host.ok(f"domstate {name} --reason")


def refused(host: SessionHost, command: str) -> str:
    done = host.virsh(command)
    assert done.returncode != 0, f"virsh {command}: {done.stdout}"
    return done.stderr.replace("error: ", "")


# --- memory -----------------------------------------------------------------------------------------------------


def test_a_saved_guest_goes_on_where_it_was(running: SessionHost, image: Path) -> None:
    running.ok(f"save {NAME} {image}")
    assert state(running, NAME) == "shut off (saved)"
    assert image.stat().st_mode & 0o777 == 0o600
    running.ok(f"restore {image}")
    assert state(running, NAME) == "running (restored)"
    assert typed(running, "cat /tmp/mark") == "mark-42"
    assert typed(running, "kill -0 $(cat /tmp/pid) && echo alive") == "alive"


@pytest.mark.parametrize("options", ["", "--bypass-cache"])
def test_a_managed_save_is_taken_up_by_the_next_start(running: SessionHost, options: str) -> None:
    running.ok(f"managedsave {NAME} {options}")
    assert "saved" in running.ok("list --all --managed-save")
    for _ in range(2):
        assert NAME in running.ok("list --all --with-managed-save --name").split()
        assert NAME not in running.ok("list --all --without-managed-save --name").split()
        running.restart()
    running.ok(f"start {NAME} {options}")
    assert state(running, NAME) == "running (restored)"
    assert NAME in running.ok("list --all --without-managed-save --name").split()
    assert typed(running, "cat /tmp/mark") == "mark-42"
    assert not list(running.path("config/libvirt/qemu/save").iterdir())


@pytest.mark.parametrize("word", ["gzip", "zstd", "lzop"])
def test_a_compressed_image_is_restored(running: SessionHost, image: Path, word: str) -> None:
    if not shutil.which(word):
        pytest.skip(f"{word} is not installed")
    running.python(
        "conn.lookupByName(sys.argv[1]).saveParams({'file': sys.argv[2], 'image_format': sys.argv[3]})",
        *(NAME, str(image), word),
    )
    assert image.stat().st_size < 60 << 20
    running.ok(f"restore {image} --bypass-cache")
    assert typed(running, "cat /tmp/mark") == "mark-42"


@pytest.mark.parametrize("word", ["bzip2", "xz"])
def test_other_formats_too(bare: SessionHost, image: Path, word: str) -> None:
    if not shutil.which(word):
        pytest.skip(f"{word} is not installed")
    bare.python(
        "conn.lookupByName(sys.argv[1]).saveParams({'file': sys.argv[2], 'image_format': sys.argv[3]})",
        *(BARE, str(image), word),
    )
    bare.ok(f"restore {image}")
    assert state(bare, BARE) == "running (restored)"


# --- states -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "save", "restore", "after"),
    [
        ("resume", "", "", "running (restored)"),
        ("suspend", "", "", "paused (migrating)"),
        ("suspend", "--running", "", "running (restored)"),
        ("resume", "--paused", "", "paused (migrating)"),
        ("resume", "--paused", "--running", "running (restored)"),
        ("resume", "", "--paused", "paused (migrating)"),
    ],
)
def test_who_says_whether_it_runs(
    bare: SessionHost, image: Path, before: str, save: str, restore: str, after: str
) -> None:
    if before == "suspend":
        bare.ok(f"suspend {BARE}")
    bare.ok(f"save {BARE} {image} {save}")
    bare.ok(f"restore {image} {restore}")
    assert state(bare, BARE) == after


def test_a_managed_image_and_how_to_start(bare: SessionHost) -> None:
    bare.ok(f"managedsave {BARE}")
    assert "managed save image exists" in refused(bare, f"undefine {BARE}")
    bare.ok(f"start {BARE} --paused")
    assert state(bare, BARE) == "paused (migrating)"
    bare.ok(f"managedsave {BARE}")
    bare.ok(f"start {BARE} --force-boot")
    assert state(bare, BARE) == "running (booted)"
    assert "does not have managed save image" in refused(bare, f"managedsave-dumpxml {BARE}")


def test_a_partial_managed_image_is_reported_and_the_guest_booted(bare: SessionHost) -> None:
    bare.ok(f"managedsave {BARE}")
    path = bare.path(f"config/libvirt/qemu/save/{BARE}.save")
    with path.open("r+b") as file:
        file.write(b"LibvirtQemudPart")
    assert "save image is incomplete" in refused(bare, f"managedsave-dumpxml {BARE}")
    bare.ok(f"start {BARE}")
    assert state(bare, BARE) == "running (booted)"
    assert not path.exists()


def test_a_foreign_managed_image_is_left_where_it_is(bare: SessionHost) -> None:
    bare.ok(f"destroy {BARE}")
    path = bare.path(f"config/libvirt/qemu/save/{BARE}.save")
    path.write_text("something else " * 20)
    assert "image magic is incorrect" in refused(bare, f"start {BARE}")
    assert state(bare, BARE).startswith("shut off")
    assert path.exists()


# --- documents --------------------------------------------------------------------------------------------------


def test_the_document_tells_secrets_only_when_asked(bare: SessionHost, image: Path) -> None:
    bare.ok(f"save {BARE} {image}")
    assert "geheim" not in bare.ok(f"save-image-dumpxml {image}")
    assert "geheim" in bare.ok(f"save-image-dumpxml {image} --security-info")


@pytest.mark.parametrize("bit", [2, 4, 8])
def test_the_document_has_flags_of_its_own(bare: SessionHost, image: Path, bit: int) -> None:
    bare.ok(f"managedsave {BARE}")
    code = (
        "dom = conn.lookupByName(sys.argv[1]); flags = int(sys.argv[3])\n"
        "calls = (lambda: conn.saveImageGetXMLDesc(sys.argv[2], flags), lambda: dom.managedSaveGetXMLDesc(flags))\n"
        "for call in calls:\n"
        "    try: call()\n"
        "    except libvirt.libvirtError as error: print(error.get_error_code(), error)\n"
    )
    path = bare.path(f"config/libvirt/qemu/save/{BARE}.save")
    first, second = bare.python(code, BARE, str(path), str(bit)).splitlines()
    assert first == f"8 unsupported flags (0x{bit:x}) in function qemuDomainSaveImageGetXMLDesc"
    assert second == f"8 unsupported flags (0x{bit:x}) in function qemuDomainManagedSaveGetXMLDesc"


def test_the_document_may_change_what_the_guest_does_not_see(bare: SessionHost, image: Path) -> None:
    bare.ok(f"save {BARE} {image}")
    document = bare.ok(f"save-image-dumpxml {image} --security-info")
    bigger = re.sub(r"<memory.*?</memory>", "<memory unit='MiB'>96</memory>", document)
    edited = bare.client_file("edited.xml", document.replace("<on_reboot>restart", "<on_reboot>destroy"))
    for command in (f"save-image-define {image} --xml", f"restore {image} --xml"):
        wrong = bare.client_file("bigger.xml", bigger)
        assert "Target domain max memory 98304 does not match source 65536" in refused(bare, f"{command} {wrong}")
    bare.ok(f"save-image-define {image} {edited} --paused")
    assert "<on_reboot>destroy" in bare.ok(f"save-image-dumpxml {image}")
    bare.ok(f"restore {image}")
    assert state(bare, BARE) == "paused (migrating)"
    assert "<on_reboot>destroy" in bare.ok(f"dumpxml {BARE}")
    assert "<on_reboot>restart" in bare.ok(f"dumpxml {BARE} --inactive")


def test_a_document_for_a_save_is_checked_and_the_guest_goes_on(bare: SessionHost, image: Path) -> None:
    image.unlink(missing_ok=True)
    document = bare.ok(f"dumpxml {BARE} --security-info")
    wrong = bare.client_file("wrong.xml", document.replace(f"<name>{BARE}</name>", "<name>other</name>"))
    said = refused(bare, f"save {BARE} {image} --xml {wrong}")
    assert "Target domain name 'other' does not match source 'bare'" in said
    assert state(bare, BARE) == "running (save canceled)"
    assert not image.exists()
    fine = bare.client_file("fine.xml", document.replace("<on_reboot>restart", "<on_reboot>destroy"))
    bare.ok(f"save {BARE} {image} --xml {fine}")
    assert "<on_reboot>destroy" in bare.ok(f"save-image-dumpxml {image}")


# --- jobs and events --------------------------------------------------------------------------------------------

WATCH = """
import threading, time
libvirt.virEventRegisterDefaultImpl()
threading.Thread(target=lambda: [libvirt.virEventRunDefaultImpl() for _ in iter(int, 1)], daemon=True).start()
conn = libvirt.open()
dom, seen = conn.lookupByName(sys.argv[1]), []
conn.domainEventRegisterAny(dom, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lambda c, d, e, i, o: seen.append((e, i)), None)
conn.domainEventRegisterAny(
    dom, libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, lambda c, d, p, o: seen.append(p['operation']), None)
dom.save(sys.argv[2])
first, second = dom.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED), \
    dom.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
assert first == second and first['type'] == libvirt.VIR_DOMAIN_JOB_COMPLETED, (first, second)
assert 0 < first['memory_processed'] and first['memory_remaining'] == 0 and first['time_elapsed'] > 0, first
assert dom.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED) == {'type': 0}
conn.restoreFlags(sys.argv[2], None, libvirt.VIR_DOMAIN_SAVE_PAUSED)
dom.resume()
time.sleep(0.3)
print(seen)
"""


def test_events_tell_of_saving_and_restoring(bare: SessionHost, image: Path) -> None:
    # Suspended, the job, stopped (saved); started (restored), suspended (restored), resumed.
    assert bare.python(WATCH, BARE, str(image)) == "[(3, 0), 2, (5, 4), (2, 2), (3, 4), (4, 0)]"


def test_no_job_is_told_of_where_there_is_none(bare: SessionHost) -> None:
    assert bare.ok(f"domjobinfo {BARE}").split() == ["Job", "type:", "None"]
    assert "no job is active on the domain" in refused(bare, f"domjobabort {BARE}")
    bare.ok(f"destroy {BARE}")
    assert "domain is not running" in refused(bare, f"domjobinfo {BARE}")
    assert "domain is not running" in refused(bare, f"save {BARE} /tmp/none.img")


def test_parameters_are_checked(bare: SessionHost, image: Path) -> None:
    code = (
        "dom = conn.lookupByName(sys.argv[1])\n"
        "for more in ({'image_format': 'rar'}, {'unknown': 'x'}):\n"
        "    try: dom.saveParams({'file': sys.argv[2], **more})\n"
        "    except libvirt.libvirtError as error: print(error)\n"
    )
    words = bare.python(code, BARE, str(image))
    assert "Invalid save image format specified" in words
    assert "parameter 'unknown' not supported" in words
    assert state(bare, BARE) == "running (booted)"
