"""Where files are: names as Debian's libvirtd 9.0 was seen to use them."""

import os
import pwd
from pathlib import Path

import pytest

from pyvirtd.paths import Paths, runtime_name

HOME = {"HOME": "/home/u"}
SESSION = {**HOME, "XDG_RUNTIME_DIR": "/run/user/7"}


@pytest.mark.parametrize(
    ("attribute", "path"),
    [
        ("socket_rw", "/run/libvirt/libvirt-sock"),
        ("socket_ro", "/run/libvirt/libvirt-sock-ro"),
        ("socket_admin", "/run/libvirt/libvirt-admin-sock"),
        ("pid_file", "/run/libvirtd.pid"),
        ("daemon_config", "/etc/libvirt/libvirtd.conf"),
        ("qemu_config", "/etc/libvirt/qemu.conf"),
        ("hooks", "/etc/libvirt/hooks"),
        ("log_file", "/var/log/libvirt/libvirtd.log"),
        ("system_token", "/run/libvirt/common/system.token"),
        ("images", "/var/lib/libvirt/images"),
    ],
)
def test_system_path(attribute: str, path: str) -> None:
    assert getattr(Paths.system(), attribute) == Path(path)


@pytest.mark.parametrize(
    ("attribute", "path"),
    [
        ("socket_rw", "/run/user/7/libvirt/libvirt-sock"),
        ("socket_ro", None),
        ("socket_admin", "/run/user/7/libvirt/libvirt-admin-sock"),
        ("pid_file", "/run/user/7/libvirt/libvirtd.pid"),
        ("daemon_config", "/home/u/.config/libvirt/libvirtd.conf"),
        ("qemu_config", "/home/u/.config/libvirt/qemu.conf"),
        ("hooks", "/etc/libvirt/hooks"),
        ("log_file", "/home/u/.cache/libvirt/libvirtd.log"),
        ("system_token", "/run/user/7/libvirt/common/system.token"),
        ("images", "/home/u/.local/share/libvirt/images"),
    ],
)
def test_session_path(attribute: str, path: str | None) -> None:
    assert getattr(Paths.session(SESSION), attribute) == (Path(path) if path else None)


def test_system_files_of_a_domain() -> None:
    qemu = Paths.system().qemu
    assert qemu.config_file("a b") == Path("/etc/libvirt/qemu/a b.xml")
    assert qemu.autostart_link("a b") == Path("/etc/libvirt/qemu/autostart/a b.xml")
    assert qemu.status_file("a b") == Path("/run/libvirt/qemu/a b.xml")
    assert qemu.pid_file("a b") == Path("/run/libvirt/qemu/a b.pid")
    assert qemu.log_file("a b") == Path("/var/log/libvirt/qemu/a b.log")
    assert qemu.save_file("a b") == Path("/var/lib/libvirt/qemu/save/a b.save")
    assert qemu.nvram_file("a b") == Path("/var/lib/libvirt/qemu/nvram/a b_VARS.fd")
    assert qemu.monitor_socket(1, "a b") == Path("/var/lib/libvirt/qemu/domain-1-a b/monitor.sock")
    assert qemu.master_key(1, "a b") == Path("/var/lib/libvirt/qemu/domain-1-a b/master-key.aes")
    assert qemu.channel_dir(1, "a b") == Path("/var/lib/libvirt/qemu/channel/target/domain-1-a b")
    assert qemu.capabilities == Path("/var/cache/libvirt/qemu/capabilities")
    assert qemu.autostarted_file == Path("/run/libvirt/qemu/autostarted")


def test_session_files_of_a_domain() -> None:
    qemu = Paths.session(SESSION).qemu
    assert qemu.config_file("a b") == Path("/home/u/.config/libvirt/qemu/a b.xml")
    assert qemu.autostart_link("a b") == Path("/home/u/.config/libvirt/qemu/autostart/a b.xml")
    assert qemu.status_file("a b") == Path("/run/user/7/libvirt/qemu/run/a b.xml")
    assert qemu.log_file("a b") == Path("/home/u/.cache/libvirt/qemu/log/a b.log")
    assert qemu.save_file("a b") == Path("/home/u/.config/libvirt/qemu/save/a b.save")
    assert qemu.monitor_socket(1, "a b") == Path("/home/u/.config/libvirt/qemu/lib/domain-1-a b/monitor.sock")
    assert qemu.channel_dir(1, "a b") == Path("/home/u/.config/libvirt/qemu/channel/target/domain-1-a b")
    assert qemu.capabilities == Path("/home/u/.cache/libvirt/qemu/cache/capabilities")


def test_runtime_name_holds_twenty_characters_of_the_name() -> None:
    assert runtime_name(4, "é" * 25) == "domain-4-" + "é" * 20


def test_session_without_runtime_directory_runs_in_the_cache() -> None:
    assert Paths.session(HOME).socket_rw == Path("/home/u/.cache/libvirt/libvirt-sock")
    assert Paths.session({**HOME, "XDG_RUNTIME_DIR": ""}).socket_rw == Path("/home/u/.cache/libvirt/libvirt-sock")


def test_session_follows_the_xdg_variables() -> None:
    paths = Paths.session({**SESSION, "XDG_CONFIG_HOME": "/c", "XDG_CACHE_HOME": "/k", "XDG_DATA_HOME": "/d"})
    assert paths.daemon_config == Path("/c/libvirt/libvirtd.conf")
    assert paths.log_file == Path("/k/libvirt/libvirtd.log")
    assert paths.images == Path("/d/libvirt/images")


def test_session_without_home_asks_the_user_database() -> None:
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    assert Paths.session({}).config == home / ".config/libvirt"


def test_root_has_the_system_paths_and_others_their_session() -> None:
    assert Paths.for_user(0, SESSION) == Paths.system()
    assert Paths.for_user(7, SESSION) == Paths.session(SESSION)


def test_another_root_moves_everything(tmp_path: Path) -> None:
    paths = Paths.system(tmp_path)
    everything = [d.path for d in (*paths.directories(), *paths.qemu.directories())]
    assert all(path.is_relative_to(tmp_path) for path in (*everything, paths.pid_file, paths.hooks, paths.tls.key))


@pytest.mark.parametrize("paths", [Paths.system(), Paths.session(SESSION)], ids=["system", "session"])
def test_directories_come_after_their_parents(paths: Paths) -> None:
    listed = [d.path for d in (*paths.directories(), *paths.qemu.directories())]
    for index, path in enumerate(listed):
        assert not any(later in path.parents for later in listed[index + 1 :]), path


def test_only_guests_directories_belong_to_the_guests_user() -> None:
    owned = {d.path.name for d in Paths.system().qemu.directories() if d.guest_owned}
    assert owned == {
        *("qemu", "save", "snapshot", "checkpoint", "nvram", "dump", "ram", "channel", "target"),
        *("slirp", "passt", "dbus"),
    }


def test_session_directories_are_private() -> None:
    assert {d.mode for d in Paths.session(SESSION).directories()} == {0o700}
