"""What a workspace may use of this machine: its screen and its GnuPG keys."""

import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from coder.cli import x11
from e2e.services import DRAW, PATIENCE

pytestmark = pytest.mark.e2e


@pytest.fixture
def screen(tmp_path):
    """An X server that wants a cookie; the value is an environment and what it was shown."""
    place = Path(tempfile.mkdtemp(prefix="x"))
    shown = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{place}/screen:0")
        listening.listen()

        def serve():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    shown.append(connection.recv(100))
                    connection.sendall(b"drawn")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        parts = (b"", b"0", x11.PROTOCOL, b"real cookie 16 b")
        (tmp_path / "cookies").write_bytes(
            struct.pack(">H", x11.EVERYWHERE) + b"".join(struct.pack(">H", len(part)) + part for part in parts)
        )
        yield {"DISPLAY": f"{place}/screen:0", "XAUTHORITY": str(tmp_path / "cookies")}, shown
        listening.shutdown(socket.SHUT_RDWR)
    shutil.rmtree(place)


def test_programs_use_the_screen_of_this_machine(workspace, screen, tmp_path):
    environment, shown = screen
    program = tmp_path / "draw.py"
    program.write_text(DRAW.format(src=str(Path(x11.__file__).parents[2])))
    done = workspace.run("ssh", "-X", "dev", sys.executable, str(program), **environment)
    assert (done.returncode, done.stderr) == (0, "")
    display, answer = done.stdout.split()
    assert display.startswith("localhost:1")
    assert answer == "drawn"
    [begin] = shown
    assert begin[12:].rstrip(b"\0") == x11.PROTOCOL + b"\0\0real cookie 16 bdraw"


def test_a_program_that_does_not_know_the_cookie_reaches_no_screen(workspace, screen, tmp_path):
    environment, shown = screen
    program = tmp_path / "draw.py"
    program.write_text(DRAW.format(src=str(Path(x11.__file__).parents[2])))
    done = workspace.run("ssh", "-X", "dev", sys.executable, str(program), "wrong", **environment)
    assert "drawn" not in done.stdout
    assert shown == []


def test_a_screen_that_is_not_there_is_one_line(workspace):
    done = workspace.run("ssh", "-X", "dev", "true", DISPLAY="")
    assert done.returncode == 255
    [line] = done.stderr.splitlines()
    assert "DISPLAY" in line


@pytest.mark.skipif(shutil.which("gpg") is None or shutil.which("gpgconf") is None, reason="there is no gpg")
def test_the_workspace_signs_with_a_key_it_does_not_have(workspace):
    # The paths of gpg's sockets must be short.
    here, there = (Path(tempfile.mkdtemp(prefix="g")) for _ in range(2))
    environment = os.environ | {"GNUPGHOME": str(here)}

    def gpg(*words):
        return subprocess.run(
            ["gpg", "--batch", *words], env=environment, capture_output=True, check=True, timeout=PATIENCE, input=b""
        ).stdout

    try:
        gpg("--passphrase", "", "--quick-generate-key", "pear@example.org", "ed25519", "sign", "never")
        flags = ("ssh", "-G", "-e", f"GNUPGHOME={there}", "dev")
        done = workspace.run(*flags, "echo signed there | gpg --batch --clearsign", GNUPGHOME=str(here))
        assert done.returncode == 0, done.stderr
        (here / "signed").write_text(done.stdout)
        gpg("--verify", str(here / "signed"))
        assert "signed there" in done.stdout
        assert not list((there / "private-keys-v1.d").glob("*"))
    finally:
        for home in (here, there):
            subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, timeout=PATIENCE)
            shutil.rmtree(home, ignore_errors=True)
