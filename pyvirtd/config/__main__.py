"""python -m pyvirtd.config DIRECTORY: write the shipped configuration files."""

import sys
from pathlib import Path

from pyvirtd.config import SHIPPED


def main(directory: Path) -> None:
    for name, settings in SHIPPED.items():
        (directory / name).write_text(settings.shipped_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
