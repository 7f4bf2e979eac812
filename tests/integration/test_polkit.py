"""polkit in earnest: the real bus, the real polkitd, virsh as somebody without rights."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.domains import bare_domain
from tests.support.polkit import PolkitHost
from tests.support.terminal import Terminal

pytestmark = pytest.mark.guest

# nobody gets in, and may see, look at, start and stop "mine", and know of the host. daemon is asked for a password,
# bin is turned away, games may do everything, mail may restore and save "mine".
RULES = """
polkit.addRule(function(action, subject) {
    if (action.id.indexOf("org.libvirt.") != 0)
        return polkit.Result.NOT_HANDLED;
    if (subject.user == "games")
        return polkit.Result.YES;
    if (action.id == "org.libvirt.unix.manage")
        return {
            nobody: polkit.Result.YES, mail: polkit.Result.YES, daemon: polkit.Result.AUTH_SELF, bin: polkit.Result.NO
        }[subject.user];
    if (subject.user == "nobody" && action.id.indexOf("org.libvirt.api.domain.") == 0) {
        var may = ["getattr", "read", "start", "stop"].indexOf(action.id.split(".").pop()) >= 0;
        if (action.lookup("connect_driver") == "QEMU" && action.lookup("domain_name") == "mine" && may)
            return polkit.Result.YES;
        return polkit.Result.NO;
    }
    if (subject.user == "mail" && action.id.match(/domain[.](start|write|hibernate)$/) &&
        action.lookup("domain_name") == "mine")
        return polkit.Result.YES;
});
"""
DENIED = "error: access denied: 'QEMU' denied access\n"
ERRORS = """
import os, sys, libvirt
libvirt.registerErrorHandler(lambda *_: None, None)
def tell(call, *args):
    try:
        print(call(*args))
    except libvirt.libvirtError as error:
        print(error.get_error_code(), error.get_error_domain(), error.get_error_message(), flush=True)
"""


@pytest.fixture(scope="module")
def polkit() -> Iterator[PolkitHost]:
    if reason := PolkitHost.missing():
        pytest.skip(reason)
    with PolkitHost(RULES, config='access_drivers = ["polkit"]\n') as made:
        made.start()
        for name in ("mine", "other"):
            made.define(bare_domain(name))
        yield made


def client(host: PolkitHost, code: str, user: str) -> "subprocess.Popen[str]":
    """A Python client of somebody's, with pipes."""
    argv = host.as_user(["/usr/bin/python3", "-c", ERRORS + code], user)
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=host.env)


def told(host: PolkitHost, code: str, user: str = "nobody") -> list[str]:
    """The lines that a Python client prints."""
    return client(host, code, user).communicate(timeout=60)[0].splitlines()


@contextlib.contextmanager
def agent(host: PolkitHost, pid: int, what: str) -> Iterator["subprocess.Popen[str]"]:
    """An authentication agent for a process."""
    script = str(Path(__file__).parents[1] / "support/polkit_agent.py")
    run = host.popen([sys.executable, script, str(pid), what])
    assert run.stdout is not None
    assert run.stdout.readline() == "ready\n"
    try:
        yield run
    finally:
        run.kill()
        run.communicate()


# --- to connect -----------------------------------------------------------------------------------------------------


def test_who_has_no_rule_and_no_agent_is_told_so(polkit: PolkitHost) -> None:
    done = polkit.virsh_as_user(["list"], user="daemon")
    words = "no polkit agent available to authenticate action 'org.libvirt.unix.manage'"
    assert done.stderr == f"error: failed to connect to the hypervisor\nerror: authentication unavailable: {words}\n"
    assert told(polkit, "tell(libvirt.open)", "daemon") == [f"94 60 authentication unavailable: {words}"]


def test_who_is_turned_away_by_a_rule_is_told_so(polkit: PolkitHost) -> None:
    assert told(polkit, "tell(libvirt.open)", "bin") == ["45 60 authentication failed: access denied by policy"]


def test_everybody_may_watch_by_the_read_only_socket(polkit: PolkitHost) -> None:
    assert polkit.virsh_as_user(["-r", "hostname"], user="bin").returncode == 0


