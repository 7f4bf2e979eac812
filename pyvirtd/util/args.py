"""The command line: libvirtd's options, read as its getopt_long(3) reads them. https://libvirt.org/manpages/libvirtd.html"""

import re
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn, Protocol

PROGRAM = "pyvirtd"
# libvirtd counts in milliseconds in a C int.
TIMEOUT_MAX_S = (2**31 - 1) // 1000


@dataclass(frozen=True, slots=True)
class Option:
    """One option; `argument` is what its value is called in the help, None for a flag."""

    short: str
    long: str
    argument: str | None
    help: str


# In libvirtd's order.
OPTIONS = (
    Option("h", "help", None, "Display program help"),
    Option("v", "verbose", None, "Verbose messages"),
    Option("d", "daemon", None, "Run as a daemon & write PID file"),
    Option("l", "listen", None, "Listen for TCP/IP connections"),
    Option("t", "timeout", "secs", "Exit after timeout period"),
    Option("f", "config", "file", "Configuration file"),
    Option("V", "version", None, "Display version information"),
    Option("p", "pid-file", "file", "Change name of PID file"),
)


@dataclass(slots=True)
class Options:
    """What the command line asks for. Paths are absolute; `timeout` is in seconds, 0 for none."""

    verbose: bool = False
    daemon: bool = False
    listen: bool = False
    timeout: int | None = None
    config: Path | None = None
    pid_file: Path | None = None


class UsageError(Exception):
    """A command line that cannot be read."""


class TlsPlaces(Protocol):
    """The certificates that the help names."""

    @property
    def ca(self) -> Path: ...
    @property
    def cert(self) -> Path: ...
    @property
    def key(self) -> Path: ...


class Places(Protocol):
    """The default paths that the help names."""

    @property
    def daemon_config(self) -> Path: ...
    @property
    def socket_rw(self) -> Path: ...
    @property
    def socket_ro(self) -> Path | None: ...
    @property
    def pid_file(self) -> Path: ...
    @property
    def tls(self) -> TlsPlaces: ...


def parse_args(argv: list[str], paths: Places | None = None) -> Options:
    """The options of a command line, of which the first word is cut off; `paths` are what the help names as defaults.

    Help, version and errors are printed, and SystemExit raised. As in libvirtd, options are acted on in their order:
    what stands behind --help is not looked at.
    """
    options = Options()
    reader = _Reader(argv)
    try:
        for option, value in reader:
            if option.short == "h":
                sys.stderr.write(usage(paths))
                raise SystemExit(0)
            if option.short == "V":
                sys.stdout.write(f"{PROGRAM} (libvirt) {_version()}\n")
                raise SystemExit(0)
            _apply(options, option, value)
    except UsageError as exc:
        _fail(f"{exc}\n{usage(paths)}")
    if reader.operands:
        _fail("unexpected, non-option, command line arguments\n")
    return options


def usage(paths: Places | None) -> str:
    """The help text."""
    names = [f"  -{one.short} | --{one.long}{f' <{one.argument}>' if one.argument else ''}" for one in OPTIONS]
    options = "".join(f"{name:<24} {one.help}\n" for name, one in zip(names, OPTIONS, strict=True))
    head = f"\nUsage:\n  {PROGRAM} [options]\n\nOptions:\n{options}"
    if paths is None:
        return f"{head}\n"
    sockets = [paths.socket_rw] + ([paths.socket_ro] if paths.socket_ro else [])
    defaults = {
        "Configuration file (unless overridden by -f)": [str(paths.daemon_config)],
        "Sockets": [str(socket) for socket in sockets],
        "TLS": [
            f"CA certificate: {paths.tls.ca}",
            f"Server certificate: {paths.tls.cert}",
            f"Server private key: {paths.tls.key}",
        ],
        "PID file (unless overridden by -p)": [str(paths.pid_file)],
    }
    tail = "".join(
        f"    {title}:\n" + "".join(f"      {one}\n" for one in found) + "\n" for title, found in defaults.items()
    )
    return f"{head}\nlibvirt management daemon:\n\n  Default paths:\n\n{tail}"


def _version() -> str:
    try:
        return version(PROGRAM)
    except PackageNotFoundError:
        return "unknown"


def _fail(text: str) -> NoReturn:
    sys.stderr.write(f"{PROGRAM}: {text}")
    raise SystemExit(1)


def _apply(options: Options, option: Option, value: str) -> None:
    match option.long:
        case "timeout":
            options.timeout = _timeout(value)
        case "config":
            options.config = Path(value).absolute()
        case "pid-file":
            options.pid_file = Path(value).absolute()
        case flag:
            setattr(options, flag, True)


def _timeout(word: str) -> int:
    if not re.fullmatch(r"\s*[+-]?[0-9]{1,10}", word) or not 0 <= int(word) <= TIMEOUT_MAX_S:
        _fail("Invalid value for timeout\n")
    return int(word)


class _Reader:
    """Iterates over options with their values, and collects the other words; messages are the C library's."""

    def __init__(self, argv: list[str]) -> None:
        self.operands: list[str] = []
        self._words = list(argv)
        self._letters = ""

    def __iter__(self) -> "_Reader":
        return self

    def __next__(self) -> tuple[Option, str]:
        if self._letters:
            return self._short()
        while self._words:
            word = self._words.pop(0)
            if word == "--":
                self.operands += self._words
                break
            if word.startswith("--"):
                return self._long(word[2:])
            if word.startswith("-") and word != "-":
                self._letters = word[1:]
                return self._short()
            self.operands.append(word)
        raise StopIteration

    def _short(self) -> tuple[Option, str]:
        letter, self._letters = self._letters[0], self._letters[1:]
        option = next((one for one in OPTIONS if one.short == letter), None)
        if option is None:
            raise UsageError(f"invalid option -- '{letter}'")
        if option.argument is None:
            return option, ""
        if self._letters:
            value, self._letters = self._letters, ""
        elif self._words:
            value = self._words.pop(0)
        else:
            raise UsageError(f"option requires an argument -- '{letter}'")
        return option, value

    def _long(self, word: str) -> tuple[Option, str]:
        name, equals, value = word.partition("=")
        found = [one for one in OPTIONS if one.long == name] or [one for one in OPTIONS if one.long.startswith(name)]
        if not found:
            raise UsageError(f"unrecognized option '--{name}'")
        if len(found) > 1:
            several = " ".join(f"'--{one.long}'" for one in found)
            raise UsageError(f"option '--{name}' is ambiguous; possibilities: {several}")
        option = found[0]
        if option.argument is None and equals:
            raise UsageError(f"option '--{option.long}' doesn't allow an argument")
        if option.argument is not None and not equals:
            if not self._words:
                raise UsageError(f"option '--{option.long}' requires an argument")
            value = self._words.pop(0)
        return option, value
