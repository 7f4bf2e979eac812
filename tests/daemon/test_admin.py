"""The admin socket, by the real virt-admin."""

import re
import shutil
import stat
from collections.abc import Iterator

import pytest

from tests.support.host import Host, SessionHost, SystemHost

pytestmark = pytest.mark.skipif(not shutil.which("virt-admin"), reason="virt-admin is not installed")


def admin(host: Host, *words: str) -> tuple[int, str]:
    """Status and everything that virt-admin prints."""
    done = host.run(["virt-admin", *words])
    return done.returncode, (done.stdout + done.stderr).strip()


def settings(text: str) -> dict[str, str]:
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


@pytest.fixture(scope="module")
def busy(session: SessionHost) -> Iterator[SessionHost]:
    """A session daemon with one client that stays."""
    conn = session.connect()
    yield session
    conn.close()


def test_both_servers_are_listed(busy: SessionHost) -> None:
    status, text = admin(busy, "srv-list")
    assert status == 0
    assert [line.split()[1] for line in text.splitlines()[2:]] == ["libvirtd", "admin"]
    assert "No server named 'nope'" in admin(busy, "srv-clients-info", "nope")[1]


def test_worker_pool_is_told_and_kept(busy: SessionHost) -> None:
    assert admin(busy, "srv-threadpool-set", "libvirtd", "--min-workers", "3", "--max-workers", "30")[0] == 0
    told = settings(admin(busy, "srv-threadpool-info", "libvirtd")[1])
    assert (told["minWorkers"], told["maxWorkers"], told["jobQueueDepth"]) == ("3", "30", "0")
    status, text = admin(busy, "srv-threadpool-set", "libvirtd", "--min-workers", "50")
    assert status != 0
    assert "minWorkers cannot be larger than maxWorkers" in text


def test_limits_of_clients_take_effect(busy: SessionHost) -> None:
    assert admin(busy, "srv-clients-set", "libvirtd", "--max-clients", "100", "--max-unauth-clients", "10")[0] == 0
    told = settings(admin(busy, "srv-clients-info", "libvirtd")[1])
    assert told == {"nclients_max": "100", "nclients": "1", "nclients_unauth_max": "10", "nclients_unauth": "0"}
    assert "maximum number of clients" in admin(busy, "srv-clients-set", "libvirtd", "--max-clients", "5")[1]


def test_a_client_is_shown_and_disconnected(busy: SessionHost) -> None:
    conn = busy.connect()
    number = admin(busy, "client-list", "libvirtd")[1].splitlines()[-1].split()[0]
    told = settings(admin(busy, "client-info", "libvirtd", number)[1])
    assert told["transport"] == "unix"
    assert told["readonly"] == "no"
    assert re.fullmatch(r"\d+", told["unix_process_id"])
    assert told["unix_user_name"]
    assert admin(busy, "client-disconnect", "libvirtd", number)[0] == 0
    assert f"No client with matching ID '{number}'" in admin(busy, "client-info", "libvirtd", number)[1]
    conn.close()


def test_logging_is_shown_and_changed(busy: SessionHost) -> None:
    assert admin(busy, "daemon-log-filters", "3:remote 4:event")[0] == 0
    assert "3:*remote* 4:*event*" in admin(busy, "daemon-log-filters")[1]
    assert "Malformed format for filter 'bogus'" in admin(busy, "daemon-log-filters", "bogus")[1]
    path = busy.folder / "run" / "other.log"
    assert admin(busy, "daemon-log-outputs", f"1:file:{path}")[0] == 0
    assert f"1:file:{path}" in admin(busy, "daemon-log-outputs")[1]
    busy.ok("uri")
    assert path.exists()
    assert "Malformed format" in admin(busy, "daemon-log-outputs", "bogus")[1]
    assert admin(busy, "daemon-log-outputs", "")[0] == 0
    assert str(path) not in admin(busy, "daemon-log-outputs")[1]


def test_certificates_are_not_read_where_tls_is_not_served(busy: SessionHost) -> None:
    assert "no tls service found" in admin(busy, "server-update-tls", "libvirtd")[1]


def test_daemon_ends_when_idle_as_it_was_told() -> None:
    with SessionHost() as host:
        host.start()
        assert admin(host, "daemon-timeout", "--timeout", "1")[0] == 0
        assert host.wait_ended(20) == 0


def test_only_root_gets_past_the_socket_of_the_system() -> None:
    if reason := SystemHost.missing():
        pytest.skip(reason)
    with SystemHost() as host:
        # With no authentication at all for guests, and a socket that anybody may open.
        host.write("/etc/libvirt/libvirtd.conf", 'auth_unix_rw = "none"\nunix_sock_admin_perms = "0777"\n')
        host.start()
        assert admin(host, "srv-list")[0] == 0
        done = host.run(
            ["setpriv", "--reuid=nobody", "--clear-groups", "--", "virt-admin", "-c", "libvirtd:///system", "srv-list"]
        )
        assert done.returncode != 0
        assert "authentication required" in done.stderr


def test_admin_socket_is_its_owners(busy: SessionHost) -> None:
    mode = (busy.socket.parent / "libvirt-admin-sock").stat().st_mode
    assert stat.S_IMODE(mode) == 0o700
