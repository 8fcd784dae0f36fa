import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import click
import pytest

from coder import descriptors
from coder.cli import main as program
from coder.cli.context import Globals
from coder.cli.store import ConfigDir
from coder.errors import CoderError
from coder.ids import Secret
from coder.outbound import Outbound

ROOT = Path(__file__).parents[3]
HEAVY = {"fastapi", "sqlalchemy", "pydantic", "structlog", "httpx2", "websockets", "google.protobuf", "asyncio", "rich"}


def test_help_names_every_command_without_importing_any(coder):
    run = coder("--help")
    assert run.code == 0
    for name, (_, text) in program.COMMANDS.items():
        assert f"  {name} " in run.out
        assert text.split()[0] in run.out


def test_starting_imports_nothing_heavy():
    code = "import sys, coder.cli.main; print(' '.join(sys.modules))"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not HEAVY & loaded


def test_the_agent_imports_no_server_and_no_http_client():
    code = "import sys, coder.cli.commands.agent, coder.agent.agent; print(' '.join(sys.modules))"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not {"fastapi", "sqlalchemy", "pydantic", "httpx2", "coder.server", "h11"} & loaded


@pytest.mark.parametrize("name", sorted(set(program.COMMANDS) - {"server"}))
def test_every_command_has_help(coder, name):
    run = coder(name, "--help")
    assert run.code == 0
    assert run.out.startswith(f"Usage: coder {name}")


@pytest.mark.parametrize(
    "command", [["server"], ["relay"], ["--url", "http://127.0.0.1:3000", "agent"]], ids=lambda words: words[-1]
)
def test_what_holds_many_connections_raises_its_limit_of_open_files(coder, monkeypatch, command):
    def raised():
        raise CoderError("the limit was raised")

    monkeypatch.setattr(descriptors, "raise_limit", raised)
    run = coder(*command, CODER_AGENT_TOKEN="33333333-3333-4333-8333-333333333333")
    assert "the limit was raised" in run.err


def test_an_unknown_command_brings_the_nearest(coder):
    run = coder("pnig")
    assert run.code == 2
    assert "Did you mean 'ping'?" in run.err


def test_version(coder):
    assert coder("--version").out == coder("version").out
    assert '"version": "v' in coder("version", "-o", "json").out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(coder, shell):
    run = coder("completion", shell)
    assert run.code == 0
    assert "_CODER_COMPLETE" in run.out


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (KeyboardInterrupt(), 130, ""),
        (click.Abort(), 130, ""),
        (
            UnicodeEncodeError("utf-8", "de\udcff", 2, 3, "surrogates not allowed"),
            1,
            "error: an argument or a variable holds bytes that are not text in UTF-8. Write it in UTF-8.\n",
        ),
        (FileNotFoundError(2, "No such file or directory", "/x"), 1, "error: No such file or directory: /x\n"),
    ],
)
def test_failures_are_told_in_a_line_or_not_at_all(coder, monkeypatch, error, code, text):
    def fail(self):
        raise error

    monkeypatch.setattr(Globals, "api", fail)
    run = coder("whoami")
    assert (run.code, run.err.lstrip()) == (code, text)  # a line break ends the line with the ^C


def test_a_defect_keeps_its_traceback(coder, monkeypatch):
    def fail(self):
        raise ZeroDivisionError

    monkeypatch.setattr(Globals, "api", fail)
    with pytest.raises(ZeroDivisionError):
        coder("whoami")


