"""Unmodified virsh on the in-memory driver: definitions, life cycle, lists, metadata, events.

What is expected is what libvirt's own test driver answers; the last test asks both daemons, where libvirtd is there.
"""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.support.host import LIBVIRTD, Host, SessionHost, SystemHost

UUID = "aaaaaaaa-0000-4000-8000-00000000000{}"
DOMAIN = """<domain type='test'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <title>{title}</title>
  <memory unit='MiB'>64</memory>
  <currentMemory unit='MiB'>32</currentMemory>
  <vcpu>3</vcpu>
  <os><type>hvm</type></os>
</domain>
"""


class Virsh:
    """virsh, connected to the test driver of a host's daemon."""

    def __init__(self, host: Host, socket: str) -> None:
        self.host = host
        self.uri = f"test+unix:///default?socket={socket}"

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.host.virsh(["-c", self.uri, *words])

    def ok(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def fails(self, *words: str) -> str:
        """The last line of the errors of a command that must fail."""
        done = self.run(*words)
        assert done.returncode != 0, done.stdout
        return done.stderr.strip().splitlines()[-1].removeprefix("error: ")

    def define(self, name: str, number: int, title: str = "a title") -> None:
        text = DOMAIN.format(name=name, uuid=UUID.format(number), title=title)
        self.ok("define", str(self.host.client_file(f"{name}.xml", text)))

    def names(self, *filters: str) -> list[str]:
        return self.ok("list", "--name", *filters).split()


@pytest.fixture(scope="module")
def virsh(session: SessionHost) -> Virsh:
    return Virsh(session, str(session.socket))


@pytest.fixture
def alpha(virsh: Virsh) -> Iterator[str]:
    """A defined domain, gone afterwards."""
    virsh.define("alpha", 1)
    yield "alpha"
    for _ in range(2):
        for name in ("alpha", "omega"):
            virsh.run("destroy", name)
            virsh.run("undefine", name)


def test_one_domain_runs_from_the_start(virsh: Virsh) -> None:
    assert virsh.ok("list", "--all").split() == ["1", "test", "running"]
    assert virsh.ok("domstate", "test", "--reason") == "running (unknown)"
    assert virsh.ok("domuuid", "test") == "6695eb01-f6a4-8304-79aa-97f2502e193f"


def test_a_defined_domain_is_listed_shown_and_undefined(virsh: Virsh, alpha: str) -> None:
    assert virsh.ok("list", "--all", "--title").splitlines()[1].split(maxsplit=3) == [
        "-",
        alpha,
        "shut",
        "off   a title",
    ]
    info = dict(line.split(":", 1) for line in virsh.ok("dominfo", alpha).splitlines())
    found = {key: info[key].strip() for key in ("Id", "State", "CPU(s)", "Max memory", "Used memory", "Persistent")}
    assert found == {
        "Id": "-",
        "State": "shut off",
        "CPU(s)": "3",
        "Max memory": "65536 KiB",
        "Used memory": "32768 KiB",
        "Persistent": "yes",
    }
    virsh.ok("undefine", alpha)
    assert virsh.names("--all") == ["test"]
    assert virsh.fails("undefine", alpha) == f"failed to get domain '{alpha}'"


def test_a_definition_is_printed_in_full(virsh: Virsh, alpha: str) -> None:
    assert virsh.ok("dumpxml", alpha).splitlines() == [
        "<domain type='test'>",
        "  <name>alpha</name>",
        "  <uuid>aaaaaaaa-0000-4000-8000-000000000001</uuid>",
        "  <title>a title</title>",
        "  <memory unit='KiB'>65536</memory>",
        "  <currentMemory unit='KiB'>32768</currentMemory>",
        "  <vcpu placement='static'>3</vcpu>",
        "  <os>",
        "    <type arch='i686'>hvm</type>",
        "    <boot dev='hd'/>",
        "  </os>",
        "  <clock offset='utc'/>",
        "  <on_poweroff>destroy</on_poweroff>",
        "  <on_reboot>restart</on_reboot>",
        "  <on_crash>destroy</on_crash>",
        "  <devices>",
        "  </devices>",
        "</domain>",
    ]


def test_a_second_definition_replaces_the_first(virsh: Virsh, alpha: str) -> None:
    virsh.define(alpha, 1, "another title")
    assert virsh.ok("desc", "--title", alpha) == "another title"
    assert virsh.names("--all") == ["test", alpha]


def test_names_and_uuids_are_taken_once(virsh: Virsh, alpha: str) -> None:
    host = virsh.host
    other_name = host.client_file("n.xml", DOMAIN.format(name="gamma", uuid=UUID.format(1), title="t"))
    other_uuid = host.client_file("u.xml", DOMAIN.format(name=alpha, uuid=UUID.format(9), title="t"))
    uuid = UUID.format(1)
    assert (
        virsh.fails("define", str(other_name))
        == f"operation failed: domain 'alpha' is already defined with uuid {uuid}"
    )
    assert virsh.fails("define", str(other_uuid)) == f"operation failed: domain 'alpha' already exists with uuid {uuid}"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("<domain", "Couldn't find end of Start Tag domain"),
        ("<domain type='test'><name>q</name></domain>", "XML error: an os <type> must be specified"),
        ("<domain type='foo'><name>q</name></domain>", "unsupported configuration: invalid domain type foo"),
        (DOMAIN.format(name="a/b", uuid=UUID.format(7), title=""), "XML error: name a/b cannot contain '/'"),
        (DOMAIN.format(name="q", uuid="zz", title=""), "internal error: malformed uuid element"),
    ],
)
def test_bad_documents_are_refused(virsh: Virsh, text: str, error: str) -> None:
    done = virsh.run("define", str(virsh.host.client_file("bad.xml", text)))
    assert done.returncode == 1
    assert error in done.stderr
    assert virsh.names("--all") == ["test"]


