"""A real server, a real agent and the real command, each a process of its own, on this machine's loopback."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coder.cli.context import Globals
from coder.cli.main import group

CODER = Path(sys.executable).with_name("coder")
PATIENCE = 30.0
PASSWORD = "correct-horse-battery-9"


def wait_until(what, condition):
    """Poll an outside process; only the hang limit is a time."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {PATIENCE:.0f} s for {what}")


class Deployment:
    def __init__(self, place: Path) -> None:
        self.place = place
        self.url = ""
        self.address = "127.0.0.1:0"
        self.processes: dict[str, subprocess.Popen] = {}
        self.settings: dict[str, str] = {}
        """Variables of all processes."""

    def environment(self, **extra: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CODER_")}
        ours = {"CODER_CONFIG_DIR": str(self.place / "config"), "CODER_DISABLE_PORT_MAPPING": "1", "NO_COLOR": "1"}
        return kept | ours | self.settings | extra

    def placed(self, name: str, *command: str | Path) -> list[str | Path]:
        """The command line of a process of that name; where it runs is for others to say."""
        del name
        return list(command)

    def start(self, name: str, *arguments: str, **extra: str) -> subprocess.Popen:
        log = (self.place / f"{name}.log").open("ab")
        process = subprocess.Popen(
            self.placed(name, CODER, *arguments),
            env=self.environment(**extra),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
        log.close()
        self.processes[name] = process
        return process

    def log(self, name: str) -> str:
        return (self.place / f"{name}.log").read_text()

    def start_server(self, access_url: str = "", *flags: str) -> None:
        """`access_url`: where clients are told to go when that is not where the server listens."""
        if access_url:
            with socket.create_server(("127.0.0.1", 0)) as chosen:
                self.address = f"127.0.0.1:{chosen.getsockname()[1]}"
            self.url = access_url
        self.start(
            "server",
            *("server", "--http-address", self.address, "--state-dir", str(self.place / "state")),
            *("--derp-server-stun-port", "0", *(("--access-url", self.url) if self.url else ()), *flags),
        )
        if not self.url:
            announced = wait_until(
                "the server's address",
                lambda: [line for line in self.log("server").splitlines() if line.startswith("Access URL")],
            )
            self.url = announced[0].split()[-1]
            self.address = self.url.removeprefix("http://")
        wait_until("the server", self.healthy)

    def healthy(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/healthz", timeout=5) as answer:
            return answer.status == 200
        return False

    def stop(self, name: str, *, kill: bool = False) -> int:
        process = self.processes.pop(name)
        process.kill() if kill else process.terminate()
        return process.wait(PATIENCE)

    def start_agent(self) -> None:
        self.start("agent", "agent", CODER_AGENT_URL=self.url, CODER_AGENT_TOKEN_FILE=str(self.place / "token"))

    def run(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.placed("cli", CODER, *arguments),
            env=self.environment(**extra),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def begin(self, *arguments: str, **extra: str) -> subprocess.Popen:
        """Start a command whose output is read while it runs."""
        return subprocess.Popen(
            self.placed("cli", CODER, *arguments),
            env=self.environment(**extra),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    def ok(self, *arguments: str, **extra: str) -> str:
        done = self.run(*arguments, **extra)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "-o", "json"))

    def agent_status(self) -> str:
        workspace = self.json("show", "dev")
        workspace = workspace[0] if isinstance(workspace, list) else workspace
        return workspace["latest_build"]["resources"][0]["agents"][0]["status"]

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait(PATIENCE)


@contextlib.contextmanager
def running(place: Path, *flags: str, agent: bool = True) -> Iterator[Deployment]:
    """A server with these flags, its first user, and the workspace `dev`, whose agent is connected unless told not."""
    made = Deployment(place)
    try:
        made.start_server("", *flags)
        sign_in(made)
        made.ok("create", "dev", "--output-token-file", str(made.place / "token"))
        if agent:
            made.start_agent()
            wait_until("the agent", lambda: made.agent_status() == "connected")
        yield made
    finally:
        made.close()


def sign_in(deployment: Deployment) -> None:
    deployment.ok(
        *("login", deployment.url, "--first-user-username", "admin", "--first-user-email", "a@example.com"),
        CODER_FIRST_USER_PASSWORD=PASSWORD,
    )


def global_flags(deployment: Deployment, **changes: Any) -> Globals:
    """What a command's code gets when it is called with no global flags but these."""
    unset = {param.name: () if param.multiple else False if param.is_flag else None for param in group.params}
    given = {"global_config": str(deployment.place / "config"), "disable_port_mapping": True, "no_color": True}
    return Globals.from_flags(sources={}, **unset | given | changes)
