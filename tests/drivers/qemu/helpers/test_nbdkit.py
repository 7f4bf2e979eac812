"""ssh disks that nbdkit serves to QEMU: its options, and a real guest on an image that a real sshd has."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pyvirtd.config.qemu import QemuConfig
from pyvirtd.drivers.qemu.command.block import number_nodes
from pyvirtd.drivers.qemu.command.context import Context
from pyvirtd.drivers.qemu.command.secrets import SecretUse
from pyvirtd.drivers.qemu.helpers import Run, helpers_of
from pyvirtd.drivers.qemu.helpers.nbdkit import Nbdkit, arguments, served
from pyvirtd.errors import NoSecret
from pyvirtd.model.domain import DomainDef
from pyvirtd.paths import Paths
from tests.drivers.qemu.command_lines import words
from tests.drivers.qemu.definitions import checked, document, emulator
from tests.guest import Guest
from tests.support.domains import bare_domain, tiny_domain
from tests.support.host import SystemHost
from tests.support.ssh import PORT, SSHD, Ssh

IMAGE = "/var/lib/libvirt/far/image"
WORDS = b"from far away"
KEY = "<identity username='u' keyfile='/keys/100%'/>"
BELOW = (
    "<backingStore type='network'><format type='raw'/><source protocol='ssh' name='/b'><host name='h'/>"
    "<knownHosts path='/k'/></source><backingStore/></backingStore>"
)


def disk(more: str, *, path: str = "/i", kind: str = "raw", end: str = "") -> str:
    return (
        f"<disk type='network'><driver name='qemu' type='{kind}'/><source protocol='ssh' name='{path}'>"
        f"<host name='127.0.0.1' port='{PORT}'/>{more}</source>{end}<target dev='vda' bus='virtio'/></disk>"
    )


def live(devices: str) -> DomainDef:
    made = checked(document(devices))
    number_nodes(made)
    return made


def test_what_the_source_says_becomes_options() -> None:
    (image,) = served(live(disk("<knownHosts path='/k'/>" + KEY, end="<readonly/>")))
    assert arguments(image, "/s", "/p") == [
        "--foreground",
        "--unix",
        "/s",
        "--readonly",
        "ssh",
        "host=127.0.0.1",
        f"port={PORT}",
        "path=/i",
        "user=u",
        "password=+/p",
        "identity=/keys/100%%",
        "known-hosts=/k",
    ]


def test_each_layer_has_one_and_only_the_top_is_written() -> None:
    found = list(served(live(disk(KEY, kind="qcow2", end=BELOW))))
    assert [(one.source.name, one.readonly) for one in found] == [("/i", False), ("/b", True)]
    assert len({one.node for one in found}) == 2


def test_qemu_connects_to_the_socket() -> None:
    (image,) = served(made := live(disk(KEY)))
    node = words(made).nodes[f"{image.node}-storage"]
    assert node["driver"] == "nbd"
    assert node["server"]["type"] == "unix"
    assert node["server"]["path"].endswith(f"/nbdkit-{image.node}-storage.socket")
    assert "user" not in node


def test_qemu_goes_to_a_server_itself_that_needs_no_keys() -> None:
    made = live(disk("<identity username='u'/>"))
    assert not list(served(made))
    assert words(made).nodes["libvirt-1-storage"]["driver"] == "ssh"


def test_password_is_looked_up_and_no_option() -> None:
    auth = "<auth username='me'><secret type='iscsi' usage='far'/></auth>"
    run = Run(live(disk(auth)), 1, Paths.system().qemu, QemuConfig(), None)
    (helper,) = helpers_of(run)
    assert isinstance(helper, Nbdkit)
    context = Context(emulator("x86_64"), run.paths, run.config, True, 1, run.name)
    with pytest.raises(NoSecret):
        helper.open(context, ExitStack())
    context.secrets = {SecretUse("iscsi", None, "far"): b"hush"}
    helper.open(context, ExitStack())
    assert helper.password == b"hush"
    assert "hush" not in " ".join(arguments(helper.served, "/s", "/p"))


# --- a real sshd, nbdkit and QEMU -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def host() -> Iterator[SystemHost]:
    """A system daemon, with control groups where there can be some."""
    if reason := SystemHost.missing():
        pytest.skip(reason)
    with SystemHost(cgroups=not SystemHost.missing_cgroups()) as made:
        yield made.start()


@pytest.fixture(scope="module")
def ssh(host: SystemHost) -> Iterator[Ssh]:
    """A server with a raw image and a qcow2 one, and keys for the guests' user."""
    for program, package in ((SSHD, "openssh-server"), ("nbdkit", "nbdkit")):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed (package {package})")
    made = Ssh(host)
    user = pwd.getpwnam(host.qemu_user)
    shutil.copy(made.folder / "user_key", made.folder / "guest_key")
    os.chown(made.folder / "guest_key", user.pw_uid, user.pw_gid)
    kind, key = (made.folder / "host_key.pub").read_text().split()[:2]
    (made.folder / "known").write_text(f"[127.0.0.1]:{PORT} {kind} {key}\n")
    wrong = (made.folder / "user_key.pub").read_text().split()[1]
    (made.folder / "other").write_text(f"[127.0.0.1]:{PORT} {kind} {wrong}\n")
    raw = host.write(IMAGE, WORDS.ljust(1 << 20, b"\0"))
    raw.chmod(0o600)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, f"{raw}.qcow2"], check=True)
    made.serve(made.path)
    yield made
    made.end()


