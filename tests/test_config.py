"""Configuration files: the syntax, the declared keys, and the files that are shipped."""

import dataclasses
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pyvirtd.config import SHIPPED, UNLIMITED, DaemonConfig, QemuConfig, Settings, format_value, parse
from pyvirtd.errors import ConfSyntax, VirtError

ROOT = Path(__file__).parent.parent
REFERENCE = Path(os.environ.get("PYVIRTD_REFERENCE") or ROOT.parent / "shared")
FILES: list[type[Settings]] = [DaemonConfig, QemuConfig]
# Keys that libvirt itself no longer documents, but that users' files still hold.
UNDOCUMENTED = {"qemu.conf": {"clear_emulator_capabilities", "allow_disk_format_probing"}, "libvirtd.conf": set()}

# Keys of libvirt releases after the one that the facts are of.
NEWER = {
    "qemu.conf": {
        "auto_save_bypass_cache",
        "auto_shutdown_poweroff",
        "auto_shutdown_restore",
        "auto_shutdown_try_save",
        "auto_shutdown_try_shutdown",
        "auto_shutdown_wait",
        "auto_start_delay",
    },
    "libvirtd.conf": set(),
}


def values(text: str) -> dict[str, object]:
    return {key: entry.value for key, entry in parse(text, "x.conf").items()}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("k = 'a'", "a"),
        ('k="a"', "a"),
        ('\tk\t=\t"a"  # why', "a"),
        ('k = """a "b"\nc"""', 'a "b"\nc'),
        ('k = ""', ""),
        ("k = 12", 12),
        ("k = -1", -1),
        ("k = +3", 3),
        ("k = 010", 10),
        ("k = 3;", 3),
        ("k = 3\r\n", 3),
        ("k = []", []),
        ('k = [ "a",\n  "b"\n, "c", ]', ["a", "b", "c"]),
        ("k = 1\nk = 2", 2),
        ("# nothing\n\n k = 1", 1),
    ],
)
def test_value_is_read(text: str, value: object) -> None:
    assert values(text) == {"k": value}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('k = "a\nb"', "x.conf:1: unterminated string"),
        ("\n\nk = 'a", "x.conf:3: unterminated string"),
        ('k = """a\n', "x.conf:1: unterminated string"),
        ('k = ["a" "b"]', "x.conf:1: expecting a separator in list"),
        ('k = [\n # no\n "a"]', "x.conf:2: expecting a value"),
        ('k = ["a",', "x.conf:1: expecting a value"),
        ('k = ["a"', "x.conf:1: list is not closed with ]"),
        ("k = [,]", "x.conf:1: expecting a value"),
        ("a = 1 b = 2", "x.conf:1: expecting a separator"),
        ("k = 0x10", "x.conf:1: expecting a separator"),
        ('k = "a\\"b"', "x.conf:1: expecting a separator"),
        ("k =\n1", "x.conf:1: expecting a value"),
        ("k = abc", "x.conf:1: expecting a value"),
        ("k = - 1", "x.conf:1: unterminated number"),
        ("k 3", "x.conf:1: expecting an assignment"),
        ("k-l = 3", "x.conf:1: expecting an assignment"),
        ("k", "x.conf:1: expecting an assignment"),
        ("1k = 3", "x.conf:1: expecting a name"),
        ("_k = 3", "x.conf:1: expecting a name"),
        ('a = """1\n2"""\nb = x', "x.conf:3: expecting a value"),
        ("k = " + "[" * 5000, "x.conf:1: expecting a value"),
    ],
)
def test_bad_syntax_names_file_and_line(text: str, error: str) -> None:
    with pytest.raises(ConfSyntax) as caught:
        parse(text, "x.conf")
    assert caught.value.detail == error


