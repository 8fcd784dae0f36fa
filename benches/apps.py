"""Web apps: requests per second and throughput through edge and tunnel, beside nginx itself, in one run.

The app is nginx serving files. `small` are requests for 1 KiB over 32 connections (wrk), `down` and `up` one body of
1 GiB (curl). CPU is that of server and agent, not of nginx and the client. Adds `apps...` to build/bench.json.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "benches"))

from bench import cpu_of  # noqa: E402 - the path comes first
from e2e.deployment import PASSWORD, running, wait_until  # noqa: E402
from e2e.services import free_ports  # noqa: E402

SIZE = 1 << 30
CONFIG = """
{user} worker_processes 1; daemon off; pid {place}/pid; error_log {place}/errors warn;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; keepalive_requests 1000000; client_body_temp_path {place}/body;
  proxy_temp_path {place}/p; fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
  server {{
    listen 127.0.0.1:{port}; root {place}/www; client_max_body_size 0;
    location /up/ {{ dav_methods PUT; }}
  }}
}}
"""


def nginx(place: Path, port: int) -> subprocess.Popen:
    (place / "www" / "up").mkdir(parents=True)
    place.chmod(0o755)
    for each in (place / "www", place / "www" / "up"):
        each.chmod(0o777)
    (place / "www" / "small").write_bytes(b"x" * 1024)
    with (place / "www" / "big").open("wb") as big:
        big.truncate(SIZE)
    (place / "nginx.conf").write_text(
        CONFIG.format(place=place, port=port, user="user root;" if os.geteuid() == 0 else "")
    )
    process = subprocess.Popen(["nginx", "-c", str(place / "nginx.conf")], stderr=subprocess.DEVNULL)
    asked = ["curl", "-sf", f"http://127.0.0.1:{port}/small", "-o", "/dev/null"]
    wait_until("nginx", lambda: subprocess.run(asked, check=False).returncode == 0)
    return process


def cookie(url: str, host: str) -> str:
    """The ticket's cookie, as a browser has it from its first request on."""
    body = json.dumps({"email": "a@example.com", "password": PASSWORD}).encode()
    with urllib.request.urlopen(
        urllib.request.Request(f"{url}/api/v2/users/login", body, {"Content-Type": "application/json"})
    ) as answer:
        token = json.load(answer)["session_token"]
    request = urllib.request.Request(f"{url}/small", headers={"Host": host, "Coder-Session-Token": token})
    with urllib.request.urlopen(request) as answer:
        return answer.headers["Set-Cookie"].split(";")[0]


class Run:
    def __init__(self, processes: dict[str, subprocess.Popen]) -> None:
        self.processes = processes
        self.figures: dict[str, list[float]] = {}

    def add(self, name: str, value: float) -> None:
        self.figures.setdefault(name, []).append(value)

    def cpu(self) -> float:
        return sum(cpu_of(process) for process in self.processes.values())

    def small(self, name: str, url: str, headers: list[str], seconds: int) -> None:
        before = self.cpu()
        done = subprocess.run(
            ["wrk", "-t1", "-c32", f"-d{seconds}s", "--latency", *headers, f"{url}/small"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        if "Non-2xx" in done or "Socket errors" in done:
            print(done)
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", done)[1])
        number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", done).groups()
        self.add(f"{name}_small_per_s", rate)
        self.add(f"{name}_small_p99_ms", float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit])
        if name == "apps":
            self.add("apps_small_cpu_us", (self.cpu() - before) / (rate * seconds) * 1e6)

    def large(self, name: str, url: str, headers: list[str], upload: Path | None) -> None:
        before, start = self.cpu(), time.monotonic()
        what = ["-T", str(upload), f"{url}/up/it"] if upload else [f"{url}/big"]
        done = subprocess.run(
            [
                "curl",
                "-sf",
                "-H",
                "Expect:",
                *headers,
                "-o",
                "/dev/null",
                "-w",
                "%{size_download} %{size_upload}",
                *what,
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert max(map(int, done.split())) == SIZE, done
        gbit, direction = SIZE * 8 / 1e9, "up" if upload else "down"
        self.add(f"{name}_{direction}_gbit", gbit / (time.monotonic() - start))
        if name == "apps":
            self.add(f"apps_{direction}_cpu_s_per_gbit", (self.cpu() - before) / gbit)


def main() -> None:
    wanted = argparse.ArgumentParser(description=__doc__)
    wanted.add_argument("--runs", type=int, default=3)
    wanted.add_argument("--seconds", type=int, default=4)
    chosen = wanted.parse_args()
    missing = [each for each in ("nginx", "wrk", "curl") if not shutil.which(each)]
    if missing:
        raise SystemExit(f"not installed: {', '.join(missing)}")
    (port,) = free_ports()
    with tempfile.TemporaryDirectory() as place, running(Path(place), "--wildcard-access-url", "*.apps.test") as made:
        app = nginx(Path(place) / "n", port)
        big = Path(place) / "n" / "www" / "big"
        try:
            measure(chosen, made, port, big)
        finally:
            app.terminate()
            app.wait(10)


def measure(chosen, made, port: int, big: Path) -> None:
    host = f"{port}--main--dev--admin.apps.test"
    run = Run({name: made.processes[name] for name in ("server", "agent")})
    for _ in range(chosen.runs):
        for name, url in (("nginx", f"http://127.0.0.1:{port}"), ("apps", made.url)):
            headers = ["-H", f"Host: {host}", "-H", f"Cookie: {cookie(made.url, host)}"]
            run.small(name, url, headers, chosen.seconds)
            for upload in (None, big):
                run.large(name, url, headers, upload)
    medians = {name: round(statistics.median(values), 4) for name, values in run.figures.items()}
    for name, values in run.figures.items():
        print(f"{name:36} {medians[name]:10.3f}   {min(values):.3f} - {max(values):.3f}")
    report = ROOT / "build" / "bench.json"
    report.parent.mkdir(exist_ok=True)
    before = json.loads(report.read_text()) if report.exists() else {}
    report.write_text(json.dumps(before | {f"apps_{name}": value for name, value in medians.items()}, indent=1))


if __name__ == "__main__":
    main()
