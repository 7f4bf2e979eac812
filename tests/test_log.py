"""The log: libvirt's syntax, what passes the filters, what the outputs get."""

import asyncio
import logging
import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pyvirtd import log
from pyvirtd.constants.error import ErrorDomain
from pyvirtd.errors import InvalidArg, NoDomain, VirtError
from pyvirtd.log import LogFilter, LogOutput, Logs, adapter, writers
from pyvirtd.log.records import journal_fields, prepare
from tests.support.host import SystemHost

LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\+0000): (\d+): (\w+) : ([\w.]+:[\w<>]+:\d+) : (.*)\n")


@dataclass(frozen=True)
class Config:
    log_level: int = 3
    log_filters: str = ""
    log_outputs: str = ""


@dataclass(frozen=True)
class Places:
    log_file: Path = Path("/nonexistent/libvirtd.log")


@pytest.fixture
def logs() -> Iterator[Logs]:
    made = Logs()
    yield made
    made.close()


def messages(path: Path) -> list[str]:
    """The messages in a log file, without the lines that open it."""
    lines = path.read_text().splitlines(keepends=True)
    return [match[5] for line in lines if (match := LINE.fullmatch(line))]


@pytest.mark.parametrize(
    ("text", "filters"),
    [
        ("", ()),
        ("1:qemu   3:util.json", (LogFilter(1, "qemu"), LogFilter(3, "util.json"))),
        ("1:+qemu", (LogFilter(1, "qemu"),)),
        ("1:a:b", (LogFilter(1, "a"),)),
        ("1:qemu 1:qemu", (LogFilter(1, "qemu"), LogFilter(1, "qemu"))),
    ],
)
def test_filters_are_parsed(text: str, filters: tuple[LogFilter, ...]) -> None:
    assert log.parse_filters(text) == filters


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("9:qemu", "invalid argument: Invalid priority '9' for filter '9:qemu'"),
        ("0:qemu", "invalid argument: Invalid priority '0' for filter '0:qemu'"),
        (":a", "invalid argument: Invalid priority '' for filter ':a'"),
        ("1:a qemu", "invalid argument: Malformed format for filter 'qemu'"),
        ("1:", "invalid argument: Invalid match string ''"),
    ],
)
def test_bad_filter_is_told_as_libvirt_tells_it(text: str, error: str) -> None:
    with pytest.raises(InvalidArg) as caught:
        log.parse_filters(text)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("text", "outputs"),
    [
        ("", ()),
        ("3:syslog:id", (LogOutput(3, "syslog", "id"),)),
        ("1:syslog:", (LogOutput(1, "syslog", ""),)),
        ("1:journald 2:stderr", (LogOutput(1, "journald"), LogOutput(2, "stderr"))),
        ("1:file:/a:b", (LogOutput(1, "file", "/a:b"),)),
        (
            "1:file:/l  2:stderr 2:file:/m 3:file:/l",
            (LogOutput(2, "stderr"), LogOutput(2, "file", "/m"), LogOutput(3, "file", "/l")),
        ),
    ],
)
def test_outputs_are_parsed(text: str, outputs: tuple[LogOutput, ...]) -> None:
    assert log.parse_outputs(text) == outputs


def test_relative_file_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert log.parse_outputs("1:file:rel") == (LogOutput(1, "file", f"{tmp_path}/rel"),)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("x", "Malformed format for log output 'x'"),
        ("5:stderr", "Invalid log priority '5' for log output '5:stderr'"),
        ("1:foo", "Invalid log destination 'foo' for log output '1:foo'"),
        ("1:file", "Log output '1:file' does not meet the format requirements for destination type 'file'"),
        ("1:stderr:x", "Log output '1:stderr:x' does not meet the format requirements for destination type 'stderr'"),
    ],
)
def test_bad_output_is_told_as_libvirt_tells_it(text: str, error: str) -> None:
    with pytest.raises(InvalidArg) as caught:
        log.parse_outputs(text)
    assert str(caught.value) == f"invalid argument: {error}"


def test_bad_level_is_told_as_libvirt_tells_it() -> None:
    with pytest.raises(InvalidArg, match="Failed to set logging priority, argument '9' is invalid"):
        log.parse_level(9)


