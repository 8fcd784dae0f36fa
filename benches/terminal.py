"""The web terminal: output through the WebSocket, and how long a keystroke takes while another terminal floods.

The client reads as the page does, telling what it has shown. CPU is that of server and agent. Adds `terminal...` to
build/bench.json.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from uuid import uuid4

from websockets.asyncio.client import ClientConnection, connect

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "benches"))

from bench import cpu_of  # noqa: E402 - the path comes first
from e2e.deployment import PASSWORD, Deployment, running  # noqa: E402

TELL_EVERY = 64 << 10


class Terminal:
    """A terminal as a page has it."""

    def __init__(self, client: ClientConnection) -> None:
        self.client = client
        self.got = self.told = 0

    async def read(self) -> bytes:
        data = await self.client.recv()
        assert isinstance(data, bytes)
        self.got += len(data)
        if self.got - self.told >= TELL_EVERY:
            self.told = self.got
            await self.client.send(json.dumps({"shown": self.got}))
        return data

    async def until(self, text: bytes) -> None:
        seen = b""
        while text not in seen:
            seen = seen[-len(text) :] + await self.read()

    async def type(self, text: str) -> None:
        await self.client.send(json.dumps({"data": text}).encode())


class Site:
    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        body = json.dumps({"email": "a@example.com", "password": PASSWORD}).encode()
        asked = urllib.request.Request(
            f"{deployment.url}/api/v2/users/login", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked) as answer:
            self.token = json.load(answer)["session_token"]
        workspace = deployment.json("show", "dev")
        workspace = workspace[0] if isinstance(workspace, list) else workspace
        self.agent = workspace["latest_build"]["resources"][0]["agents"][0]["id"]

    def open(self, command: str) -> connect:
        address = f"ws{self.deployment.url[4:]}/api/v2/workspaceagents/{self.agent}/pty"
        return connect(
            f"{address}?reconnect={uuid4()}&height=40&width=120&flow=1&command={command}",
            additional_headers={"Coder-Session-Token": self.token},
            compression=None,
            max_queue=None,
        )

    def cpu(self) -> float:
        return sum(cpu_of(self.deployment.processes[name]) for name in ("server", "agent"))


async def output(site: Site, seconds: float) -> dict[str, float]:
    async with site.open("yes%20the-quick-brown-fox-jumps-over-the-lazy-dog-and-runs-away") as client:
        terminal = Terminal(client)
        await terminal.read()
        began, before, cpu = time.perf_counter(), terminal.got, site.cpu()
        while (elapsed := time.perf_counter() - began) < seconds:
            await terminal.read()
        moved = (terminal.got - before) / 1e6
        return {"MB/s": moved / elapsed, "cpu_s_per_MB": (site.cpu() - cpu) / moved}


async def keystrokes(site: Site, count: int, *, flooding: bool) -> dict[str, float]:
    async with site.open("stty%20raw%20-echo;%20echo%20up;%20cat") as client:
        terminal = Terminal(client)
        await terminal.until(b"up")
        flood = asyncio.create_task(output(site, 3600)) if flooding else None
        took = []
        for _ in range(count):
            await asyncio.sleep(0.02)
            began = time.perf_counter()
            await terminal.type("x")
            await terminal.until(b"x")
            took.append((time.perf_counter() - began) * 1e3)
        if flood is not None:
            flood.cancel()
            await asyncio.gather(flood, return_exceptions=True)
    ordered = sorted(took)
    return {"p50_ms": statistics.median(ordered), "p99_ms": ordered[int(len(ordered) * 0.99)]}


async def measured(site: Site, seconds: float) -> dict[str, dict[str, float]]:
    return {
        "terminal_output": await output(site, seconds),
        "terminal_keystroke": await keystrokes(site, 200, flooding=False),
        "terminal_keystroke_beside_flood": await keystrokes(site, 200, flooding=True),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=4.0)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as place, running(Path(place)) as deployment:
        found = asyncio.run(measured(Site(deployment), given.seconds))
    for name, figures in found.items():
        print(name, " ".join(f"{key}={value:.4g}" for key, value in figures.items()))
    target = ROOT / "build" / "bench.json"
    target.parent.mkdir(exist_ok=True)
    before = json.loads(target.read_text()) if target.exists() else {}
    target.write_text(json.dumps({**before, **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
