"""The loss grid: one stream over an imperfect link, the kernel's TCP beside it over the same link.

Runs in a network namespace of its own (`unshare --net`): the server and the workspace live there, the client in a
second one, the lab's link program joins the two. So the loss is on the tunnel's own link: of the direct path, and of
the relayed path's hop between client and relay; the hop between relay and agent is the machine's loopback.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from e2e.deployment import CODER, PATIENCE, Deployment, sign_in, wait_until  # noqa: E402 - the path comes first

LINK = ROOT / "target" / "release" / "lab-link"
NEAR = f"coder-grid-{os.getpid()}"
NEAR_ADDRESS, FAR_ADDRESS = "10.99.0.1", "10.99.0.2"
LOSSES = (0.0, 0.001, 0.01, 0.03)
ROUND_TRIPS = (1, 30, 100)
MSS = 1228
"""What the kernel is given: the tunnel's own packets are of 1280 bytes."""


def shell(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def near(*command: str) -> list[str]:
    return ["ip", "netns", "exec", NEAR, *command]


class Apart(Deployment):
    """Commands run at the near end of the link."""

    def run(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            near(str(CODER), *arguments),
            env=self.environment(**extra),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            stdin=subprocess.DEVNULL,
        )


class Link:
    """The link program, told what to be by lines."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [LINK, f"/run/netns/{NEAR}:near0", f"/proc/{os.getpid()}/ns/net:far0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._process.stdout.readline().strip() != "ready":
            raise RuntimeError("the link program did not start")

    def tell(self, *words: str) -> None:
        for word in words:
            self._process.stdin.write(word + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline().strip()
            if answer != "ok":
                raise RuntimeError(f"{word}: {answer}")

    def shape(self, *, loss: float, round_trip_ms: int, mbit: int) -> None:
        """Queue of one bandwidth-delay product, at least 256 KiB."""
        queue = max(256 << 10, mbit * 125 * round_trip_ms)
        self.tell(f"rate {mbit}m", f"delay {round_trip_ms * 500}us", f"loss {loss}", f"limit {queue}")

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(10)


@contextlib.contextmanager
def joined() -> Iterator[Link]:
    shell("ip", "link", "set", "lo", "up")
    shell("ip", "netns", "add", NEAR)
    try:
        shell(*near("ip", "link", "set", "lo", "up"))
        link = Link()
        try:
            link.tell("largest 1500")
            for prefix, device, own, other in (
                (near(), "near0", NEAR_ADDRESS, FAR_ADDRESS),
                ([], "far0", FAR_ADDRESS, NEAR_ADDRESS),
            ):
                shell(*prefix, "ip", "address", "add", own, "peer", other, "dev", device)
                shell(*prefix, "ip", "link", "set", device, "mtu", "1500", "txqueuelen", "10000", "up")
            yield link
        finally:
            link.close()
    finally:
        shell("ip", "netns", "delete", NEAR)


def kernel(controller: str, seconds: float) -> float:
    """Mbit/s of the kernel's TCP, from the far end to the near one."""
    server = subprocess.Popen(
        ["iperf3", "-s", "-1", "-p", "5299"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until("iperf3", lambda: ":5299 " in shell("ss", "-Hltn"))
        done = shell(
            *near("iperf3", "-c", FAR_ADDRESS, "-p", "5299", "-R", "-C", controller),
            *("-t", str(int(seconds)), "-M", str(MSS), "-J"),
        )
    finally:
        server.terminate()
        server.wait(PATIENCE)
    return json.loads(done)["end"]["sum_received"]["bits_per_second"] / 1e6


def ours(deployment: Deployment, path: str, seconds: float) -> float:
    """Mbit/s through the tunnel, from the workspace to the client."""
    relay = ("--disable-direct-connections",) if path == "relay" else ()
    direct = ("--direct",) if path == "direct" else ()
    arguments = ("speedtest", "dev", "-t", f"{seconds}s", "--direction", "down", *direct)
    result = json.loads(deployment.ok(*relay, *arguments, "-o", "json"))
    return result["overall"]["throughput_mbits"]


def measure(seconds: float, mbit: int, losses: list[float], round_trips: list[int]) -> dict[str, float]:
    figures: dict[str, float] = {}
    with joined() as link, tempfile.TemporaryDirectory() as place:
        link.shape(loss=0, round_trip_ms=1, mbit=mbit)
        deployment = Apart(Path(place))
        deployment.address = f"{FAR_ADDRESS}:3000"
        deployment.url = f"http://{FAR_ADDRESS}:3000"
        try:
            deployment.start_server()
            sign_in(deployment)
            deployment.ok("create", "dev", "--output-token-file", str(deployment.place / "token"))
            deployment.start_agent()
            wait_until("the agent", lambda: deployment.agent_status() == "connected")
            print(f"Mbit/s of one stream over a link of {mbit} Mbit/s, its queue one bandwidth-delay product")
            names = ("cubic", "bbr", "direct", "relay")
            print(f"{'loss %':>7}{'rtt ms':>8}" + "".join(f"{name:>9}" for name in names))
            for round_trip in round_trips:
                for loss in losses:
                    link.shape(loss=loss, round_trip_ms=round_trip, mbit=mbit)
                    row = [kernel("cubic", seconds), kernel("bbr", seconds)]
                    row += [ours(deployment, path, seconds) for path in ("direct", "relay")]
                    print(f"{loss * 100:7.1f}{round_trip:8}" + "".join(f"{value:9.0f}" for value in row), flush=True)
                    cell = f"loss{loss * 100:g}_rtt{round_trip}"
                    figures |= {f"{cell}_{name}_mbit": round(v, 1) for name, v in zip(names, row, strict=True)}
        finally:
            deployment.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--mbit", type=int, default=500)
    parser.add_argument("--loss", type=float, nargs="+", default=LOSSES)
    parser.add_argument("--rtt", type=int, nargs="+", default=ROUND_TRIPS)
    options = parser.parse_args()
    if os.environ.get("CODER_GRID_INSIDE") != "1":
        command = ["unshare", "--net", sys.executable, *sys.argv]
        sys.exit(subprocess.run(command, env=os.environ | {"CODER_GRID_INSIDE": "1"}, check=False).returncode)
    figures = measure(options.seconds, options.mbit, options.loss, options.rtt)
    place = ROOT / "build" / "grid.json"
    place.parent.mkdir(exist_ok=True)
    place.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