def test_filters_and_outputs_are_formatted_as_libvirt_formats_them() -> None:
    assert log.format_filters(log.parse_filters("1:qemu 3:util.json")) == "1:*qemu* 3:*util.json* "
    text = "2:stderr 3:file:/m 1:syslog:x 1:journald"
    assert log.format_outputs(log.parse_outputs(text)) == text


def test_line_looks_like_libvirts(logs: Logs, tmp_path: Path) -> None:
    logs.set_outputs(f"1:file:{tmp_path}/l")
    logs.attach()
    logging.getLogger("pyvirtd.core.jobs").warning("job of %s", "web1")
    logs.writing.flush()
    opening, host, line = (tmp_path / "l").read_text().splitlines(keepends=True)
    match = LINE.fullmatch(line)
    assert match is not None, line
    assert int(match[2]) == threading.get_native_id()
    assert (match[3], match[5]) == ("warning", "job of web1")
    assert match[4].startswith("core.jobs:test_line_looks_like_libvirts:")
    assert re.fullmatch(r".*: \d+: info : pyvirtd version: .*\n", opening)
    assert re.fullmatch(rf".*: \d+: info : hostname: {os.uname().nodename}\n", host)


def test_log_file_is_private_and_appended_to(logs: Logs, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("before\n")
    logs.set_outputs(f"1:file:{tmp_path}/l 1:file:{tmp_path}/old")
    logs.attach()
    logging.getLogger("pyvirtd.x").error("now")
    logs.writing.flush()
    assert (tmp_path / "l").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "old").read_text().startswith("before\n")
    assert messages(tmp_path / "old") == ["now"]


def test_first_filter_that_applies_decides(logs: Logs, tmp_path: Path) -> None:
    logs.set_outputs(f"1:file:{tmp_path}/l")
    logs.set_filters("4:qemu.monitor 1:qemu 1:api.rp?")
    logs.attach()
    for name in ("drivers.qemu.monitor", "drivers.qemu.process", "api.rpc", "api.rapc", "other"):
        logger = logging.getLogger(f"pyvirtd.{name}")
        logger.debug("%s debug", name)
        logger.warning("%s warning", name)
    logs.writing.flush()
    assert messages(tmp_path / "l") == [
        "drivers.qemu.process debug",
        "drivers.qemu.process warning",
        "api.rpc debug",
        "api.rpc warning",
        "api.rapc warning",
        "other warning",
    ]


def test_package_name_matches_no_filter(logs: Logs) -> None:
    logs.set_filters("1:virt")
    assert logs.level_of("pyvirtd.core.store") == 3


def test_output_has_its_own_level(logs: Logs, tmp_path: Path) -> None:
    logs.set_filters("1:x")
    logs.set_outputs(f"1:file:{tmp_path}/all 3:file:{tmp_path}/some")
    logs.attach()
    logging.getLogger("pyvirtd.x").info("low")
    logging.getLogger("pyvirtd.x").error("high")
    logs.writing.flush()
    assert messages(tmp_path / "all") == ["low", "high"]
    assert messages(tmp_path / "some") == ["high"]


def test_unwanted_record_is_refused_before_it_is_made(logs: Logs) -> None:
    quiet, loud = logging.getLogger("pyvirtd.quiet"), logging.getLogger("pyvirtd.loud")
    logs.set_filters("1:loud")
    logs.attach()
    assert loud.isEnabledFor(logging.DEBUG)
    assert not quiet.isEnabledFor(logging.INFO)


def test_settings_change_while_it_runs(logs: Logs, tmp_path: Path) -> None:
    logger = logging.getLogger("pyvirtd.x")
    logs.set_outputs(f"1:file:{tmp_path}/a")
    logs.attach()
    logger.info("1")
    logs.set_filters("2:x")
    logger.info("2")
    logs.set_outputs(f"1:file:{tmp_path}/b")
    logger.info("3")
    logs.set_filters("4:x")
    logger.warning("4")
    logs.writing.flush()
    assert messages(tmp_path / "a") + messages(tmp_path / "b") == ["2", "3"]
    assert log.format_outputs(logs.outputs) == f"1:file:{tmp_path}/b"


def test_output_that_cannot_be_opened_leaves_the_old_ones(logs: Logs, tmp_path: Path) -> None:
    logs.set_outputs(f"1:file:{tmp_path}/a")
    with pytest.raises(VirtError, match=r"^failed to open /nodir/x: No such file or directory$"):
        logs.set_outputs(f"1:file:{tmp_path}/b 1:file:/nodir/x")
    assert log.format_outputs(logs.outputs) == f"1:file:{tmp_path}/a"


