import io
import os

import pytest
from click.testing import CliRunner
from fakes.engine import FakeEngine
from fakes.network import AGENT, BY_NAME, prepare
from fakes.server import BUILD, MAP, SESSION, USER, FakeServer, agent, coordination, workspace

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


@pytest.fixture
def network(signed_in, monkeypatch):
    """A workspace whose agent answers over the relay, and the engine that a command will use."""
    signed_in.requests = []
    signed_in.handlers = coordination(signed_in.requests)
    signed_in.answers["GET /api/v2/buildinfo"] = (200, {"version": BUILD})
    signed_in.answers[BY_NAME] = (200, workspace(agent()))
    signed_in.answers["GET /api/v2/workspaceagents/connection"] = (200, {"derp_map": MAP})
    signed_in.answers[f"{AGENT}/connection"] = (200, {"derp_map": MAP})
    signed_in.answers[f"{AGENT}/coordinate"] = (101, None)
    signed_in.prepare = prepare
    signed_in.engines = []

    def engine():
        signed_in.engines.append(FakeEngine(signed_in.prepare))
        return signed_in.engines[-1]

    monkeypatch.setattr("coder.dataplane.engine.Engine", engine)
    return signed_in
