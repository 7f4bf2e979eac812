"""docs/support.md: which driver answers which procedure, made from the declarations and the drivers' parts.

python -m pyvirtd.core.support writes it to standard output; a test fails when the committed file is stale.
"""

import sys

import pyvirtd.api  # noqa: F401 - importing declares
from pyvirtd.api.rpc import PROCEDURES, Part, Procedure
from pyvirtd.core.driver import Driver
from pyvirtd.core.registry import driver_classes

HEADER = """# What works

Made from the code by `python -m pyvirtd.core.support`. A procedure without a driver answers
VIR_ERR_NO_SUPPORT. "daemon" is the daemon itself.

"""
SESSION_PART = "SessionPart"
OWN = frozenset(("test", "qemu"))  # the drivers of this project; others bring documents of their own


def implementers(procedure: Procedure, drivers: list[type[Driver]]) -> list[str]:
    """Names of the drivers that implement a procedure."""
    return [cls.name for cls in drivers if any(part.implements(procedure) for part in _parts(cls, procedure))]


def _parts(cls: type[Driver], procedure: Procedure) -> list[type[Part]]:
    return [part for part in cls.parts if issubclass(part, procedure.part)]


def text(drivers: list[type[Driver]]) -> str:
    """The whole document."""
    drivers = [cls for cls in drivers if cls.name in OWN]
    names = ["daemon", *(cls.name for cls in drivers)]
    rows = []
    counts = dict.fromkeys(names, 0)
    for procedure in PROCEDURES.values():
        marks = implementers(procedure, drivers)
        if procedure.part.__name__ == SESSION_PART:
            marks = ["daemon"]  # its part lives above this layer; a test compares
        for name in marks:
            counts[name] += 1
        cells = " | ".join("yes" if name in marks else "" for name in names)
        read_only = "yes" if procedure.read_only else ""
        rows.append(f"| {procedure.program.name} {procedure.number} | {procedure.name} | {read_only} | {cells} |")
    summary = ", ".join(f"{name}: {count}" for name, count in counts.items())
    head = f"| number | procedure | read-only | {' | '.join(names)} |\n|---|---|---|{'---|' * len(names)}\n"
    return f"{HEADER}Of {len(PROCEDURES)} procedures: {summary}.\n\n{head}" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text(driver_classes()))