def test_no_outputs_means_the_default_ones(logs: Logs, tmp_path: Path) -> None:
    logs.default_outputs = (LogOutput(3, "file", f"{tmp_path}/d"),)
    logs.set_outputs("")
    assert log.format_outputs(logs.outputs) == f"3:file:{tmp_path}/d"


def test_traceback_stands_in_the_log(logs: Logs, tmp_path: Path) -> None:
    logs.set_outputs(f"1:file:{tmp_path}/l")
    logs.attach()
    try:
        raise ValueError("the cause")
    except ValueError:
        logging.getLogger("pyvirtd.x").exception("failed")
    logs.writing.flush()
    assert "ValueError: the cause" in (tmp_path / "l").read_text()


def test_text_that_is_not_unicode_is_written(logs: Logs, tmp_path: Path) -> None:
    logs.set_outputs(f"1:file:{tmp_path}/l")
    logs.attach()
    logging.getLogger("pyvirtd.x").error("name %s", b"\xfc".decode("utf-8", "surrogateescape"))
    logs.writing.flush()
    assert messages(tmp_path / "l") == ["name \\udcfc"]


def test_object_logger_puts_its_fields_before_the_message(logs: Logs, tmp_path: Path) -> None:
    logs.set_outputs(f"1:file:{tmp_path}/l")
    logs.attach()
    adapter(logging.getLogger("pyvirtd.x"), dom="50%s", job=3).error("failed: %s", "why")
    logs.writing.flush()
    assert messages(tmp_path / "l") == ["dom=50%s job=3: failed: why"]


