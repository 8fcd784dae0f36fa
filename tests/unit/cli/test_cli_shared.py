"""The socket of a shared connection, and who is served there."""

import socket
import threading

import pytest

from coder.cli import shared
from coder.cli.context import Globals
from coder.cli.main import group


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "coder"


def flags(tmp_path, *words) -> Globals:
    with group.make_context("coder", ["--global-config", str(tmp_path), *words, "list"]) as context:
        return Globals.from_flags(sources={"url": "flag", "token": "flag"}, **context.params)


def test_the_directory_is_made_for_its_user_alone(runtime):
    assert shared.directory() == runtime
    assert runtime.stat().st_mode & 0o777 == 0o700


def test_a_directory_that_others_may_enter_or_a_link_is_refused(runtime, tmp_path):
    runtime.mkdir(mode=0o755)
    runtime.chmod(0o755)
    assert shared.directory() is None
    runtime.rmdir()
    (tmp_path / "private").mkdir(mode=0o700)
    runtime.symlink_to(tmp_path / "private")
    assert shared.directory() is None


def test_whatever_makes_another_connection_makes_another_socket(runtime, tmp_path):
    calls = [
        ("dev", ("--token", "a", "--url", "https://x")),
        ("other", ("--token", "a", "--url", "https://x")),
        ("dev", ("--token", "b", "--url", "https://x")),
        ("dev", ("--token", "a", "--url", "https://y")),
        ("dev", ("--token", "a", "--url", "https://x", "--disable-direct-connections")),
        ("dev", ("--token", "a", "--url", "https://x", "--header", "A=b")),
    ]
    places = [shared.place(flags(tmp_path, *words), workspace) for workspace, words in calls]
    assert len(set(places)) == len(calls)
    assert places[0] == shared.place(flags(tmp_path, *calls[0][1]), "dev")
    assert all(place is not None and place.parent == runtime for place in places)


def test_without_a_process_there_is_no_stream(runtime, tmp_path):
    assert shared.take(tmp_path / "none") is None


@pytest.mark.parametrize("gives", [True, False])
def test_a_stream_is_taken_or_it_is_not_given(tmp_path, gives):
    ours, theirs = socket.socketpair()
    with socket.socket(socket.AF_UNIX) as listening, ours, theirs:
        listening.bind(str(tmp_path / "s"))
        listening.listen()

        def serve():
            client, _ = listening.accept()
            with client:
                if gives:
                    socket.send_fds(client, [shared.GIVEN], [theirs.fileno()])
                    client.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        taken = shared.take(tmp_path / "s")
        if taken is None:
            assert not gives
        else:
            stream, held = taken
            with stream, held:
                stream.sendall(b"x")
                assert ours.recv(1) == b"x"
        thread.join()


def test_a_process_of_another_user_is_not_believed(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        monkeypatch.setattr("os.getuid", lambda: 4242)
        assert shared.take(tmp_path / "s") is None
