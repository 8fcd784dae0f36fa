"""Our command and our agent at another implementation's server, which runs already.

`CODER_REAL_SERVER` is its URL, `CODER_REAL_SERVER_TOKEN` a token of a user there, and `CODER_REAL_AGENT_TOKEN` that of
the only agent of their workspace `dev`.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.deployment import CODER, wait_until

from interop.real import Command

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

NAMES = ("CODER_REAL_SERVER", "CODER_REAL_SERVER_TOKEN", "CODER_REAL_AGENT_TOKEN")


class Guest(Command):
    """Our command, and what it needs to know of that server."""

    def __init__(self, home: Path) -> None:
        super().__init__(CODER, home)
        self.url, self.token, self.agent_token = (os.environ[name] for name in NAMES)


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Guest:
    """Our command, signed in there."""
    if absent := [name for name in NAMES if not os.environ.get(name)]:
        pytest.skip(f"{', '.join(absent)} not set: no server of another implementation to try")
    guest = Guest(tmp_path_factory.mktemp("guest"))
    guest.ok("login", guest.url, CODER_SESSION_TOKEN=guest.token)
    return guest


@pytest.fixture(scope="module")
def agent(guest: Guest) -> Iterator[None]:
    """Our agent, connected there."""
    settings = {"CODER_AGENT_URL": guest.url, "CODER_AGENT_TOKEN": guest.agent_token}
    with (guest.home / "agent.log").open("wb") as log:
        process = subprocess.Popen(
            [CODER, "agent"], env=guest.environment(**settings), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        wait_until("the agent", lambda: _state(guest) == ("connected", "ready"))
        yield
        process.terminate()
        assert process.wait(30) == 0
    wait_until("its goodbye", lambda: _state(guest)[1] == "off")


def _state(guest: Guest) -> tuple[str, str]:
    shown = json.loads(guest.ok("show", "dev", "-o", "json"))
    seen = shown["latest_build"]["resources"][0]["agents"][0]
    return seen["status"], seen["lifecycle_state"]


def test_what_needs_no_agent(guest: Guest) -> None:
    assert guest.url in guest.ok("whoami")
    assert re.search(r"/dev +", guest.ok("list"))
    secret = guest.ok("tokens", "create", "--name", "guest").strip()
    assert secret.partition("-")[0] in guest.ok("tokens", "list", "-o", "json")
    guest.ok("tokens", "rm", "guest")
    assert guest.run("whoami", CODER_SESSION_TOKEN=secret).returncode == 1
    assert "username" in guest.ok("users", "show", "me", "-o", "json")
    assert "Host coder.*" in guest.ok("config-ssh", "--dry-run")
    assert '"can_exchange_messages": true' in guest.ok("netcheck")


@pytest.mark.usefixtures("agent")
def test_pings_and_measures(guest: Guest) -> None:
    assert len(re.findall(r"^pong from dev", guest.ok("ping", "dev", "-n", "3"), re.MULTILINE)) == 3
    relayed = guest.ok("ping", "dev", "-n", "1", CODER_DISABLE_DIRECT_CONNECTIONS="true")
    assert "proxied via DERP" in relayed
    assert "Mbits/sec" in guest.ok("speedtest", "dev", "-t", "1s")


@pytest.mark.usefixtures("agent")
def test_runs_a_command(guest: Guest) -> None:
    done = guest.run("ssh", "dev", "echo hello; exit 3")
    assert (done.returncode, done.stdout) == (3, "hello\n")


@pytest.mark.usefixtures("agent")
def test_finds_the_way_in_order(guest: Guest) -> None:
    found = json.loads(guest.ok("doctor", "dev", "-o", "json"))
    assert [stage["status"] for stage in found["stages"]] == ["ok"] * len(found["stages"])
