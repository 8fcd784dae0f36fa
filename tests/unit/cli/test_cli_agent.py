"""What `coder agent` makes of its options."""

import pytest

from coder import descriptors, log
from coder.cli.commands import agent

TOKEN = "33333333-3333-4333-8333-333333333333"


@pytest.fixture
def told(monkeypatch):
    """The settings of the agents that were run."""
    found = []

    async def run(settings):
        found.append(settings)

    monkeypatch.setattr(agent, "_run", run)
    monkeypatch.setattr(log, "configure", lambda **_: None)
    monkeypatch.setattr(descriptors, "raise_limit", lambda: 0)
    return found


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (72 * 3600.0, False)),
        ({"CODER_AGENT_SSH_MAX_TIMEOUT": "1h0m0s"}, (3600.0, False)),
        ({"CODER_AGENT_SSH_MAX_TIMEOUT": "0"}, (None, False)),
        ({"CODER_AGENT_SSH_MAX_TIMEOUT": "2s", "CODER_AGENT_BLOCK_FILE_TRANSFER": "true"}, (None, True)),
    ],
)
def test_what_sessions_may_do_is_told_by_the_environment(coder, told, environment, expected):
    done = coder("--url", "http://127.0.0.1:1", "agent", "--no-reap", CODER_AGENT_TOKEN=TOKEN, **environment)
    assert done.code == 0, done.err
    [settings] = told
    assert (settings.ssh_silence, settings.block_file_transfer) == expected
