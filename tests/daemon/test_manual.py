"""The manual pages: what they name, and that man reads them without complaint."""

import shutil
import subprocess

import pytest

from pyvirtd.config import DaemonConfig, QemuConfig
from pyvirtd.daemon.manual import configuration_page, program_page
from pyvirtd.util.args import OPTIONS


def test_every_option_and_every_key_has_its_entry() -> None:
    program = program_page()
    for option in OPTIONS:
        assert f"\\-\\-{option.long.replace('-', chr(92) + '-')}" in program
    page = configuration_page()
    for settings in (DaemonConfig, QemuConfig):
        for name in settings.keys():  # noqa: SIM118 - it is no mapping
            assert f"\\fB{name}\\fR = " in page


@pytest.mark.parametrize("page", [program_page, configuration_page])
def test_roff_finds_no_fault(page: object) -> None:
    if not shutil.which("groff"):
        pytest.skip("groff is not installed")
    assert callable(page)
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z"], input=page(), capture_output=True, text=True, check=False
    )
    assert (done.stderr, done.returncode) == ("", 0)
