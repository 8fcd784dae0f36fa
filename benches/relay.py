"""The relay alone: throughput, CPU, a flood, idle clients; beside a real `derper` where there is one (`--derper`).

Adds `relay...` to build/bench.json. CPU is that of the relay's whole process. Compare figures of one run only.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOAD = ROOT / "target" / "release" / "examples" / "relay_load"
TICKS = os.sysconf("SC_CLK_TCK")
PACKET = 1200
WINDOW = 24
WIDE_WINDOW = 1600
"""About what TCP holds of a pair without a window. It no longer fits into the processor's caches, which makes copying
dearer: a flood is compared with it too, to tell what the flood itself costs."""
IDLE_CLIENTS = 10_000
IDLE_SECONDS = 10
DERPER = "CODER_INTEROP_DERPER"
"""Names a real relay's program."""


def cpu(process: subprocess.Popen) -> float:
    """CPU-seconds a process and its threads have used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss(process: subprocess.Popen) -> int:
    """Bytes of memory a process has in use."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024


@contextlib.contextmanager
def ours() -> Iterator[tuple[subprocess.Popen, str]]:
    """A relay of this project, and its address."""
    command = [sys.executable, "-m", "coder.cli.start", "relay", "--address", "127.0.0.1:0", "--stun-port", "-1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    try:
        yield process, process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def derper(program: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """The reference's relay, and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with tempfile.TemporaryDirectory() as place:
        command = [program, "-a", address, "-http-port", "-1", "-stun=false", "-c", f"{place}/key"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(100):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(address[10:]))):
                    break
                time.sleep(0.05)
            yield process, address
        finally:
            process.terminate()
            process.wait(10)


def throughput(relay: subprocess.Popen, address: str, pairs: int, window: int, seconds: int) -> dict[str, float]:
    """Load the relay, and return rates and costs."""
    command = [str(LOAD), address, "pairs", str(pairs), str(window), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
        load.stdout.readline()
        before = cpu(relay)
        _, elapsed, sent, received = load.stdout.readline().split()
        used = cpu(relay) - before
    gbit = int(received) * PACKET * 8 / 1e9
    return {
        "packets_s": int(received) / float(elapsed),
        "gbit": gbit / float(elapsed),
        "cpu_s_per_gbit": used / gbit if gbit else float("inf"),
        "lost": max(0.0, 1 - int(received) / max(1, int(sent))),
    }


def idle(relay: subprocess.Popen, address: str) -> dict[str, float]:
    """Measure what many clients that do nothing cost."""
    before = rss(relay)
    command = [str(LOAD), address, "idle", str(IDLE_CLIENTS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load:
        load.stdout.readline()
        time.sleep(2)
        used, memory = cpu(relay), rss(relay)
        time.sleep(IDLE_SECONDS)
        used = cpu(relay) - used
        load.stdin.close()
    return {"idle_kib_each": (memory - before) / IDLE_CLIENTS / 1024, "idle_cpu_percent": 100 * used / IDLE_SECONDS}


def measure(relay: subprocess.Popen, address: str, seconds: int, runs: int, *, with_idle: bool) -> dict[str, float]:
    """Return the medians of all figures of one relay."""
    figures: dict[str, list[float]] = {}

    def add(prefix: str, found: dict[str, float]) -> None:
        for name, value in found.items():
            figures.setdefault(f"{prefix}_{name}", []).append(value)

    if with_idle:
        add("", idle(relay, address))
    for _ in range(runs):
        for pairs in (1, 10, 100):
            add(str(pairs), throughput(relay, address, pairs, WINDOW, seconds))
        add("10_wide", throughput(relay, address, 10, WIDE_WINDOW, seconds))
        add("10_flood", throughput(relay, address, 10, 0, seconds))
    return {name: statistics.median(values) for name, values in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--derper", default=os.environ.get(DERPER) or shutil.which("derper"), metavar="PROGRAM")
    options = parser.parse_args()
    build = ["cargo", "build", "--quiet", "--release", "--locked", "-p", "edge", "--example", "relay_load"]
    subprocess.run(build, cwd=ROOT, check=True)
    with ours() as (process, address):
        figures = {
            f"relay{name}": value
            for name, value in measure(process, address, options.seconds, options.runs, with_idle=True).items()
        }
    for name, windowed in (("windowed", "relay10_gbit"), ("wide", "relay10_wide_gbit")):
        figures[f"relay10_flood_of_{name}"] = figures["relay10_flood_gbit"] / figures[windowed]
    if options.derper:
        with derper(options.derper) as (process, address):
            theirs = measure(process, address, options.seconds, options.runs, with_idle=False)
        figures |= {f"derper{name}": value for name, value in theirs.items()}
        for pairs in (1, 10, 100):
            ratio = theirs[f"{pairs}_cpu_s_per_gbit"] / figures[f"relay{pairs}_cpu_s_per_gbit"]
            figures[f"relay{pairs}_per_cpu_to_derper"] = ratio
    else:
        print(f"no derper: neither --derper nor {DERPER} names one")
    for name, value in figures.items():
        print(f"{name:36} {value:14.3f}")
    kept = ROOT / "build" / "bench.json"
    kept.parent.mkdir(exist_ok=True)
    known = json.loads(kept.read_text()) if kept.exists() else {}
    known |= {name: round(value, 4) for name, value in figures.items()}
    kept.write_text(json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    main()
