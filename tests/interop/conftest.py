"""Peers that others made: what the Go toolchain builds from modules here, and a binary given by the environment."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from e2e.deployment import running

from interop.real import Real

MODULE = Path(__file__).parent / "peers"
REAL_BINARY = "CODER_REAL_BINARY"
EVERYTHING = "CODER_INTEROP"
"""Set by `make interop`: build what takes minutes too."""
UNAVAILABLE = ("requires go >=", "dial tcp", "no such host", "i/o timeout", "connection refused", "disabled by GOPROXY")
"""In what the toolchain says when it is too old, or cannot fetch modules."""


def _go(*arguments: str, patience: float = 600) -> subprocess.CompletedProcess[str]:
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        pytest.skip("no Go toolchain: install one to try the peers that are built from modules")
    environment = os.environ | {"GOTOOLCHAIN": "local", "GOWORK": "off"}
    return subprocess.run(
        [go, *arguments], cwd=MODULE, env=environment, capture_output=True, text=True, check=False, timeout=patience
    )


@pytest.fixture(scope="session")
def build(tmp_path_factory):
    """Build a command of the module."""
    place = tmp_path_factory.mktemp("peers")

    def built(package: str, *flags: str) -> Path:
        target = place / Path(package).name
        if not target.exists():
            done = _go("build", *flags, "-o", str(target), package)
            if any(sign in done.stderr for sign in UNAVAILABLE):
                pytest.skip(f"the modules cannot be had: {done.stderr.strip().splitlines()[-1]}")
            assert done.returncode == 0, done.stderr
        return target

    return built


@pytest.fixture(scope="session")
def build_large(build):
    if not os.environ.get(EVERYTHING):
        pytest.skip("takes minutes to build the first time: `make interop` tries it")
    return build


@pytest.fixture(scope="session")
def real_binary() -> Path:
    if not os.environ.get(REAL_BINARY):
        pytest.skip(f"{REAL_BINARY} does not name a coder binary to try this project with")
    return Path(os.environ[REAL_BINARY])


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    """A server with a user and the workspace `dev`, no agent yet."""
    with running(tmp_path_factory.mktemp("deployment"), agent=False) as made:
        yield made


@pytest.fixture(scope="module")
def real(real_binary, deployment) -> Real:
    return Real(real_binary, deployment)