@pytest.mark.parametrize("value", ["a", 'with "quotes"', "two\nlines", 7, -1, [], ["a", "b c"]])
def test_formatted_value_parses_back(value: object) -> None:
    assert values(f"k = {format_value(value)}") == {"k": value}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("listen_tcp = 1", "listen_tcp", True),
        ('unix_sock_rw_perms = "0770"', "unix_sock_rw_perms", 0o770),
        ('tls_allowed_dn_list = ["a", "b"]', "tls_allowed_dn_list", ("a", "b")),
        ("tls_allowed_dn_list = []", "tls_allowed_dn_list", ()),
        ("keepalive_interval = -1", "keepalive_interval", -1),
        ("max_clients = 4294967295", "max_clients", 4294967295),
        ('keepalive_required = "x"', "keepalive_required", '"x"'),
    ],
)
def test_daemon_key_is_typed(text: str, key: str, value: object) -> None:
    assert getattr(DaemonConfig.parse(text, "x"), key) == value


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ('max_core = "unlimited"', "max_core", UNLIMITED),
        ("max_core = 5000000000", "max_core", 5000000000),
        ('security_driver = "none"', "security_driver", ("none",)),
        ('security_driver = ["selinux"]', "security_driver", ("selinux",)),
        ("namespaces = []", "namespaces", ()),
        ("seccomp_sandbox = -1", "seccomp_sandbox", -1),
        ("clear_emulator_capabilities = 1", "clear_emulator_capabilities", "1"),
    ],
)
def test_qemu_key_is_typed(text: str, key: str, value: object) -> None:
    assert getattr(QemuConfig.parse(text, "x"), key) == value


@pytest.mark.parametrize(
    ("settings", "text", "error"),
    [
        (DaemonConfig, "\nnonsense = 1", "x.conf:2: unknown key 'nonsense'"),
        (DaemonConfig, "tls_port = 16514", "x.conf:1: expected a string for 'tls_port' parameter"),
        (DaemonConfig, 'listen_tcp = "1"', "x.conf:1: expected a bool for 'listen_tcp' parameter"),
        (DaemonConfig, "listen_tcp = -1", "x.conf:1: expected a bool for 'listen_tcp' parameter"),
        (DaemonConfig, "listen_tcp = 2", "x.conf:1: value for 'listen_tcp' parameter must be 0 or 1"),
        (DaemonConfig, "max_clients = -3", "x.conf:1: expected an unsigned integer for 'max_clients' parameter"),
        (
            DaemonConfig,
            "max_clients = 99999999999",
            "x.conf:1: value for 'max_clients' parameter must be in range 0:4294967295",
        ),
        (
            DaemonConfig,
            f"max_clients = {'9' * 5000}",
            "x.conf:1: value for 'max_clients' parameter must be in range 0:4294967295",
        ),
        (
            DaemonConfig,
            "keepalive_interval = 5000000000",
            "x.conf:1: value for 'keepalive_interval' parameter must be in range -2147483648:2147483647",
        ),
        (DaemonConfig, 'access_drivers = "polkit"', "x.conf:1: expected a string list for 'access_drivers' parameter"),
        (DaemonConfig, "access_drivers = [1]", "x.conf:1: expected a string list for 'access_drivers' parameter"),
        (
            DaemonConfig,
            '\n\nauth_tcp = "foo"',
            "x.conf:3: auth_tcp: unsupported value 'foo', not one of none, sasl, polkit",
        ),
        (
            DaemonConfig,
            'unix_sock_ro_perms = "abc"',
            "x.conf:1: value for 'unix_sock_ro_perms' parameter must be permissions in octal digits",
        ),
        (
            DaemonConfig,
            "max_clients = 10\nmax_anonymous_clients = 11",
            "x.conf:2: max_anonymous_clients: must not be more than max_clients",
        ),
        (
            DaemonConfig,
            'host_uuid = "00000000-0000-0000-0000-000000000000"',
            "x.conf:1: host_uuid: must not be one digit repeated",
        ),
        (
            QemuConfig,
            "migration_port_min = 50000\nmigration_port_max = 49999",
            "x.conf:2: migration_port_max: port must be between the minimal port 50000 and 65535",
        ),
        (
            QemuConfig,
            "remote_display_port_min = 7",
            "x.conf:1: value for 'remote_display_port_min' parameter must be in range 5900:65535",
        ),
        (
            QemuConfig,
            "hugetlbfs_mount = 1",
            "x.conf:1: expected a string or string list for 'hugetlbfs_mount' parameter",
        ),
        (
            QemuConfig,
            'max_core = "5"',
            "x.conf:1: value for 'max_core' parameter must be a number of bytes or unlimited",
        ),
        (QemuConfig, 'namespaces = ["pid"]', "x.conf:1: namespaces: unsupported value 'pid', not one of mount"),
        (QemuConfig, 'security_driver = ["none", "apparmor"]', "x.conf:1: security_driver: none stands alone"),
    ],
)
def test_wrong_key_names_file_line_and_key(settings: type[Settings], text: str, error: str) -> None:
    with pytest.raises(ConfSyntax) as caught:
        settings.parse(text, "x.conf")
    assert caught.value.detail == error


