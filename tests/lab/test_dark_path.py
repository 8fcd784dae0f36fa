"""The direct path dies under a transfer; the relay takes over, and gives back."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent


def why_not() -> str | None:
    """What keeps this machine from making network namespaces, if anything does."""
    for tool in ("unshare", "nft", "ip"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    made = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    return None if made.returncode == 0 else f"network namespaces are not allowed here: {made.stderr.strip()}"


REASON = why_not()


@pytest.mark.lab
@pytest.mark.skipif(REASON is not None, reason=REASON or "")
def test_a_transfer_survives_a_direct_path_that_goes_dark_and_returns(tmp_path):
    path = os.pathsep.join((str(TESTS.parent / "src"), str(TESTS)))
    done = subprocess.run(
        ["unshare", "--net", sys.executable, TESTS / "lab" / "dark_path.py", tmp_path],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
