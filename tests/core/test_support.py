"""docs/support.md is what the code says."""

from pathlib import Path

from pyvirtd.api.rpc import PROCEDURES
from pyvirtd.core.registry import driver_classes
from pyvirtd.core.support import SESSION_PART, text
from pyvirtd.daemon.session import DaemonDriver

ROOT = Path(__file__).parents[2]


def test_the_document_is_up_to_date() -> None:
    assert (ROOT / "docs/support.md").read_text() == text(driver_classes()), "python -m pyvirtd.core.support"


def test_the_session_part_implements_what_the_document_says() -> None:
    declared = [p for p in PROCEDURES.values() if p.part.__name__ == SESSION_PART]
    assert [p.name for p in declared if not any(part.implements(p) for part in DaemonDriver.parts)] == []
