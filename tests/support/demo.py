"""The demo: a small guest booted, used and shut down through virsh and a session daemon of its own.

Every line that begins with `$` is what one would type; what follows is virsh's own output.
"""

import shlex
import sys
import time
from types import SimpleNamespace

from tests.guest import BuildError, Guest, tiny_guest
from tests.support.domains import tiny_domain
from tests.support.host import HostError, SessionHost
from tests.support.terminal import Terminal, TerminalTimeoutError

STYLE = SimpleNamespace(bold="\033[1m", dim="\033[2m", off="\033[0m")
NAME = "demo"


def main() -> int:
    if not sys.stdout.isatty():
        STYLE.bold = STYLE.dim = STYLE.off = ""
    try:
        guest = tiny_guest()
        # The kernel's messages are the point here.
        guest = Guest(guest.kernel, guest.initrd, guest.cmdline.replace("quiet ", ""))
        with SessionHost() as host:
            say("Starting a session daemon")
            host.start()
            print(f"{STYLE.dim}pyvirtd, process {host.pid}, on {host.socket}{STYLE.off}")
            show(host, guest)
            say("Stopping the daemon")
            status = host.stop()
            if status != 0:
                raise HostError(f"pyvirtd ended with status {status}:\n{host.log()[-4000:]}")
    except (HostError, BuildError, TerminalTimeoutError, AssertionError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    say("All of it worked")
    return 0


def show(host: SessionHost, guest: Guest) -> None:
    """Define, boot, look, type, shut down."""
    say("Defining a guest and booting it under TCG, with its serial console")
    definition = host.client_file("demo.xml", tiny_domain(guest, NAME, devices="<interface type='user'/>"))
    virsh(host, "version --daemon")
    virsh(host, f"define {definition}")
    with console(host, f"start {NAME} --console") as terminal:
        terminal.expect("tiny guest ready", 120)
        terminal.expect("tiny# ", 20)
        say("Looking at it from outside")
        for command in ("list", f"dominfo {NAME}", f"domstats --cpu-total --balloon {NAME}"):
            virsh(host, command)
        say("Typing into its shell")
        terminal.command("echo $((6 * 7)) on $(uname -sr)")
        print()
        say("Shutting it down by its power button")
        virsh(host, f"shutdown {NAME}")
        terminal.wait(60)
        print()
    deadline = time.monotonic() + 30
    while host.ok(f"domstate {NAME}") != "shut off":
        if time.monotonic() > deadline:
            raise HostError(f"the guest does not go down:\n{host.log()[-4000:]}")
        time.sleep(0.2)
    virsh(host, "list --all")
    virsh(host, f"undefine {NAME}")


def say(text: str) -> None:
    print(f"\n{STYLE.bold}{text}{STYLE.off}", flush=True)


def virsh(host: SessionHost, command: str) -> None:
    """Show a virsh command and what it prints; it must succeed."""
    prompt(command)
    done = host.run(["virsh", *shlex.split(command)])
    print(done.stdout.strip("\n"), flush=True)
    if done.returncode != 0:
        raise HostError(f"{done.stderr.strip()}\n{host.log()[-4000:]}")


def console(host: SessionHost, command: str) -> Terminal:
    """Show a virsh command that stays on a terminal, and all that comes on it."""
    prompt(command)

    def echo(text: str) -> None:
        sys.stdout.write(text.replace("\r", ""))
        sys.stdout.flush()

    return Terminal(host.command(["virsh", *shlex.split(command)]), env=host.env, echo=echo)


def prompt(command: str) -> None:
    print(f"{STYLE.dim}$ virsh -c {SessionHost.uri} {command}{STYLE.off}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