def test_the_life_of_a_domain(virsh: Virsh, alpha: str) -> None:
    state = ("domstate", alpha, "--reason")
    virsh.ok("start", alpha)
    assert virsh.ok(*state) == "running (booted)"
    assert virsh.fails("start", alpha) == "Domain is already active"
    virsh.ok("suspend", alpha)
    assert virsh.ok(*state) == "paused (user)"
    assert virsh.fails("suspend", alpha) == "internal error: domain 'alpha' not running"
    virsh.ok("resume", alpha)
    assert virsh.ok(*state) == "running (unpaused)"
    assert virsh.fails("resume", alpha) == "internal error: domain 'alpha' not paused"
    virsh.ok("reboot", alpha)
    assert virsh.ok(*state) == "running (booted)"
    virsh.ok("shutdown", alpha)
    assert virsh.ok(*state) == "shut off (shutdown)"
    assert virsh.fails("shutdown", alpha) == "internal error: domain 'alpha' not running"
    assert virsh.fails("destroy", alpha) == "Requested operation is not valid: domain is not running"
    virsh.ok("start", alpha, "--paused")
    assert virsh.ok(*state) == "paused (user)"
    virsh.ok("destroy", alpha)
    assert virsh.ok(*state) == "shut off (destroyed)"


def test_each_start_gets_a_new_id(virsh: Virsh, alpha: str) -> None:
    ids = []
    for _ in range(2):
        virsh.ok("start", alpha)
        ids.append(int(virsh.ok("domid", alpha)))
        assert virsh.ok("domname", str(ids[-1])) == alpha
        virsh.ok("destroy", alpha)
    assert 1 < ids[0] < ids[1]
    assert virsh.ok("domid", alpha) == "-"


def test_a_running_domain_outlives_its_definition(virsh: Virsh, alpha: str) -> None:
    virsh.ok("start", alpha)
    virsh.ok("undefine", alpha)
    assert virsh.names("--transient") == [alpha]
    virsh.define(alpha, 1)
    assert virsh.names("--transient") == []
    virsh.ok("undefine", alpha)
    virsh.ok("destroy", alpha)
    assert virsh.names("--all") == ["test"]


def test_a_created_domain_is_transient(virsh: Virsh) -> None:
    text = virsh.host.client_file("trans.xml", DOMAIN.format(name="trans", uuid=UUID.format(3), title="t"))
    virsh.ok("create", str(text))
    try:
        assert virsh.names("--transient") == ["trans"]
        error = "Requested operation is not valid: domain 'trans' is already active"
        assert virsh.fails("create", str(text)) == error
        error = "Requested operation is not valid: transient domains do not have any persistent config"
        assert virsh.fails("desc", "trans", "--config", "--new-desc", "x") == error
    finally:
        virsh.ok("destroy", "trans")
    assert virsh.names("--all") == ["test"]


