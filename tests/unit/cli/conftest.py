import io
import os

import pytest
from click.testing import CliRunner
from fakes.engine import FakeEngine
from fakes.server import SESSION, USER, FakeServer

from coder.cli import main as program


class Outcome:
    """What a shell would see of one run."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code = code
        self.out = out.decode()
        self.err = err.decode()


@pytest.fixture
def config(tmp_path):
    return tmp_path / "config"


@pytest.fixture
def coder(config, monkeypatch):
    """Run the program with a config directory of its own and no variables of this machine."""
    for name in [name for name in os.environ if name.startswith("CODER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("coder.dataplane.engine.Engine", FakeEngine)

    def run(*args: str, stdin: str | None = None, **env: str) -> Outcome:
        runner = CliRunner()
        with runner.isolation(input=io.BytesIO((stdin or "").encode()), env=env) as (out, err, _):
            code = program.run(["--global-config", str(config), *args])
            return Outcome(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def server():
    with FakeServer() as fake:
        fake.answers["GET /api/v2/users/first"] = (200, {"message": "yes"})
        fake.answers["GET /api/v2/users/me"] = (200, USER)
        yield fake


@pytest.fixture
def signed_in(server, config):
    """A server at which this config directory is signed in."""
    config.mkdir()
    (config / "url").write_text(server.url + "\n")
    (config / "session").write_text(SESSION + "\n")
    return server
