"""`coder ssh` and a workspace that is not ready, is stopped, or is stopped meanwhile."""

import asyncio

import pytest
from fakes.network import AGENT, BY_NAME
from fakes.server import agent, workspace

from coder.cli import waiting

BLOCKING = [{"id": "x", "start_blocks_login": True}]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(waiting, "PACE", 0)
    monkeypatch.setattr(waiting, "BUILD_PACE", 0)


@pytest.fixture
def sessions(monkeypatch):
    """What a session comes to; the commands that were run."""
    asked = []

    async def run(stream, **session):
        stream.close()
        asked.append(session["command"])
        return 0, "status", ""

    monkeypatch.setattr("coder.dataplane.ssh.run_session", run)
    return asked


def starting(network, *states, scripts=BLOCKING):
    """Let the agent say these states, one after the other, the first in the workspace."""
    network.answers[BY_NAME] = (200, workspace(agent(lifecycle_state=states[0], scripts=scripts)))
    left = list(states[1:])

    def answer(_call):
        return 200, agent(lifecycle_state=left.pop(0) if len(left) > 1 else left[0], scripts=scripts)

    network.answers[AGENT] = answer
    lines = [
        {"id": number, "created_at": "2030-01-01T00:00:00Z", "output": f"step {number}\x1b[2J"} for number in (1, 2)
    ]
    network.answers[f"{AGENT}/logs"] = lambda call: (
        200, [one for one in lines if one["id"] > int(call.query["after"][0])],
    )  # fmt: skip


def test_start_scripts_that_block_logins_are_waited_for_and_seen(coder, network, sessions):
    starting(network, "starting", "starting", "ready")
    run = coder("ssh", "dev", "true")
    assert (run.code, sessions) == (0, ["true"]), run.err
    assert [line for line in run.err.splitlines() if "step" in line] == ["  step 1?[2J", "  step 2?[2J"]
    assert "--wait=no" in run.err


@pytest.mark.parametrize(
    ("flags", "scripts", "waits"),
    [
        (("--wait=no",), BLOCKING, False),
        (("--no-wait",), BLOCKING, False),
        ((), [{"id": "x", "start_blocks_login": False}], False),
        (("--wait=yes",), None, True),
    ],
)
def test_who_waits(  # noqa: PLR0917
    coder, network, sessions, flags, scripts, waits
):
    starting(network, "starting", "ready", scripts=scripts)
    run = coder("ssh", *flags, "dev", "true")
    assert (run.code, sessions) == (0, ["true"]), run.err
    assert bool(network.asked(f"{AGENT}/logs".removeprefix("GET "))) is waits


@pytest.mark.parametrize(("state", "words"), [("start_error", "failed"), ("start_timeout", "too long")])
def test_a_start_that_went_wrong_is_told_and_the_session_begins(coder, network, sessions, state, words):
    starting(network, "starting", state)
    run = coder("ssh", "dev", "true")
    assert (run.code, sessions) == (0, ["true"])
    assert words in run.err
    assert "coder logs dev" in run.err


def test_an_agent_that_shuts_down_takes_nobody_in(coder, network, sessions):
    starting(network, "shutting_down", "off")
    run = coder("ssh", "dev", "true")
    assert (run.code, sessions) == (255, [])
    assert "shutting down" in run.err


def stopped():
    found = workspace(agent())
    found["latest_build"] |= {"id": "b1", "transition": "stop", "status": "stopped", "resources": []}
    return found


def begun(status="running", build="b2"):
    found = workspace(agent())
    found["latest_build"] |= {"id": build, "status": status}
    return found


BUILDS = f"POST /api/v2/workspaces/{workspace()['id']}/builds"


def states(*found):
    """Answer with one after the other, the last one for ever."""
    left = list(found)
    return lambda _call: (200, left.pop(0) if len(left) > 1 else left[0])


def test_a_stopped_workspace_is_started(coder, network, sessions):
    network.answers[BY_NAME] = states(stopped(), stopped(), begun("starting"), begun())
    network.answers[BUILDS] = (201, {})
    run = coder("ssh", "dev", "true")
    assert (run.code, sessions) == (0, ["true"]), run.err
    assert "starting it" in run.err
    assert [call.body for call in network.calls if call.method == "POST" and call.path.endswith("builds")] == [
        {"transition": "start"}
    ]


def test_a_stopped_workspace_is_left_alone_when_that_is_wanted(coder, network, sessions):
    network.answers[BY_NAME] = (200, stopped())
    run = coder("ssh", "--disable-autostart", "dev", "true")
    assert (run.code, sessions) == (255, [])
    assert "coder start dev" in run.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("answer", "then", "words"),
    [
        ((400, {"message": "The machine is not ours."}), stopped(), "The machine is not ours"),
        ((201, {}), begun("failed"), "its build failed"),
    ],
)
def test_a_start_that_fails_says_why(  # noqa: PLR0917
    coder, network, sessions, answer, then, words
):
    network.answers[BY_NAME] = states(stopped(), then)
    network.answers[BUILDS] = answer
    run = coder("ssh", "dev", "true")
    assert (run.code, sessions) == (255, [])
    assert words in run.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("later", "words"), [(stopped(), "was stopped. Start it again: coder start dev"), (begun(build="b3"), "anew")]
)
def test_a_session_ends_with_its_workspace(coder, network, monkeypatch, later, words):
    async def endless(stream, **_session):
        with stream:
            stream.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(stream, 1) == b"", "nothing but its end comes"
        return 255, "lost", ""

    monkeypatch.setattr("coder.dataplane.ssh.run_session", endless)
    monkeypatch.setattr("coder.cli.sessions.SETTLED", 0)
    network.answers[BY_NAME] = states(begun(), begun(), later)
    run = coder("ssh", "dev", "true")
    assert run.code == 255
    assert words in run.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("later", "words"),
    [
        ((200, stopped()), "was stopped. Start it again: coder start dev"),
        ((200, begun()), "the connection to dev was lost"),
        ((503, {}), "the connection to dev was lost"),
    ],
)
def test_a_session_that_is_lost_asks_whether_it_was_stopped(coder, network, monkeypatch, later, words):
    async def cut(stream, **_session):
        stream.close()
        network.answers[BY_NAME] = later
        return 255, "lost", ""

    monkeypatch.setattr("coder.dataplane.ssh.run_session", cut)
    network.answers[BY_NAME] = (200, begun())
    run = coder("ssh", "dev", "true")
    assert run.code == 255
    assert words in run.err.splitlines()[-1]