def keys(ssh: Ssh, *, known: str = "known", key: str = "guest_key") -> str:
    identity = f"<identity username='root' keyfile='{ssh.folder}/{key}'/>"
    return f"<knownHosts path='{ssh.folder}/{known}'/>{identity}"


def serving(host: SystemHost, name: str) -> list[int]:
    """The nbdkit processes of a domain, by their pid files."""
    found = host.path("/run/libvirt/qemu").glob(f"*-{name}-nbdkit-*.pid")
    pids = [int(path.read_text()) for path in found]
    return [pid for pid in pids if Path(f"/proc/{pid}/comm").exists()]


def eventually(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.guest
def test_guest_reads_and_writes_the_image(host: SystemHost, guest: Guest, ssh: Ssh) -> None:
    host.define(tiny_domain(host.adopt(guest), devices=disk(keys(ssh), path=IMAGE)))
    host.ok("start tiny")
    (pid,) = serving(host, "tiny")
    try:
        with host.terminal("console tiny") as console:
            console.expect("tiny# ")
            assert console.command("head -c 13 /dev/vda") == WORDS.decode()
            groups = Path(f"/proc/{pid}/cgroup").read_text()
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: serving(host, "tiny") not in ([], [pid]))
            (pid,) = serving(host, "tiny")
            eventually(lambda: Path(f"/proc/{pid}/cgroup").read_text() == groups)
            console.command("echo written | dd of=/dev/vda bs=512 seek=1 conv=fsync 2>/dev/null")
        assert host.path(IMAGE).read_bytes()[512:519] == b"written"
        assert os.stat(f"/proc/{pid}").st_uid == pwd.getpwnam(host.qemu_user).pw_uid
        host.kill()
        os.kill(pid, signal.SIGKILL)
        host.start()
        assert host.ok("domstate tiny") == "running"
        eventually(lambda: serving(host, "tiny") not in ([], [pid]))
    finally:
        host.ok("destroy tiny")
    assert serving(host, "tiny") == []
    assert not list(host.path("/run/libvirt/qemu").glob("*nbdkit*"))
    host.ok("undefine tiny")


def test_qcow2_image_is_read_with_its_size_and_by_an_agent(host: SystemHost, ssh: Ssh) -> None:
    socket = ssh.folder / "agent.sock"
    user = pwd.getpwnam(host.qemu_user)
    demote = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]
    ssh.folder.chmod(0o777)
    agent = subprocess.Popen([*demote, "ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        eventually(socket.exists)
        environment = {**os.environ, "SSH_AUTH_SOCK": str(socket)}
        subprocess.run([*demote, "ssh-add", "-q", ssh.folder / "guest_key"], env=environment, check=True)
        by_agent = f"<knownHosts path='{ssh.folder}/known'/><identity username='root' agentsock='{socket}'/>"
        host.define(bare_domain("far", devices=disk(by_agent, path=f"{IMAGE}.qcow2", kind="qcow2")))
        host.ok("start far --paused")
        assert "1048576" in host.ok("domblkinfo far vda")
        host.ok("destroy far")
        host.ok("undefine far")
    finally:
        agent.terminate()
        agent.wait(10)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ({"known": "other"}, "host key"),
        ({"key": "nosuch"}, "authentication"),
        ({}, "No such file"),
    ],
)
def test_image_that_cannot_be_had_is_said_with_the_reason(
    host: SystemHost, ssh: Ssh, source: dict[str, str], why: str
) -> None:
    path = IMAGE if source else f"{IMAGE}.nosuch"
    host.define(bare_domain("far", devices=disk(keys(ssh, **source), path=path)))
    said = host.virsh("start far").stderr
    assert f"Failed to connect to nbdkit for '{path}'" in said
    assert why in said
    assert serving(host, "far") == []
    host.ok("undefine far")
