"""Where the program begins."""

import gc
import sys


def main() -> int:
    """Run the daemon until it is told to end; the exit status."""
    gc.disable()  # until it serves: of what is loaded and made before that, nothing is garbage
    from pyvirtd.daemon import program

    return program.main()


if __name__ == "__main__":
    sys.exit(main())