@pytest.mark.parametrize("socket", ["libvirt-sock", "libvirt-sock-ro"])
def test_root_is_not_asked(polkit: PolkitHost, socket: str) -> None:
    assert polkit.ok(["-c", f"qemu+unix:///system?socket=/run/libvirt/{socket}", "hostname"])


WAITING = "print(os.getpid(), flush=True); sys.stdin.readline(); tell(libvirt.open)"


def test_who_declines_to_authenticate_has_cancelled(polkit: PolkitHost) -> None:
    run = client(polkit, WAITING, "daemon")
    assert run.stdout is not None
    with agent(polkit, int(run.stdout.readline()), "decline"):
        out = run.communicate("go\n", timeout=30)[0]
    assert out == "79 60 authentication cancelled: user cancelled authentication process\n"


def test_a_client_that_leaves_takes_its_question_back_and_keeps_nobody_waiting(polkit: PolkitHost) -> None:
    run = client(polkit, WAITING, "daemon")
    assert run.stdout is not None
    assert run.stdin is not None
    with agent(polkit, int(run.stdout.readline()), "wait") as asked:
        assert asked.stdout is not None
        run.stdin.write("go\n")
        run.stdin.flush()
        assert asked.stdout.readline() == "asked org.libvirt.unix.manage\n"
        assert polkit.virsh_as_user(["domstate", "mine"]).stdout == "shut off\n"
        run.kill()
        run.communicate()
        assert asked.stdout.readline() == "cancelled\n"


def test_a_polkitd_that_does_not_answer_holds_up_nobody_who_need_not_ask(polkit: PolkitHost) -> None:
    os.kill(polkit.polkitd_pid, signal.SIGSTOP)
    try:
        run = client(polkit, "tell(libvirt.open)", "games")
        time.sleep(0.3)
        begun = time.monotonic()
        assert "mine" in polkit.ok("list --all")
        assert time.monotonic() - begun < 5
        assert run.poll() is None
    finally:
        os.kill(polkit.polkitd_pid, signal.SIGCONT)
    assert "virConnect" in run.communicate(timeout=30)[0]


# --- each call ------------------------------------------------------------------------------------------------------


def test_the_one_domain_is_listed_started_and_stopped(polkit: PolkitHost) -> None:
    for words, answer in {
        ("list", "--all", "--name"): "mine",
        ("start", "mine"): "",
        ("domstate", "mine"): "running",
        ("destroy", "mine"): "",
    }.items():
        done = polkit.virsh_as_user(words)
        assert (done.returncode, done.stderr, done.stdout.strip()) == (0, "", answer), words


@pytest.mark.parametrize(
    "words",
    [
        "suspend mine",
        "undefine mine",
        "dumpxml mine --security-info",
        "setmem mine 32768",
        "autostart mine",
        "reset mine",
        "define {xml}",
        "create {xml}",
        "qemu-monitor-command mine --hmp info",
    ],
)
def test_the_rest_is_denied(polkit: PolkitHost, words: str) -> None:
    xml = polkit.client_file("new.xml", bare_domain("mine"))
    done = polkit.virsh_as_user(words.format(xml=xml).split())
    assert done.returncode == 1
    assert done.stderr.endswith(DENIED)


def test_nothing_tells_a_hidden_domain_from_none(polkit: PolkitHost) -> None:
    code = """
c = libvirt.open()
for name in ("other", "none"):
    tell(c.lookupByName, name)
tell(c.lookupByUUIDString, sys.stdin.readline().strip())
tell(c.lookupByUUIDString, "00000000-0000-0000-0000-000000000001")
tell(c.lookupByID, 4711)
"""
    run = client(polkit, code, "nobody")
    out = run.communicate(polkit.ok("domuuid other"), timeout=30)[0]
    assert out.splitlines() == ["88 55 access denied: 'QEMU' denied access"] * 5


@pytest.fixture(scope="module")
def images(polkit: PolkitHost) -> dict[str, str]:
    """Save images of both domains, and files that are none; by what they are."""
    found = {"none": "/var/tmp/no-such-image", "device": "/dev/null", "folder": "/var/tmp"}
    for name in ("mine", "other"):
        found[name] = str(polkit.path(f"/var/lib/libvirt/{name}.img"))
        polkit.ok(f"start {name}")
        polkit.ok(f"save {name} {found[name]}")
    found["rubbish"] = str(polkit.write("/var/lib/libvirt/rubbish.img", "rubbish" * 100))
    return found


