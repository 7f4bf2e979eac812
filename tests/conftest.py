"""Fixtures that tests of every area share: hosts with a daemon of their own, the tiny guest, reference data."""

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.guest import BuildError, Guest, tiny_guest
from tests.support.host import ROOT, Host, SessionHost, SystemHost

# Sent along with a failure; the beginning of a long log says less than its end.
LOG_CHARACTERS = 8000


@pytest.fixture(scope="module")
def host() -> Iterator[SystemHost]:
    """A running system daemon, one for all tests of a module; root only."""
    if reason := SystemHost.missing():
        pytest.skip(reason)
    with SystemHost() as made:
        yield made.start()


@pytest.fixture(scope="module")
def session() -> Iterator[SessionHost]:
    """A running session daemon, one for all tests of a module."""
    with SessionHost() as made:
        yield made.start()


@pytest.fixture(scope="session")
def guest() -> Guest:
    """The tiny guest; hand it to a daemon with `host.adopt(guest)`."""
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86_64 is not installed")
    try:
        return tiny_guest()
    except BuildError as error:
        pytest.skip(f"no tiny guest: {error}")


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of facts about libvirt's protocol and recorded answers, where it stands beside the project."""
    found = Path(os.environ.get("PYVIRTD_REFERENCE") or ROOT.parent / "shared")
    if not (found / "protocol" / "protocol.json").exists():
        pytest.skip("no reference data: set PYVIRTD_REFERENCE")
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the logs of the daemons that a failed test used below its traceback."""
    report = yield
    if report.failed:
        for host in {value for value in getattr(item, "funcargs", {}).values() if isinstance(value, Host)}:
            if host.log_path.exists():
                report.sections.append((f"log of {host.daemon}, {host.mode}", host.log()[-LOG_CHARACTERS:]))
    return report
