import os
import shutil
import subprocess
import sys

import pytest
from fakes.server import agent, workspace

SHELLS = ["bash", "zsh", "fish", "powershell"]
WORKSPACES = "GET /api/v2/workspaces"


@pytest.fixture
def listed(signed_in, config, monkeypatch):
    """Workspaces of the user, and a program that finds its server by variable, as it does in a shell."""
    two = workspace(agent(), agent(name="db"), name="draft")
    found = [workspace(agent()), two, workspace(agent(), name="other")]
    signed_in.answers[WORKSPACES] = (200, {"workspaces": found, "count": 3})
    monkeypatch.setenv("CODER_CONFIG_DIR", str(config))
    return signed_in


@pytest.fixture
def typed(listed):
    """What a shell is offered for an unfinished line."""

    def run(*words):
        env = os.environ | {
            "_CODER_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["coder", *words]),
            "COMP_CWORD": str(len(words)), "PYTHONPATH": ":".join(sys.path),
        }  # fmt: skip
        code = "from coder.cli.main import run; import sys; sys.exit(run([]))"
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return [line.partition(",")[2] for line in done.stdout.split()]

    return run


def test_names_of_workspaces_are_offered_and_of_agents_where_there_are_several(typed):
    assert typed("ssh", "d") == ["dev", "draft", "draft.main", "draft.db"]
    assert typed("schedule", "show", "o") == ["other"]


def test_commands_and_their_flags_are_offered(typed):
    assert typed("port") == ["port-forward", "port-share"]
    assert typed("ssh", "--share-") == ["--share-idle"]


def test_a_server_that_does_not_answer_offers_nothing_and_says_nothing(typed, listed, config):
    listed.answers[WORKSPACES] = (500, {"message": "no"})
    assert typed("ssh", "d") == []
    (config / "session").unlink()
    assert typed("ssh", "d") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_a_script(coder, shell):
    run = coder("completion", shell)
    assert run.code == 0
    assert f"{shell}_complete" in run.out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_can_read_its_script(coder, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    script = coder("completion", shell).out
    done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
