"""The real server, agents and commands in the lab's networks.

with Internet(NAMES) as net, Lab(net, place) as lab:
    lab.agent("dev", home.host("bob"))                  # a workspace of that name, its agent and an echo service
    with lab.probe("dev", home.host("alice")) as probe:
        probe.until("path", kind="direct")
        over = probe.finish()                           # everything sent has come back
    lab.run("doctor", "dev", place=alice)               # any command of the CLI, inside a namespace
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from e2e.deployment import PATIENCE, Deployment, sign_in, wait_until

from lab.kinds import Kind
from lab.netns import Namespace
from lab.topology import Host, Internet

NAMES = ("coder.lab",)
PORT = 3000
HERE = Path(__file__).resolve().parent
SEARCHED = os.pathsep.join(str(path) for path in (HERE.parents[1] / "src", HERE.parent))


class Lab(Deployment):
    """A server on the internet, and what is started against it. Each process's place is that of its name."""

    def __init__(self, net: Internet, place: Path) -> None:
        super().__init__(place)
        self.net = net
        self.url = f"http://{NAMES[0]}:{PORT}"
        self.address = f"[::]:{PORT}"
        self.host = net.host("server", v6=True)
        self.places: dict[str, Namespace] = {"server": self.host, "cli": self.host}
        self.ports: dict[str, int] = {}
        self.starts = 0

    def __enter__(self) -> Self:
        try:
            self.start_server()
            sign_in(self)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def environment(self, **extra: str) -> dict[str, str]:
        """Routers are asked for ports here: they are the lab's own."""
        return super().environment(**{"CODER_DISABLE_PORT_MAPPING": ""} | extra)

    def placed(self, name: str, *command: str | Path) -> list[str | Path]:
        return self.places[name].inside(*command)

    def start_server(self) -> None:
        self.starts += 1
        super().start_server()

    def healthy(self) -> bool:
        """The server says so itself; from outside its namespace nobody can ask."""
        assert self.processes["server"].poll() is None, f"the server ended:\n{self.log('server')[-2000:]}"
        return self.log("server").count("Access URL") == self.starts

    def run(self, *arguments: str, place: Namespace | None = None, **extra: str) -> subprocess.CompletedProcess:
        self.places["cli"] = place or self.host
        return super().run(*arguments, **extra)

    def agent(self, workspace: str, host: Host) -> None:
        """Create a workspace and start its agent and an echo service on the host."""
        token = self.place / f"{workspace}.token"
        self.ok("create", workspace, "--output-token-file", str(token))
        echo = host.popen(sys.executable, HERE / "echo.py", stdout=subprocess.PIPE, text=True)
        self.places[workspace] = host
        with echo.stdout as announced:
            self.ports[workspace] = int(announced.readline())
        self.restart_agent(workspace)

    def restart_agent(self, workspace: str) -> None:
        token = str(self.place / f"{workspace}.token")
        self.start(workspace, "agent", CODER_AGENT_URL=self.url, CODER_AGENT_TOKEN_FILE=token)
        wait_until(f"the agent of {workspace}", lambda: "agent.connected" in self.log(workspace))

    def probe(self, workspace: str, host: Namespace, **extra: str) -> "Probe":
        environment = self.environment(PYTHONPATH=SEARCHED, **extra)
        log = self.place / f"probe-{workspace}.log"
        return Probe(host.inside(sys.executable, HERE / "probe.py", workspace, self.ports[workspace]), environment, log)


class NothingCameError(AssertionError):
    """An event was waited for in vain."""


class Probe:
    """A running `probe` command, and what it has told so far."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.log = log
        self.events: list[dict[str, Any]] = []
        self.arriving: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.started = time.monotonic()
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.arriving.put(json.loads(line))
        self.arriving.put(None)

    def next(self, patience: float) -> dict[str, Any] | None:
        """The next event; None when there is none for so long. An assertion fails when there will be none."""
        try:
            event = self.arriving.get(timeout=max(patience, 0.0))
        except queue.Empty:
            return None
        assert event is not None, f"the probe ended; it said:\n{self.log.read_text()[-2000:]}\n{self.events}"
        self.events.append(event)
        return event

    def until(self, what: str, patience: float = PATIENCE, **facts: object) -> dict[str, Any]:
        """Wait for an event with these facts, be it past or future."""
        return self.when(
            lambda event: event["what"] == what and facts.items() <= event.items(), patience, f"{what} {facts}"
        )

    def when(self, wanted: Callable[[dict[str, Any]], bool], patience: float, name: str = "") -> dict[str, Any]:
        for event in self.events:
            if wanted(event):
                return event
        deadline = time.monotonic() + patience
        while (left := deadline - time.monotonic()) > 0:
            event = self.next(left)
            if event is not None and wanted(event):
                return event
        raise NothingCameError(
            f"waited {patience:.0f} s for {name}; told so far: {self.events}\n{self.log.read_text()}"
        )

    def hopes(self, what: str, patience: float, **facts: object) -> None:
        """Wait for what may or may not come."""
        with contextlib.suppress(NothingCameError):
            self.until(what, patience, **facts)

    def after(self, moment: float, what: str, patience: float = PATIENCE, **facts: object) -> dict[str, Any]:
        """Wait for an event later than a moment of the monotonic clock."""
        return self.when(
            lambda event: event["at"] > moment and event["what"] == what and facts.items() <= event.items(),
            patience,
            f"{what} {facts}",
        )

    def listen(self, seconds: float) -> None:
        """Take in events for so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.next(left)

    @property
    def path(self) -> str:
        """The kind of path the node uses as far as told."""
        return next((event["kind"] for event in reversed(self.events) if event["what"] == "path"), "none")

    def seconds(self, what: str, **facts: object) -> float | None:
        """When something first was, from the start of the process."""
        for event in self.events:
            if event["what"] == what and facts.items() <= event.items():
                return round(event["at"] - self.started, 3)
        return None

    def longest_stall(self, since: float = 0.0) -> float:
        return max((e["seconds"] for e in self.events if e["what"] == "stall" and e["at"] > since), default=0.0)

    def passes(self, patience: float) -> float:
        """Wait until something sent from now on has come back; the moment on the monotonic clock."""
        asked = time.monotonic()
        self._say("mark")
        return self.after(asked, "marked", patience)["at"]

    def _say(self, word: str) -> None:
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def finish(self, patience: float = PATIENCE) -> dict[str, Any]:
        """End the stream. What was sent must have come back, byte for byte."""
        self._say("end")
        over = self.until("over", patience)
        assert over["same"], over
        assert self.process.wait(PATIENCE) == 0
        return over

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stdin.close()
        self.process.stdout.close()


class World:
    """Both ends of every kind, made when first asked for."""

    def __init__(self, net: Internet, lab: Lab) -> None:
        self.net = net
        self.lab = lab
        self.clients: dict[str, Host] = {}

    def client(self, kind: Kind) -> Host:
        """A host of that kind."""
        if kind.name not in self.clients:
            self.clients[kind.name] = kind.build(self.net)
        return self.clients[kind.name]

    def agent(self, kind: Kind) -> str:
        """The workspace whose agent is in a place of that kind."""
        if kind.name not in self.lab.ports:
            self.lab.agent(kind.name, kind.build(self.net))
        return kind.name
