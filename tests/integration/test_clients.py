"""Programs other than virsh that people manage guests with: virt-install and Perl's Sys::Virt."""

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.guest import Guest
from tests.support.domains import ADDRESS, bare_domain
from tests.support.host import SessionHost

pytestmark = pytest.mark.guest


@pytest.fixture
def host() -> Iterator[SessionHost]:
    with SessionHost() as made:
        yield made.start()


def test_virt_install_brings_up_a_guest(host: SessionHost, guest: Guest) -> None:
    if not shutil.which("virt-install"):
        pytest.skip("virt-install is not installed")
    guest = host.adopt(guest)
    boot = f"kernel={guest.kernel},initrd={guest.initrd},kernel_args='{guest.cmdline}'"
    options = (
        "--name made --memory 128 --vcpus 1 --virt-type qemu --import --disk none --network user,model=virtio "
        "--graphics none --noautoconsole --osinfo detect=on,require=off"
    )
    done = host.run(["virt-install", "--connect", host.uri, *options.split(), "--boot", boot], timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    with host.terminal("console made --force") as console:
        console.prompt(timeout=60)
        # User networking: QEMU's own DHCP server answers with the first address of its range.
        assert "10.0.2.15" in console.command(ADDRESS)


SYS_VIRT = """
use Sys::Virt;
my $conn = Sys::Virt->new(uri => $ENV{LIBVIRT_DEFAULT_URI});
my ($dom) = grep { $_->get_name eq "perl" } $conn->list_all_domains();
$dom->create(Sys::Virt::Domain::START_PAUSED);
print join(" ", map { $_->get_name } $conn->list_domains()), "\\n";
$dom->resume();
print $dom->get_info()->{state} == Sys::Virt::Domain::STATE_RUNNING ? "running\\n" : "not running\\n";
$dom->destroy();
print $dom->is_active() ? "active\\n" : "inactive\\n";
"""


def test_sys_virt_lists_and_controls_a_guest(host: SessionHost) -> None:
    if subprocess.run(["perl", "-MSys::Virt", "-e1"], capture_output=True, check=False).returncode != 0:
        pytest.skip("Sys::Virt (libsys-virt-perl) is not installed")
    host.define(bare_domain("perl"))
    done = host.run(["perl", "-e", SYS_VIRT])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:3] == ["perl", "running", "inactive"]
    host.ok("undefine perl")
