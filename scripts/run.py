"""`make run`: the whole of it on this machine, each step a command a user would type.

A server on SQLite, a first user, a workspace `dev`, its agent, `coder ping`, `coder speedtest` direct and relayed. All
state lives in `.run/`; a second run goes on with it. With `--oneshot` it stops after the speed tests.
"""

import argparse
import contextlib
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".run"
CODER = Path(sys.executable).with_name("coder")
PATIENCE = 30.0


class StepError(Exception):
    """A step's command failed; its own output says why."""


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def environment(**extra: str) -> dict[str, str]:
    """The caller's environment without settings of another deployment, and with our own config dir."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CODER_")}
    return kept | {"CODER_CONFIG_DIR": str(STATE / "config")} | extra


def step(*arguments: str, **extra: str) -> None:
    say("$ coder " + shlex.join(arguments))
    if subprocess.run([CODER, *arguments], env=environment(**extra), check=False).returncode != 0:
        raise StepError("coder " + shlex.join(arguments))


def start(name: str, *arguments: str, **extra: str) -> subprocess.Popen[bytes]:
    log = STATE / f"{name}.log"
    say(f"$ coder {shlex.join(arguments)}   # in the background, log in {log.relative_to(ROOT)}")
    with log.open("ab") as output:
        return subprocess.Popen(
            [CODER, *arguments], env=environment(**extra), stdout=output, stderr=subprocess.STDOUT, cwd=ROOT
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def secret(name: str) -> str:
    """A secret of this installation, made once."""
    path = STATE / name
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(18))
    return path.read_text()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError, urllib.error.URLError), urllib.request.urlopen(f"{url}/healthz", timeout=2):
            return
        time.sleep(0.05)
    raise StepError(f"the server did not come up; the end of its log:\n{log.read_text()[-2000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run(oneshot: bool) -> None:
    STATE.mkdir(mode=0o700, exist_ok=True)
    url = f"http://127.0.0.1:{free_port()}"
    with contextlib.ExitStack() as stack:
        server = start(
            "server",
            *("server", "--http-address", url.removeprefix("http://"), "--access-url", url),
            *("--state-dir", str(STATE / "server"), "--derp-server-stun-port", "0"),
        )
        stack.callback(stop, server)
        wait_for(url, server, STATE / "server.log")
        step(
            *("login", url, "--first-user-username", "admin", "--first-user-email", "admin@example.com"),
            CODER_FIRST_USER_PASSWORD=secret("password"),
        )
        token = STATE / "agent-token"
        if not token.exists():
            step("create", "dev", "--output-token-file", str(token))
        agent = start("agent", "agent", CODER_AGENT_URL=url, CODER_AGENT_TOKEN_FILE=str(token))
        stack.callback(stop, agent)
        step("list")
        step("ping", "dev", "-n", "3")
        step("speedtest", "dev", "--direct")
        step("--disable-direct-connections", "speedtest", "dev")
        if oneshot:
            say("Every step worked.")
            return
        password = (STATE / "password").relative_to(ROOT)
        say(f"The server is at {url}\nUser admin, password in {password}. Ctrl-C stops it.")
        print(f"To go on by hand: export CODER_CONFIG_DIR={STATE / 'config'} PATH={CODER.parent}:$PATH", flush=True)
        server.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--oneshot", action="store_true", help="stop after the speed tests")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run(parser.parse_args().oneshot)
    except StepError as failed:
        print(f"\nfailed: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