def test_a_reader_that_leaves_gets_no_complaint():
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run(
        [sys.executable, "-m", "coder.cli.start", "--help"], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert run.returncode == program.EXIT_PIPE
    assert run.stderr == b""


def test_settings_do_not_print_their_secrets(tmp_path):
    flags = Globals(
        url="http://x", url_source="flag", token=Secret("hush"), token_source="flag", config=ConfigDir(tmp_path),
        use_keyring=False,
        given_headers={"X-Key": "quiet"}, header_command="printf X-Key=still", version_warning=True,
        disable_direct=False, map_ports=False, outbound=Outbound(),
        prefer_region=None, verbose=False, force_tty=False, no_color=False,
    )  # fmt: skip
    assert "hush" not in repr(flags)
    assert "quiet" not in repr(flags)
    assert flags.headers("http://x") == {"X-Key": "still"}
    assert "still" not in repr(flags)


@pytest.mark.parametrize(
    "flags",
    [
        ("--url", "http://nowhere.invalid"),
        ("--url=http://nowhere.invalid",),
        ("--url", "http://x", "-v", "--url", "http://nowhere.invalid"),
    ],
)
def test_a_flag_of_all_commands_may_stand_behind_one(coder, flags):
    run = coder("list", *flags, "--token", "x")
    assert run.code == 1
    assert "nowhere.invalid" in run.err
    assert coder("ping", "dev", "--nonsense").code == 2
    assert coder("ping", "dev", "--url").code == 2


@pytest.mark.parametrize("command", [("ping", "dev"), ("doctor",), ("ssh",)])
def test_no_time_at_all_is_refused(coder, command):
    run = coder(*command, "--timeout" if command == ("ssh",) else "-t", "0s", *(["dev"] if command == ("ssh",) else []))
    assert run.code == 2
    assert "is no time at all" in run.err


def start(*words, **more):
    return subprocess.run([sys.executable, "-m", "coder.cli.start", *words], capture_output=True, check=False, **more)


def test_the_process_ends_with_the_command_s_status_and_all_it_printed():
    run = start("--version")
    assert (run.returncode, run.stderr) == (0, b"")
    assert run.stdout.startswith(b"Coder v")
    assert start("nonsense").returncode == 2


def test_what_is_registered_for_the_end_is_still_done():
    code = "import atexit, coder.cli.start as s; atexit.register(print, 'done'); s.end(3)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (run.returncode, run.stdout) == (3, b"done\n")


def test_a_thread_that_still_works_is_waited_for():
    code = (
        "import threading, coder.cli.start as s; go = threading.Event()\n"
        "threading.Thread(target=lambda: (go.wait(), print('worked'))).start(); threading.Timer(0, go.set).start()\n"
        "s.end(0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"worked\n"


def test_closed_streams_do_not_matter():
    run = start("--version", preexec_fn=lambda: [os.close(number) for number in (0, 1, 2)])
    assert run.returncode == 0


def test_ctrl_c_amid_the_imports_prints_nothing():
    code = (
        "import os, signal, sys, coder.cli.start as s\n"
        "class Amid:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'coder.cli.main': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Amid()); s.main()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (run.returncode, run.stderr) == (-signal.SIGINT, b"")


def test_every_command_and_flag_is_in_the_reference(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import docs_cli

    page = docs_cli.page()
    assert docs_cli.PAGE.read_text(encoding="utf-8") == page, "run scripts/docs_cli.py"
    for names, command in docs_cli.commands():
        assert f"# `coder {' '.join(names)}`\n" in page
        assert command.help, names
        for option in docs_cli.options(command):
            assert option.help, (names, option.opts)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, program.EXIT_INTERRUPTED), (signal.SIGTERM, -signal.SIGTERM)]
)
@pytest.mark.parametrize("words", [("whoami",), ("ssh", "dev"), ("show", "dev"), ("netcheck",)], ids=" ".join)
def test_a_command_that_waits_ends_with_a_signal_and_no_traceback(signed_in, config, words, number, status):
    asked, go = threading.Event(), threading.Event()

    def silent(_call):
        asked.set()
        go.wait()
        return 500, {}

    for path in ("users/me", "users/me/workspace/dev", "workspaceagents/connection"):
        signed_in.answers[f"GET /api/v2/{path}"] = silent
    command = [sys.executable, "-m", "coder.cli.start", "--global-config", str(config), *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        try:
            assert asked.wait(30)
            process.send_signal(number)
            _, told = process.communicate(timeout=30)
        finally:
            process.kill()
            go.set()
    assert process.returncode == status
    assert b"Traceback" not in told
    assert b"error" not in told