def test_a_domain_is_renamed_when_off(virsh: Virsh, alpha: str) -> None:
    virsh.ok("domrename", alpha, "omega")
    assert virsh.names("--all") == ["test", "omega"]
    assert virsh.ok("domuuid", "omega") == UUID.format(1)
    start = "Requested operation is not valid: "
    assert virsh.fails("domrename", "omega", "test") == f"{start}domain with name 'test' already exists"
    assert virsh.fails("domrename", "omega", "omega") == f"{start}Can't rename domain to itself"
    assert virsh.fails("domrename", "omega", "a/b") == "XML error: name a/b cannot contain '/'"
    assert virsh.fails("domrename", "test", "else") == f"{start}cannot rename active domain"


def test_autostart_is_kept_and_listed(virsh: Virsh, alpha: str) -> None:
    virsh.ok("autostart", alpha)
    assert virsh.names("--all", "--autostart") == [alpha]
    assert virsh.names("--all", "--no-autostart") == ["test"]
    virsh.ok("autostart", "--disable", alpha)
    assert virsh.names("--all", "--autostart") == []


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        (["--all"], ["test", "alpha"]),
        ([], ["test"]),
        (["--inactive"], ["alpha"]),
        (["--state-running"], ["test"]),
        (["--state-shutoff"], ["alpha"]),
        (["--state-paused"], []),
        (["--state-other"], []),
        (["--all", "--state-running", "--state-shutoff"], ["test", "alpha"]),
        (["--all", "--persistent"], ["test", "alpha"]),
        (["--all", "--transient"], []),
        (["--all", "--with-snapshot"], []),
        (["--all", "--without-snapshot"], ["test", "alpha"]),
        (["--all", "--with-managed-save"], []),
        (["--all", "--without-managed-save"], ["test", "alpha"]),
        (["--all", "--with-checkpoint"], []),
    ],
    ids=lambda value: " ".join(value) or "-",
)
def test_lists_are_filtered(virsh: Virsh, alpha: str, filters: list[str], wanted: list[str]) -> None:
    assert virsh.names(*filters) == wanted


def test_title_and_description_are_changed_where_asked(virsh: Virsh, alpha: str) -> None:
    virsh.ok("desc", alpha, "--new-desc", "line 1\nline <2>")
    assert virsh.ok("desc", alpha) == "line 1\nline <2>"
    virsh.ok("desc", alpha, "--title", "--new-desc", "new")
    assert virsh.ok("desc", alpha, "--title") == "new"
    assert virsh.fails("desc", alpha, "--title", "--new-desc", "a\nb") == "metadata title can't contain newlines"
    virsh.ok("start", alpha)
    virsh.ok("desc", alpha, "--live", "--new-desc", "only now")
    assert virsh.ok("desc", alpha) == "only now"
    assert virsh.ok("desc", alpha, "--config") == "line 1\nline <2>"
    virsh.ok("destroy", alpha)
    assert virsh.ok("desc", alpha) == "line 1\nline <2>"
    error = "Requested operation is not valid: domain is not running"
    assert virsh.fails("desc", alpha, "--live", "--new-desc", "x") == error


def test_metadata_of_a_namespace_is_set_got_and_removed(virsh: Virsh, alpha: str) -> None:
    about = ("metadata", alpha, "--uri", "http://example.org/ns")
    missing = "metadata not found: Requested metadata element is not present"
    assert virsh.fails(*about) == missing
    virsh.ok(*about, "--key", "k", "--set", "<m a='1'><n/><o/></m>")
    assert virsh.ok(*about).splitlines() == ['<m a="1">', "  <n/>", "  <o/>", "</m>"]
    printed = virsh.ok("dumpxml", alpha)
    assert '<k:m xmlns:k="http://example.org/ns" a="1">\n      <k:n/>\n      <k:o/>\n    </k:m>' in printed
    virsh.ok(*about, "--key", "k", "--set", "<other/>")
    assert virsh.ok(*about) == "<other/>"
    virsh.ok(*about, "--remove")
    assert virsh.fails(*about) == missing
    wrong = "internal error: failed to validate prefix for a new XML namespace"
    assert virsh.fails(*about, "--key", "1k", "--set", "<x/>") == wrong


def test_what_there_is_not_is_named(virsh: Virsh) -> None:
    words = "this function is not supported by the connection driver"
    assert virsh.fails("managedsave", "test") == f"{words}: virDomainManagedSave"
    assert virsh.fails("net-list") == f"{words}: virConnectNumOfNetworks"
    assert virsh.fails("domstate", "nobody") == "failed to get domain 'nobody'"