FILES_ALONE = """
import sys
c = libvirt.open()
file, xml = sys.stdin.read().split("\\n", 1)
tell(c.saveImageGetXMLDesc, file)
tell(c.saveImageDefineXML, file, xml)
tell(c.restoreFlags, file, xml or None)
tell(c.restoreParams, {"file": file, "dxml": xml})
tell(c.restore, file)
"""


@pytest.mark.parametrize("what", ["other", "none", "device", "folder", "rubbish"])
def test_nothing_tells_the_image_of_a_hidden_domain_from_any_other_file(
    polkit: PolkitHost, images: dict[str, str], what: str
) -> None:
    run = client(polkit, FILES_ALONE, "mail")
    out = run.communicate(f"{images[what]}\n{bare_domain('mine')}", timeout=30)[0]
    assert out.splitlines() == ["88 55 access denied: 'QEMU' denied access"] * 5


def test_the_image_of_the_one_domain_is_read_changed_and_restored(polkit: PolkitHost, images: dict[str, str]) -> None:
    shown = polkit.virsh_as_user(["save-image-dumpxml", images["mine"]], user="mail")
    assert "<name>mine</name>" in shown.stdout
    changed = polkit.client_file("changed.xml", shown.stdout.replace("</name>", "</name><title>changed</title>", 1))
    for words in (["save-image-define", images["mine"], str(changed)], ["restore", images["mine"]]):
        done = polkit.virsh_as_user(words, user="mail")
        assert (done.returncode, done.stderr) == (0, ""), words
    assert polkit.ok("domstate mine") == "running"
    assert polkit.ok("desc mine --title") == "changed"
    polkit.ok("destroy mine")


def test_the_image_of_the_one_domain_starts_no_other_one(polkit: PolkitHost, images: dict[str, str]) -> None:
    xml = polkit.client_file("foreign.xml", bare_domain("other"))
    done = polkit.virsh_as_user(["restore", images["mine"], "--xml", str(xml)], user="mail")
    assert "Target domain name 'other' does not match source 'mine'" in done.stderr


def test_who_may_restore_everything_is_told_what_a_file_is(polkit: PolkitHost, images: dict[str, str]) -> None:
    for what, words in {
        "none": "Failed to open file '/var/tmp/no-such-image': No such file or directory",
        "device": "'/dev/null' is no file that could be a save image",
        "rubbish": "image magic is incorrect",
    }.items():
        done = polkit.virsh_as_user(["restore", images[what]], user="games")
        assert words in done.stderr


def test_statistics_and_events_are_of_the_one_domain(polkit: PolkitHost) -> None:
    stats = polkit.virsh_as_user(["domstats", "--state"]).stdout
    assert "'mine'" in stats
    assert "other" not in stats
    argv = polkit.as_user(["virsh", "event", "--all", "--loop"])
    watch = Terminal(argv, env=polkit.env)
    with watch:
        time.sleep(0.5)
        for command in ("start other", "destroy other", "start mine", "destroy mine"):
            polkit.ok(command)
        seen = watch.expect("Stopped Destroyed")
    assert "'lifecycle' for domain 'mine': Started Booted" in seen
    assert "other" not in seen


def test_new_rules_count_as_soon_as_polkit_reads_them(polkit: PolkitHost) -> None:
    code = """
import time
c = libvirt.open()
print([d.name() for d in c.listAllDomains()], flush=True)
end = time.monotonic() + 20
while time.monotonic() < end and len(c.listAllDomains()) != 2:
    time.sleep(0.05)
print([d.name() for d in c.listAllDomains()])
"""
    run = client(polkit, code, "nobody")
    assert run.stdout is not None
    assert run.stdout.readline() == "['mine']\n"
    polkit.set_rules(RULES.replace("polkit.Result.NO;", "polkit.Result.YES;"))
    try:
        assert set(eval(run.communicate(timeout=30)[0])) == {"mine", "other"}
    finally:
        polkit.set_rules(RULES)
        time.sleep(2)
