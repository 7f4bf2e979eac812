"""Build the tiny guest and print where its kernel and its initial RAM disk are."""

import argparse
import sys

from tests.guest.build import BuildError, tiny_guest


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.guest", description=__doc__)
    parser.add_argument("--no-agent", action="store_true", help="leave out QEMU's guest agent")
    options = parser.parse_args()
    try:
        guest = tiny_guest(agent=not options.no_agent)
    except BuildError as error:
        print(f"cannot build the guest: {error}", file=sys.stderr)
        return 1
    print(f"kernel={guest.kernel}\ninitrd={guest.initrd}\ncmdline={guest.cmdline}")
    return 0


sys.exit(main())