def test_missing_file_gives_defaults(tmp_path: Path) -> None:
    assert DaemonConfig.load(tmp_path / "libvirtd.conf") == DaemonConfig()


def test_missing_file_that_was_asked_for_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VirtError, match=r"Failed to open file '.*/libvirtd.conf': No such file or directory"):
        DaemonConfig.load(tmp_path / "libvirtd.conf", missing_ok=False)


def test_loaded_file_is_named_in_errors(tmp_path: Path) -> None:
    (tmp_path / "qemu.conf").write_text('user = "qemu"\nbad\n')
    with pytest.raises(ConfSyntax, match=r"configuration file syntax error: .*/qemu.conf:2: expecting an assignment"):
        QemuConfig.load(tmp_path / "qemu.conf")


def test_file_that_is_not_utf8_loads(tmp_path: Path) -> None:
    (tmp_path / "qemu.conf").write_bytes(b'auto_dump_path = "/d\xfcmp"\n')
    loaded = QemuConfig.load(tmp_path / "qemu.conf").auto_dump_path
    assert loaded is not None
    assert os.fsencode(loaded) == b"/d\xfcmp"


def test_idle_keys_that_are_set_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    settings = DaemonConfig.parse("keepalive_required = 1\nadmin_keepalive_required = 1\n", "/etc/x.conf")
    with caplog.at_level(logging.WARNING):
        settings.warn_idle()
    assert caplog.messages == [
        "/etc/x.conf: these settings have no effect yet: keepalive_required, admin_keepalive_required"
    ]


def test_nothing_is_said_of_keys_that_are_not_set(caplog: pytest.LogCaptureFixture) -> None:
    DaemonConfig.parse("", "/etc/x.conf").warn_idle()
    assert caplog.messages == []


@pytest.mark.parametrize("settings", FILES)
def test_settings_are_frozen(settings: type[Settings]) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings().source = "x"  # type: ignore[misc]


@pytest.mark.parametrize("settings", FILES)
def test_keys_are_those_of_libvirt(settings: type[Settings]) -> None:
    path = REFERENCE / "protocol" / "access_and_config.json"
    if not path.exists():
        pytest.skip("no reference data: set PYVIRTD_REFERENCE")
    theirs = json.loads(path.read_text())["config_keys"][settings.file_name]
    assert set(settings.keys()) == set(theirs) | UNDOCUMENTED[settings.file_name] | NEWER[settings.file_name]


@pytest.mark.parametrize("settings", FILES)
def test_keys_include_those_of_the_installed_libvirt(settings: type[Settings]) -> None:
    path = Path("/etc/libvirt") / settings.file_name
    try:
        text = path.read_text()
    except OSError:
        pytest.skip(f"{path} is not readable here")
    assert set(re.findall(r"^#?([a-z][a-z0-9_]*) ?=", text, re.MULTILINE)) <= set(settings.keys())