def record_of(caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    return prepare(caplog.records[0])


def test_journal_gets_libvirts_fields(caplog: pytest.LogCaptureFixture) -> None:
    adapter(logging.getLogger("pyvirtd.x"), dom="web1").warning("hello")
    fields = journal_fields(record_of(caplog))
    assert fields["LIBVIRT_SOURCE"] == "file"
    assert fields["PRIORITY"] == "4"
    assert fields["CODE_FILE"] == __file__
    assert fields["CODE_FUNC"] == "test_journal_gets_libvirts_fields"
    assert fields["PYVIRTD_DOM"] == "web1"


def test_journal_gets_the_number_of_an_error(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise NoDomain("no domain with matching name 'x'", domain=ErrorDomain.DOM)
    except NoDomain:
        logging.getLogger("pyvirtd.x").exception("failed")
    fields = journal_fields(record_of(caplog))
    assert (fields["LIBVIRT_SOURCE"], fields["LIBVIRT_DOMAIN"], fields["LIBVIRT_CODE"]) == ("error", "6", "42")


JOURNAL_PROGRAM = """
import logging, socket, sys
from pathlib import Path
from pyvirtd.log import Logs
Path("/run/systemd/journal").mkdir(parents=True)
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.bind("/run/systemd/journal/socket")
logs = Logs()
logs.set_outputs("1:journald")
logs.attach()
logging.getLogger("pyvirtd.x").error("hello")
journal.settimeout(10)
sys.stdout.buffer.write(journal.recv(65536))
"""


def test_journal_socket_gets_the_record() -> None:
    if reason := SystemHost.missing():
        pytest.skip(reason)
    with SystemHost() as host:  # for its own /run; no daemon is started
        sent = host.run([sys.executable, "-c", JOURNAL_PROGRAM])
    lines = sent.stdout.splitlines()
    assert {"MESSAGE=hello", "LIBVIRT_SOURCE=file", "PRIORITY=3", "SYSLOG_IDENTIFIER=libvirtd"} <= set(lines)


def test_slow_output_does_not_hold_up_the_loop(logs: Logs, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f")
    reader = os.open(tmp_path / "f", os.O_RDONLY | os.O_NONBLOCK)
    logs.set_outputs(f"1:file:{tmp_path}/f")
    logs.attach()

    async def scenario() -> float:
        began = time.monotonic()
        for _ in range(100):
            logging.getLogger("pyvirtd.x").error("x" * 10_000)  # far more than a pipe holds
        return time.monotonic() - began

    try:
        assert asyncio.run(scenario()) < 1
    finally:
        os.close(reader)


def test_records_beyond_the_queue_are_counted(logs: Logs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    class Stuck:
        def write(self, record: logging.LogRecord) -> None:
            gate.wait(10)

        def close(self) -> None: ...

    logger = logging.getLogger("pyvirtd.x")
    monkeypatch.setattr(writers, "QUEUE_MAX", 5)
    logs.set_outputs(f"1:file:{tmp_path}/l")
    logs.writing.outputs = ((LogOutput(1, "stderr"), Stuck()), *logs.writing.outputs)
    logs.attach()
    for number in range(20):
        logger.error("%d", number)
    gate.set()
    logs.writing.flush()
    logger.error("after")
    logs.writing.flush()
    written = messages(tmp_path / "l")
    assert len(written) <= 7
    assert re.fullmatch(r"\(\d+ messages before this one were lost\) after", written[-1])
    assert len(written) - 1 + int(written[-1].split()[0][1:]) == 20


def test_output_that_fails_leaves_the_others(logs: Logs, tmp_path: Path) -> None:
    logs.set_outputs(f"1:file:/dev/full 1:file:{tmp_path}/l")
    logs.attach()
    logging.getLogger("pyvirtd.x").error("kept")
    logs.writing.flush()
    assert messages(tmp_path / "l") == ["kept"]


def test_log_goes_on_after_a_fork(tmp_path: Path) -> None:
    program = (
        "import logging, os, sys\n"
        "from pyvirtd.log import logs\n"
        "logs.set_outputs('1:file:' + sys.argv[1]); logs.attach()\n"
        "logging.getLogger('pyvirtd.x').error('before')\n"
        "if os.fork(): os._exit(os.wait()[1])\n"
        "logging.getLogger('pyvirtd.x').error('after'); logs.close()\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "l")], check=True)
    assert messages(tmp_path / "l") == ["before", "after"]


def setup_in_child(setup: str, **options: object) -> str:
    """The outputs and the level that setup() chooses in a process of its own."""
    program = (
        "from pathlib import Path\nfrom types import SimpleNamespace as N\nfrom pyvirtd import log\n"
        f"log.setup(N(log_level=3, log_filters='1:a', log_outputs=''), N(log_file=Path('/dev/null')), {setup})\n"
        "print(log.logs.level, log.format_outputs(log.logs.outputs), log.format_filters(log.logs.filters))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, **options)  # type: ignore[call-overload]
    return str(done.stdout).strip()


no_journal = pytest.mark.skipif(log.JOURNAL_SOCKET.exists(), reason="this host has a journal")


@no_journal
@pytest.mark.parametrize(
    ("setup", "chosen"),
    [
        ("environ={}", "3 3:stderr 1:*a*"),
        ("environ={}, foreground=False", "3 3:file:/dev/null 1:*a*"),
        ("environ={}, verbose=True", "2 2:stderr 1:*a*"),
        ("environ={'LIBVIRT_DEBUG': '1'}", "1 1:stderr 1:*a*"),
        ("environ={'LIBVIRT_DEBUG': 'error'}", "4 4:stderr 1:*a*"),
        ("environ={'LIBVIRT_DEBUG': 'nonsense'}", "3 3:stderr 1:*a*"),
        ("environ={'LIBVIRT_LOG_OUTPUTS': '2:syslog:x', 'LIBVIRT_LOG_FILTERS': '4:b'}", "3 2:syslog:x 4:*b*"),
    ],
)
def test_settings_come_from_environment_options_and_configuration(setup: str, chosen: str) -> None:
    assert setup_in_child(setup) == chosen


def test_journal_is_preferred_unless_this_is_a_terminal() -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom types import SimpleNamespace as N\nfrom pyvirtd import log\n"
        "log.JOURNAL_SOCKET = Path('/dev/null')\n"
        "log.setup(N(log_level=3, log_filters='', log_outputs=''), N(log_file=Path('/dev/null')), environ={})\n"
        "print(log.format_outputs(log.logs.outputs))"
    )
    leader, follower = pty.openpty()
    try:
        chosen = [
            subprocess.run([sys.executable, "-c", program], stdin=stdin, capture_output=True, text=True, check=True)
            for stdin in (subprocess.DEVNULL, follower)
        ]
    finally:
        os.close(leader)
        os.close(follower)
    assert [one.stdout.strip() for one in chosen] == ["3:journald", "3:stderr"]


def test_bad_configuration_is_refused() -> None:
    with pytest.raises(InvalidArg):
        log.setup(Config(log_filters="bad"), Places(), environ={})
