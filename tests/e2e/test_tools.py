"""Programs that are built on OpenSSH, through what `config-ssh` has written; scp and git are in `test_ssh.py`."""

import json
import os
import random
import shutil
import socket
import struct
import subprocess
import sys

import pytest

from e2e.services import PATIENCE, free_ports, read_all, reverse_all, service

pytestmark = pytest.mark.e2e


@pytest.fixture
def tree(tmp_path):
    """A directory with what goes wrong: many files, names with everything, links, modes, times."""
    top, draw = tmp_path / "tree", random.Random(6)
    for number in range(500):
        place = top / f"d{number % 20}" / "e e"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"f{number} \u00fc'\"*").write_bytes(draw.randbytes(draw.randrange(3000)))
    (top / "big").write_bytes(draw.randbytes(20_000_000))
    (top / "script").write_text("#!/bin/sh\n")
    (top / "script").chmod(0o750)
    os.utime(top / "script", (10**9, 10**9))
    (top / "empty").mkdir()
    for name in (b"caf\xe9", b"caf\xe8"):  # no UTF-8
        (top / os.fsdecode(name)).write_bytes(name)
    return top


def told(top):
    """What of a directory must be the same: each path with its type, mode, time and content."""
    found = {}
    for path in sorted(top.rglob("*")):
        facts = path.lstat()
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        when = None if path.is_dir() or path.is_symlink() else int(facts.st_mtime)
        found[str(path.relative_to(top))] = (oct(facts.st_mode), when, content)
    return found


def run(workspace, program, *arguments, **environment):
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program}")
    done = subprocess.run(
        [program, *map(str, arguments)],
        env=workspace.environment(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def test_rsync_makes_both_sides_the_same_and_moves_nothing_twice(workspace, config, tree, tmp_path):
    def rsync(*arguments):
        return run(workspace, "rsync", "-aH", "--delete", *arguments, RSYNC_RSH=f"ssh -F {config}")

    (tree / "link").symlink_to("nowhere")
    rsync(f"{tree}/", f"dev.coder:{tmp_path}/there/")
    assert told(tmp_path / "there") == told(tree)
    (tmp_path / "there" / "d1" / "stray").touch()
    assert "deleting d1/stray" in rsync("-v", f"{tree}/", f"dev.coder:{tmp_path}/there/")
    rsync(f"dev.coder:{tmp_path}/there/", f"{tmp_path}/back/")
    assert told(tmp_path / "back") == told(tree)


def test_sftp_moves_trees_and_knows_the_space_there(workspace, config, tree, tmp_path):
    batch = tmp_path / "batch"
    batch.write_text(
        f"mkdir {tmp_path}/there\nput -Rp {tree} {tmp_path}/there/\ndf {tmp_path}\n"
        f"get -Rp {tmp_path}/there/tree {tmp_path}/back\nls -l {tmp_path}/there\n"
    )
    shown = run(workspace, "sftp", "-q", "-F", config, "-b", batch, "dev.coder")
    assert "%Capacity" in shown
    assert told(tmp_path / "there" / "tree") == told(tmp_path / "back") == told(tree)


def test_tar_goes_through_pipes_both_ways(workspace, config, tree, tmp_path):
    (tmp_path / "there").mkdir()
    ssh = f"ssh -F {config} dev.coder"
    run(workspace, "sh", "-c", f"tar c -C {tree} . | {ssh} tar x -C {tmp_path}/there")
    (tmp_path / "back").mkdir()
    run(workspace, "sh", "-c", f"{ssh} tar c -C {tmp_path}/there . | tar x -C {tmp_path}/back")
    assert told(tmp_path / "back") == told(tree)


def test_an_editor_brings_a_script_and_reaches_what_it_starts(workspace, config):
    """As VS Code does: no terminal, a script on standard input, a SOCKS port that leads into the workspace."""
    [port] = free_ports()
    words = ["ssh", "-F", config, "-T", "-D", str(port), "-o", "ConnectTimeout=15", "dev.coder", "bash"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    editor = subprocess.Popen(words, env=workspace.environment(), text=True, **pipes)
    with service(reverse_all) as target, editor:
        try:
            editor.stdin.write(f'set -e\nsh -c \'echo "arch==$(uname -m)=="; echo "port=={target}=="\'\n')
            editor.stdin.flush()
            assert editor.stdout.readline().startswith("arch==")
            assert editor.stdout.readline() == f"port=={target}==\n"
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as browser:
                browser.sendall(b"\5\1\0" + b"\5\1\0\3\x09localhost" + struct.pack("!H", target))
                assert browser.recv(2) == b"\5\0"
                assert browser.recv(10)[:2] == b"\5\0"
                browser.sendall(b"hello")
                browser.shutdown(socket.SHUT_WR)
                assert read_all(browser) == b"olleh"
            editor.stdin.write("exit 7\n")
            editor.communicate(timeout=PATIENCE)
            assert editor.returncode == 7
        finally:
            editor.kill()


PLAY = """
- hosts: dev.coder
  gather_facts: false
  tasks:
    - ping:
    - copy: {src: "{{ tree }}/script", dest: "{{ there }}", mode: "0640"}
    - shell: stat -c %a "{{ there }}"
      register: mode
    - assert: {that: mode.stdout == "640"}
    - fetch: {src: "{{ there }}", dest: "{{ back }}", flat: true}
"""


def test_ansible_copies_runs_and_fetches(workspace, config, tree, tmp_path):
    (tmp_path / "play.yaml").write_text(PLAY)
    places = {"tree": tree, "there": tmp_path / "there", "back": tmp_path / "back"}
    places |= {"ansible_python_interpreter": sys.executable, "ansible_remote_tmp": tmp_path / "remote"}
    settings = {
        "ANSIBLE_SSH_ARGS": f"-F {config}",
        "ANSIBLE_PIPELINING": "True",
        "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
        "ANSIBLE_NOCOLOR": "1",
        "LC_ALL": "C.UTF-8",
    }
    given = json.dumps({name: str(value) for name, value in places.items()})
    run(workspace, "ansible-playbook", "-i", "dev.coder,", "-e", given, tmp_path / "play.yaml", **settings)
    assert (tmp_path / "back").read_bytes() == (tree / "script").read_bytes()
