"""Whether passt can run here: it wants a user namespace of its own, which a changed root forbids."""

import shutil
import subprocess

import pytest


def _runs() -> bool:
    if not shutil.which("passt"):
        return False
    return subprocess.run(["unshare", "--user", "true"], capture_output=True, check=False).returncode == 0


needs_passt = pytest.mark.skipif(not _runs(), reason="passt is not installed, or may make no user namespace here")
