"""A tiny Linux guest for tests and the demo: Debian's cloud kernel, busybox and a shell on the serial console.

Standard library only, so that it runs before anything of the project is installed. `python3 -m tests.guest` builds it
and prints the two paths.
"""

from tests.guest.build import BuildError, Guest, agent_program, tiny_guest

__all__ = ["BuildError", "Guest", "agent_program", "tiny_guest"]
