"""Network namespaces: made under names of this process, removed with everything in them."""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

PREFIX = "lab-"
FILES = Path("/etc/netns")
"""What lies in a namespace's directory here is seen as /etc by the processes inside (ip-netns(8))."""


def why_not() -> str | None:
    """What keeps this machine from making network namespaces, if anything does."""
    for tool in ("ip", "nft", "unshare"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    if os.geteuid() != 0:
        return "the lab needs root"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    made = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    return None if made.returncode == 0 else f"network namespaces are not allowed here: {made.stderr.strip()}"


class CommandError(Exception):
    """A command that builds the lab failed."""


def command(*words: object, text: str = "") -> str:
    """Run a command and return what it says. Raises CommandError."""
    spoken = [str(word) for word in words]
    done = subprocess.run(spoken, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandError(f"{' '.join(spoken)}\n{text}\n{done.stderr}")
    return done.stdout


class Namespace:
    """One namespace: a host or a router. Closing it ends its processes and takes its interfaces along."""

    count = 0
    lock = threading.Lock()

    def __init__(self, label: str, **sysctls: int) -> None:
        with Namespace.lock:
            Namespace.count += 1
            self.name = f"{PREFIX}{os.getpid()}-{Namespace.count}-{label}"
        self.label = label
        self.processes: list[subprocess.Popen] = []
        command("ip", "netns", "add", self.name)
        self.ip("link set lo up")
        settings = {"net.ipv6.conf.all.accept_dad": 0, "net.ipv6.conf.default.accept_dad": 0} | sysctls
        self.run("sysctl", "-qw", *(f"{name}={value}" for name, value in settings.items()))

    @property
    def path(self) -> Path:
        return Path("/run/netns") / self.name

    def ip(self, *lines: str) -> None:
        """Obey lines of ip(8), such as `addr add 10.0.0.1/24 dev wan`."""
        command("ip", "-n", self.name, "-batch", "-", text="\n".join(lines) + "\n")

    def nft(self, rules: str) -> None:
        """Obey a text of nft(8)."""
        self.run("nft", "-f", "-", text=rules)

    def file(self, name: str, content: str) -> None:
        """Have processes inside see /etc/NAME with this content."""
        (FILES / self.name).mkdir(parents=True, exist_ok=True)
        (FILES / self.name / name).write_text(content)

    def inside(self, *words: object) -> list[str]:
        """The command line that runs a command in here; the process started is that command itself."""
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    def run(self, *words: object, text: str = "") -> str:
        """Run a command in here to its end. Raises CommandError."""
        return command(*self.inside(*words), text=text)

    def popen(self, *words: object, **options: Any) -> subprocess.Popen:
        """Start a command in here. It is killed with the namespace, at the latest."""
        process = subprocess.Popen(self.inside(*words), **options)
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        remove(self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def remove(name: str) -> None:
    """Remove a namespace, and whatever still runs in it."""
    with contextlib.suppress(CommandError):
        for pid in command("ip", "netns", "pids", name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        command("ip", "netns", "del", name)
    shutil.rmtree(FILES / name, ignore_errors=True)


def stale() -> Iterator[str]:
    """Namespaces of test processes that are gone."""
    for path in Path("/run/netns").glob(f"{PREFIX}*-*"):
        owner = path.name.removeprefix(PREFIX).split("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            yield path.name


def clean() -> None:
    """Remove what test processes that were killed have left."""
    for name in stale():
        remove(name)
