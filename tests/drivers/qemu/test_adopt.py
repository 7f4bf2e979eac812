"""What a daemon that comes back finds beside the guests: notes of runs that are over."""

import pytest

from tests.support.domains import bare_domain
from tests.support.host import SystemHost


@pytest.mark.guest
def test_notes_of_devices_are_read_once_their_run_is_over(host: SystemHost) -> None:
    """Of a name that runs, the older run's; nothing of a guest whose status nobody can read."""
    host.define(bare_domain("bare"))
    host.ok("start bare --paused")
    number = int(host.ok("domid bare"))
    run = "/run/libvirt/qemu"
    host.kill()
    nothing_to_do = "0000:06:12.5\n"
    over = [host.write(f"{run}/{short}.pci", nothing_to_do) for short in ("7-gone", f"{number + 1}-bare")]
    over.append(host.write(f"{run}/7-gone.functions", ""))
    kept = [host.write(f"{run}/{short}.pci", nothing_to_do) for short in (f"{number}-bare", "7-broken")]
    broken = host.write(f"{run}/broken.xml", "<domstatus")
    host.start()
    assert not any(path.exists() for path in over)
    assert all(path.exists() for path in kept)
    assert host.ok("domstate bare") == "paused"
    broken.unlink()
    kept[1].unlink()
    host.ok("destroy bare")
    host.ok("undefine bare")
