"""`make bench`: what a user gets, measured on real processes. Prints medians and spread, writes build/bench.json.

Throughput depends on what else the machine does; CPU-seconds per Gbit hardly do. Compare figures of one run only.
"""

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from e2e.deployment import CODER, Deployment, sign_in, wait_until  # noqa: E402 - the path comes first

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_of(process: subprocess.Popen) -> float:
    """CPU-seconds a process and its threads have used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mib(process: subprocess.Popen) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Figures:
    def __init__(self) -> None:
        self.runs: dict[str, list[float]] = {}

    def add(self, **figures: float) -> None:
        for name, value in figures.items():
            self.runs.setdefault(name, []).append(value)

    def report(self) -> dict[str, float]:
        medians = {name: round(statistics.median(values), 4) for name, values in self.runs.items()}
        for name, values in self.runs.items():
            print(f"{name:36} {medians[name]:10.3f}   {min(values):.3f} - {max(values):.3f}")
        return medians


def speedtest(deployment: Deployment, figures: Figures, path: str, direction: str, seconds: float) -> None:
    before = cpu_of_children(), cpu_of(deployment.processes["agent"]), cpu_of(deployment.processes["server"])
    relay = ("--disable-direct-connections",) if path == "relay" else ()
    direct = ("--direct",) if path == "direct" else ()
    result = json.loads(
        deployment.ok(*relay, "speedtest", "dev", "-t", f"{seconds}s", "--direction", direction, *direct, "-o", "json")
    )
    after = cpu_of_children(), cpu_of(deployment.processes["agent"]), cpu_of(deployment.processes["server"])
    overall = result["overall"]
    gbit_s = overall["throughput_mbits"] / 1000
    gbit = gbit_s * (overall["end_time_seconds"] - overall["start_time_seconds"])
    client, agent, server = (late - early for early, late in zip(before, after, strict=True))
    name = f"{path}_{direction}"
    figures.add(
        **{
            f"{name}_gbit": gbit_s,
            f"{name}_cpu_s_per_gbit": (client + agent + server) / gbit,
            f"{name}_client_cpu_s_per_gbit": client / gbit,
            f"{name}_agent_cpu_s_per_gbit": agent / gbit,
            f"{name}_server_cpu_s_per_gbit": server / gbit,
        }
    )


def set_up_times(deployment: Deployment, figures: Figures) -> None:
    """Process start to the first pong, and to the first pong over a direct path."""
    started = time.monotonic()
    with subprocess.Popen(
        [CODER, "ping", "dev", "-n", "5", "--wait", "100ms"],
        env=deployment.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as ping:
        first, direct = None, None
        for line in ping.stdout:
            if line.startswith("pong"):
                first = first or time.monotonic() - started
                if " p2p " in line:
                    direct = direct or time.monotonic() - started
    if first is not None:
        figures.add(first_pong_s=first)
    if direct is not None:
        figures.add(direct_path_s=direct)


def iperf3(figures: Figures, seconds: float) -> None:
    """The kernel's own TCP over loopback, as the yardstick of this hour."""
    if shutil.which("iperf3") is None:
        print("iperf3_gbit: skipped, iperf3 is not installed")
        return
    server = subprocess.Popen(["iperf3", "-s", "-1", "-p", "5299"], stdout=subprocess.DEVNULL)
    time.sleep(0.3)
    done = subprocess.run(
        ["iperf3", "-c", "127.0.0.1", "-p", "5299", "-t", str(int(seconds)), "-J"],
        capture_output=True,
        text=True,
        check=False,
    )
    server.wait(30)
    figures.add(iperf3_gbit=json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"] / 1e9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    figures = Figures()
    with tempfile.TemporaryDirectory() as place:
        deployment = Deployment(Path(place))
        try:
            deployment.start_server()
            sign_in(deployment)
            deployment.ok("create", "dev", "--output-token-file", str(deployment.place / "token"))
            deployment.start_agent()
            wait_until("the agent", lambda: deployment.agent_status() == "connected")
            agent = deployment.processes["agent"]
            time.sleep(2)
            before = cpu_of(agent)
            time.sleep(10)
            figures.add(agent_idle_cpu_percent=(cpu_of(agent) - before) * 10, agent_idle_rss_mib=rss_mib(agent))
            for _ in range(options.runs):
                set_up_times(deployment, figures)
                iperf3(figures, options.seconds)
                for path in ("direct", "relay"):
                    for direction in ("down", "up"):
                        speedtest(deployment, figures, path, direction, options.seconds)
            figures.add(agent_rss_mib=rss_mib(agent), server_rss_mib=rss_mib(deployment.processes["server"]))
        finally:
            deployment.close()
    medians = figures.report()
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    (build / "bench.json").write_text(json.dumps(medians, indent=2) + "\n")


if __name__ == "__main__":
    main()
