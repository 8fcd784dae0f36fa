"""A docker daemon, the machine's or one started for the tests, and an image of this very installation of ours."""

import contextlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from e2e.deployment import CODER, PATIENCE, wait_until

IMAGE = "coder-test:latest"
_LEFT_OUT = {"test", "idlelib", "lib2to3", "tkinter", "ensurepip", "site-packages", "dist-packages", "__pycache__"}
_PROGRAMS = ("sh", "cat", "echo", "sleep", "ls", "id", "env", "touch")
_PASSWD = "root:x:0:0:root:/root:/bin/sh\n"


@contextlib.contextmanager
def daemon() -> Iterator[dict[str, str]]:
    """Find a daemon or start one; the value is what its client needs in the environment. Skips where there is none."""
    if shutil.which("docker") is None:
        pytest.skip("the program docker is not installed")
    if _answers({}):
        yield {}
        return
    program = shutil.which("dockerd", path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    if program is None or os.getuid() != 0:
        pytest.skip("no docker daemon answers, and none can be started: that needs dockerd and root")
    with TemporaryDirectory(prefix="docker-", ignore_cleanup_errors=True) as place:  # its sockets want a short path
        yield from _started(program, Path(place))


def _started(program: str, place: Path) -> Iterator[dict[str, str]]:
    own = {"DOCKER_HOST": f"unix://{place}/sock"}
    words = [program, "--host", own["DOCKER_HOST"], "--data-root", place / "root", "--exec-root", place / "exec"]
    words += ["--pidfile", place / "pid", "--bridge", "none", "--iptables=false", "--ip6tables=false"]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until("the docker daemon", lambda: process.poll() is not None or _answers(own))
        if process.poll() is not None:
            last = (place / "log").read_text().strip().splitlines()[-1]
            pytest.skip(f"a docker daemon cannot run here: {last}")
        yield own
    finally:
        process.terminate()
        process.wait(PATIENCE)
        subprocess.run(["umount", place / "exec/netns/default"], stderr=subprocess.DEVNULL, check=False)


def _answers(environment: dict[str, str]) -> bool:
    words = ["docker", "version", "--format", "{{.Server.Version}}"]
    return subprocess.run(words, env=os.environ | environment, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def image(environment: dict[str, str]) -> Iterator[str]:
    """Have an image with `coder` in it, until the block ends; the value is its name."""
    _import(environment)
    try:
        yield IMAGE
    finally:
        words = ["docker", "rmi", "--force", IMAGE]
        subprocess.run(words, env=os.environ | environment, stdout=subprocess.DEVNULL, check=False)


def _import(environment: dict[str, str]) -> None:
    """Make it of our Python, what we need of its packages, and a shell. Nothing is downloaded."""
    words = ["docker", "import", "--change", f"ENV PATH={CODER.parent}:/bin", "-", IMAGE]
    process = subprocess.Popen(words, env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stdin is not None
    with process.stdin as stream, tarfile.open(fileobj=stream, mode="w|", dereference=True) as image:
        _fill(image)
    assert process.wait() == 0


def _fill(image: tarfile.TarFile) -> None:
    for name in ("root", "tmp", "etc"):
        made = tarfile.TarInfo(name)
        made.type, made.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
        image.addfile(made)
    passwd = tarfile.TarInfo("etc/passwd")
    passwd.size = len(_PASSWD)
    image.addfile(passwd, BytesIO(_PASSWD.encode()))
    interpreter = Path(CODER.read_text().partition("\n")[0].removeprefix("#!"))
    files = {interpreter, CODER, Path(sys.prefix) / "pyvenv.cfg"}
    files |= set(_below(Path(os.__file__).parent)) | set(_packages()) | set(_below(_ours()))
    programs = {name: Path(shutil.which(name) or "").resolve() for name in _PROGRAMS}
    needed = [interpreter, *programs.values(), *(file for file in files if ".so" in file.name)]
    for file in sorted(files | _libraries(needed)):
        image.add(file, recursive=False)
    for name, program in programs.items():
        image.add(program, f"bin/{name}", recursive=False)


def _ours() -> Path:
    import coder

    return Path(coder.__path__[0])


def _below(place: Path) -> Iterator[Path]:
    for directory, inner, names in os.walk(place):
        inner[:] = [name for name in inner if name not in _LEFT_OUT and not name.startswith("config-")]
        yield from (Path(directory) / name for name in names)


def _packages() -> Iterator[Path]:
    """List the files of all packages that ours needs when it runs, and those that say where ours lies."""
    for distribution in _needed("coder-py"):
        for file in importlib.metadata.distribution(distribution).files or ():
            place = Path(str(file.locate()))
            if "__pycache__" not in place.parts and place.exists():
                yield place.resolve()


@cache
def _needed(name: str) -> frozenset[str]:
    found, waiting = set[str](), [name]
    while waiting:
        name = re.split(r"[^\w.-]", waiting.pop())[0].lower().replace("_", "-")
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            if name not in found:
                wanted = importlib.metadata.requires(name) or []
                found.add(name)
                waiting += [one for one in wanted if "extra ==" not in one]
    return frozenset(found | {"greenlet"})


def _libraries(programs: list[Path]) -> set[Path]:
    """Return the shared libraries these need, by the names under which they are looked for."""
    told = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False).stdout
    return {
        Path(word) for line in told.splitlines() for word in line.split() if word.startswith("/") and ":" not in word
    }
