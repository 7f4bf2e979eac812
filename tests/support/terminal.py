"""Runs a program on a terminal of its own and talks to it; `virsh console` and the like refuse anything else."""

import os
import pty
import re
import select
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

# The shell of busybox asks its terminal where the cursor is; nobody here answers.
_QUESTIONS = re.compile(r"\x1b\[6n")


class TerminalTimeoutError(AssertionError):
    """What was waited for did not come; the text holds what came instead."""


class Terminal:
    """A child process with a controlling terminal, driven by `send` and `expect`."""

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        echo: Callable[[str], object] | None = None,
    ) -> None:
        self.output = ""
        self._position = 0
        self._echo = echo
        parent, child = pty.openpty()
        self._fd = parent
        # setsid makes standard input the controlling terminal and then becomes the program: the process id is its own.
        self.process = subprocess.Popen(["setsid", "--ctty", *argv], stdin=child, stdout=child, stderr=child, env=env)
        os.close(child)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def expect(self, pattern: str, timeout: float = 30) -> str:
        """Wait until `pattern` matches what came since the last match; returns the text up to and with the match."""
        deadline = time.monotonic() + timeout
        while True:
            if found := re.search(pattern, self.output[self._position :]):
                text = self.output[self._position : self._position + found.end()]
                self._position += found.end()
                return text
            if not self._read(deadline - time.monotonic()):
                got = self.output[self._position :]
                raise TerminalTimeoutError(f"no {pattern!r} within {timeout} s, but {got[-2000:]!r}")

    def send(self, text: str) -> None:
        """Type `text` as it is; a line ends with \\n."""
        os.write(self._fd, text.encode())

    def send_secret(self, text: str, timeout: float = 10) -> None:
        """Type `text` once it is not shown: what comes before is thrown away by who asks for passwords."""
        deadline = time.monotonic() + timeout
        while termios.tcgetattr(self._fd)[3] & termios.ECHO:
            if time.monotonic() > deadline:
                raise TerminalTimeoutError("the terminal shows what is typed")
            time.sleep(0.01)
        self.send(text)

    def prompt(self, prompt: str = "tiny# ", timeout: float = 30) -> None:
        """Wait for a shell that may have shown its prompt long ago: ask for a new one until it comes.

        virsh discards what is typed before its stream is open, so once is not enough.
        """
        deadline = time.monotonic() + timeout
        while True:
            self.send("\n")
            try:
                self.expect(re.escape(prompt), 1)
            except TerminalTimeoutError:
                if time.monotonic() > deadline:
                    raise
            else:
                return

    def command(self, line: str, prompt: str = "tiny# ", timeout: float = 30) -> str:
        """Type a line into a shell that has shown its prompt; returns what it printed before the next one."""
        self.send(line + "\n")
        self.expect(re.escape(line) + r"\r*\n", timeout)
        answer = self.expect(re.escape(prompt), timeout)
        return answer.removesuffix(prompt).replace("\r", "").strip("\n")

    def wait(self, timeout: float = 30) -> int:
        """Read until the program ends; returns its exit status."""
        deadline = time.monotonic() + timeout
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def close(self) -> None:
        """Hang up; a program that does not mind is killed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _read(self, timeout: float) -> bool:
        """Take in what is there; False at the deadline and at the end of the program's output."""
        if timeout <= 0 or not select.select([self._fd], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # EIO: the last process on the terminal is gone
            return False
        text = _QUESTIONS.sub("", data.decode(errors="replace"))
        self.output += text
        if self._echo:
            self._echo(text)
        return bool(data)