@pytest.mark.parametrize("settings", FILES)
def test_installed_libvirt_file_with_all_examples_set_is_read(settings: type[Settings]) -> None:
    path = Path("/etc/libvirt") / settings.file_name
    try:
        text = path.read_text()
    except OSError:
        pytest.skip(f"{path} is not readable here")
    lines = re.sub(r"^#([a-z][a-z0-9_]* ?= ?[^\[\s].*|[a-z][a-z0-9_]* ?= ?\[.*\].*)$", r"\1", text, flags=re.MULTILINE)
    lines = lines.replace("00000000-0000-0000-0000-000000000000", "8a0a5c9e-9a3c-4f39-8b1b-1a86f3c21c57")
    loaded = settings.parse(lines, str(path))
    assert len(loaded.given) > 40


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_file_is_made_from_the_declarations(name: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "pyvirtd.config", str(tmp_path)], check=True, cwd=ROOT)
    assert (ROOT / "conf" / name).read_text() == (tmp_path / name).read_text(), "run: python -m pyvirtd.config conf"


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_file_sets_nothing(name: str) -> None:
    assert SHIPPED[name].load(ROOT / "conf" / name, missing_ok=False).given == frozenset()


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_defaults_are_the_defaults(name: str) -> None:
    settings = SHIPPED[name]
    text = re.sub(r"^#([a-z][a-z0-9_]* = )", r"\1", (ROOT / "conf" / name).read_text(), flags=re.MULTILINE)
    loaded = settings.parse(text.replace("00000000-0000-", "8a0a5c9e-9a3c-"), name)
    assert loaded.given == set(settings.keys())
    for key in settings.keys().values():
        if key.default is not None and key.example is None:
            assert getattr(loaded, key.name) == key.default, key.name


def keys_read_by_the_code(settings: type[Settings]) -> set[str]:
    """The keys that are read of an object whose name ends with "config", or by the settings' own methods."""
    home = "drivers" if settings is QemuConfig else "pyvirtd"
    files = [path for top in ("pyvirtd", "drivers") for path in (ROOT / top).rglob("*.py")]
    files = [path for path in files if "config" not in path.relative_to(ROOT).parts]
    others = "\n".join(path.read_text() for path in files)
    at_home = "\n".join(path.read_text() for path in files if path.relative_to(ROOT).parts[0] == home)
    # Both files have keepalive keys: those are told apart by who reads them.
    shared = set(DaemonConfig.keys()) & set(QemuConfig.keys())
    own = (ROOT / "pyvirtd" / "config" / settings.__module__.rpartition(".")[2]).with_suffix(".py").read_text()
    found = {
        key
        for key in settings.keys()  # noqa: SIM118 - not a dict's
        if re.search(rf"config\.{key}\b", at_home if key in shared else others)
    }
    for name in re.findall(r"    def (\w+)\(self", own):
        if re.search(rf"config\.{name}\(", others):
            body = re.search(rf"    def {name}\(self.*?(?=\n    def |\Z)", own, re.DOTALL)
            assert body is not None
            found |= set(re.findall(r"self\.(\w+)", body[0])) & set(settings.keys())
    return found


@pytest.mark.parametrize("settings", FILES)
def test_declared_effect_of_keys_is_the_real_one(settings: type[Settings]) -> None:
    claimed = set(settings.keys()) - set(settings.idle_keys())
    used = keys_read_by_the_code(settings)
    assert claimed - used == set(), "nothing reads these: declare them with effective=False"
    assert used - claimed == set(), "these are read: remove effective=False, then run python -m pyvirtd.config conf"


def test_socket_permissions_follow_the_authentication() -> None:
    assert DaemonConfig().rw_perms(privileged=True) == 0o777
    assert DaemonConfig().rw_perms(privileged=False) == 0o700
    assert DaemonConfig.parse('auth_unix_rw = "none"', "x").rw_perms(privileged=True) == 0o700
    assert DaemonConfig.parse('unix_sock_rw_perms = "0770"', "x").rw_perms(privileged=True) == 0o770


def test_tls_verification_falls_back_from_own_key_to_common_key() -> None:
    assert QemuConfig().tls_verify(None, default=True)
    common = QemuConfig.parse("default_tls_x509_verify = 0\nvnc_tls_x509_verify = 1", "x")
    assert not common.tls_verify(common.chardev_tls_x509_verify, default=True)
    assert common.tls_verify(common.vnc_tls_x509_verify, default=False)