def test_another_client_sees_what_happens(virsh: Virsh, alpha: str) -> None:
    listener = virsh.host.popen(["stdbuf", "-oL", "virsh", "-q", "-c", virsh.uri, "event", "--all", "--loop"])
    try:
        # virsh says nothing once it is registered: make events until it hears one.
        assert listener.stdout is not None
        for _ in range(100):
            virsh.ok("desc", "test", "--live", "--new-desc", "hello")
            time.sleep(0.05)
            if _heard(listener):
                break
        virsh.define(alpha, 1, "changed")
        virsh.ok("start", alpha)
        virsh.ok("suspend", alpha)
        virsh.ok("resume", alpha)
        virsh.ok("shutdown", alpha)
        virsh.ok("undefine", alpha)
        lines = []
        while "Undefined" not in (line := listener.stdout.readline()):
            assert line, "virsh ended"
            lines.append(line)
        lines.append(line)
    finally:
        listener.terminate()
        listener.wait()
        listener.stdout.close()
        if listener.stdin:
            listener.stdin.close()
    found = [line.strip() for line in lines if "lifecycle" in line]
    start = "event 'lifecycle' for domain 'alpha': "
    assert found == [
        f"{start}Defined Updated",
        f"{start}Started Booted",
        f"{start}Suspended Paused",
        f"{start}Resumed Unpaused",
        f"{start}Stopped Shutdown",
        f"{start}Undefined Removed",
    ]
    assert any(re.search(r"event 'metadata-change' for domain 'test': type description", line) for line in lines)


def _heard(listener: "subprocess.Popen[str]") -> bool:
    import select

    return bool(select.select([listener.stdout], [], [], 0)[0])


def test_autodestroyed_domains_end_with_the_session(virsh: Virsh, alpha: str) -> None:
    virsh.ok(f"start {alpha} --autodestroy; list")
    deadline = time.monotonic() + 5
    while virsh.names("--inactive") != [alpha]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- beside libvirtd --------------------------------------------------------------------------------------------------

# One process and connection: libvirtd's test driver forgets all with the last connection.
SCRIPT = """
list --all; domstate test --reason; domuuid test; domid nobody; domname 99
define {a}; define {b}; list --all --title; list --inactive --name; list --all --uuid
autostart alpha; list --all --autostart; autostart alpha --disable; list --all --no-autostart
desc alpha; desc alpha --new-desc words; desc alpha; desc alpha --title; desc test --live --new-desc x
desc test --config
metadata alpha --uri http://a/b --key k --set '<m><n/></m>'; metadata alpha --uri http://a/b; dumpxml alpha
metadata alpha --uri http://a/b --remove; metadata alpha --uri http://a/b
start alpha; start alpha; domstate alpha --reason; suspend alpha; suspend alpha; domstate alpha --reason
list --state-paused; resume alpha; resume alpha; domstate alpha --reason; reboot alpha; shutdown alpha; shutdown alpha
domstate alpha --reason; destroy alpha; suspend alpha; reboot alpha
domrename alpha omega; domrename omega beta; domrename omega omega; domrename test xx; domrename omega a/b; list --all
undefine omega --managed-save; undefine nobody; undefine beta; list --all; vcpucount nobody; managedsave-remove nobody
create {b}; create {b}; list --transient; define {b}; undefine beta; list --transient; destroy beta; list --all
dumpxml nobody; nodeinfo; maxvcpus
"""


@pytest.mark.skipif(not shutil.which(LIBVIRTD), reason="libvirtd is not installed")
def test_both_daemons_answer_alike() -> None:
    if reason := SystemHost.missing():
        pytest.skip(reason)
    answers = []
    for daemon in ("libvirtd", "pyvirtd"):
        with SystemHost(daemon) as host:
            host.start()
            made = {"a": DOMAIN.format(name="alpha", uuid=UUID.format(1), title="a title")}
            made["b"] = DOMAIN.format(name="beta", uuid=UUID.format(2), title="")
            files = {name: str(host.client_file(f"{name}.xml", text)) for name, text in made.items()}
            uri = "test+unix:///default?socket=/run/libvirt/libvirt-sock"
            told = []
            for line in SCRIPT.format(**files).strip().splitlines():
                for command in line.split("; "):
                    told.append(f"echo '== {command.replace(chr(39), '')}'; {command}")
            script = "; ".join(told).replace(str(host.folder), "FOLDER")
            script = script.replace("FOLDER", str(host.folder))
            done = host.run(["sh", "-c", 'virsh -q -c "$0" "$1" 2>&1', uri, script])
            answers.append(done.stdout.replace(str(host.folder), "FOLDER").splitlines())
    assert answers[1] == answers[0]
