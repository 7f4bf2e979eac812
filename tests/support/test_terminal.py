import sys
import time

import pytest

from tests.support.terminal import Terminal, TerminalTimeoutError


def test_program_has_a_controlling_terminal() -> None:
    with Terminal(["sh", "-c", "test -t 0 && echo yes >/dev/tty"]) as terminal:
        terminal.expect("yes", 5)


def test_command_returns_what_the_shell_printed() -> None:
    with Terminal(["env", "PS1=% ", "sh", "-i"]) as terminal:
        terminal.expect("% ", 5)
        assert terminal.command("echo $((6 * 7))", prompt="% ", timeout=5) == "42"


def test_what_came_instead_is_in_the_error() -> None:
    with Terminal(["echo", "something else"]) as terminal, pytest.raises(TerminalTimeoutError, match="something else"):
        terminal.expect("never", 1)


def test_exit_status_is_returned() -> None:
    with Terminal([sys.executable, "-c", "raise SystemExit(3)"]) as terminal:
        assert terminal.wait(10) == 3


def test_stubborn_program_does_not_outlive_its_terminal() -> None:
    terminal = Terminal(["sh", "-c", "trap '' HUP; echo up; exec 0<&- 1>&- 2>&-; sleep 60"])
    terminal.expect("up", 5)
    begin = time.monotonic()
    terminal.close()
    assert terminal.process.returncode is not None
    assert time.monotonic() - begin < 20
