import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from fakes.server import SESSION

from coder.cli import keychain

KEYED = "/api/v2/users/me/keys"


class Keyring:
    """A backend of the `keyring` library that keeps entries in memory."""

    priority = 5

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], str] = {}

    def set_password(self, service: str, name: str, text: str) -> None:
        self.entries[service, name] = text

    def get_password(self, service: str, name: str) -> str | None:
        return self.entries.get((service, name))

    def delete_password(self, service: str, name: str) -> None:
        del self.entries[service, name]


class Locked(Keyring):
    def set_password(self, *_: str) -> None:
        raise RuntimeError("locked")

    get_password = delete_password = set_password


class Forgetful(Keyring):
    def set_password(self, service: str, name: str, text: str) -> None:
        """Take it, and keep nothing."""


class Plain(Keyring):
    priority = 0.5


class Asking(Keyring):
    """Waits for its user, whom nobody asks."""

    def set_password(self, service: str, name: str, text: str) -> None:
        threading.Event().wait()

    get_password = set_password


@pytest.fixture
def home(monkeypatch, tmp_path):
    """A user without --global-config, on a machine with a session bus and without a screen."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path / "coderv2"


@pytest.fixture
def install(monkeypatch):
    def put(backend):
        monkeypatch.setitem(sys.modules, "keyring", SimpleNamespace(get_keyring=lambda: backend))
        return backend

    return put


@pytest.fixture
def sign_in(coder, server, home):
    """Sign in with a token, in the default directory."""
    server.answers[f"POST {KEYED}"] = (201, {"key": SESSION})

    def run(*words):
        return coder("--global-config", "", *words, "login", server.url, CODER_SESSION_TOKEN=SESSION)

    return run


def test_a_session_lives_in_the_keyring_and_in_no_file(coder, server, home, install, sign_in):
    keyring = install(Keyring())
    run = sign_in()
    assert run.code == 0, run.err
    assert "kept in the keyring" in run.err
    entry = f"{server.url} {SESSION.partition('-')[0]}"
    assert keyring.entries == {("coder", entry): SESSION}
    assert sorted(path.name for path in home.iterdir()) == ["keyring", "url"]
    assert SESSION not in (home / "keyring").read_text()
    server.calls.clear()
    assert coder("--global-config", "", "whoami").code == 0
    assert server.calls[0].headers["Coder-Session-Token"] == SESSION
    server.answers["POST /api/v2/users/logout"] = (200, {"message": "bye"})
    assert coder("--global-config", "", "logout", "-y").code == 0
    assert keyring.entries == {}
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("backend", [Locked, Forgetful, Plain])
def test_a_keyring_that_does_not_work_leaves_the_file(home, install, sign_in, backend):
    install(backend())
    run = sign_in()
    assert run.code == 0, run.err
    assert sorted(path.name for path in home.iterdir()) == ["session", "url"]
    assert (home / "session").stat().st_mode & 0o777 == 0o600


def test_a_keyring_that_asks_where_nobody_sees_it_holds_nothing_up(monkeypatch, home, install, sign_in):
    install(Asking())
    monkeypatch.setattr(keychain, "UNSEEN", 0.01)
    assert sign_in().code == 0
    assert (home / "session").exists()


def test_without_the_library_or_a_bus_the_file_is_all_there_is(monkeypatch, home, install, sign_in):
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert sign_in().code == 0
    assert (home / "session").exists()
    keyring = install(Keyring())
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home))
    assert sign_in().code == 0
    assert keyring.entries == {}


def test_the_switch_keeps_to_the_file(home, install, sign_in):
    keyring = install(Keyring())
    sign_in()
    assert keyring.entries
    assert sign_in("--no-keyring").code == 0
    assert keyring.entries == {}, "the old session is forgotten"
    assert sorted(path.name for path in home.iterdir()) == ["session", "url"]


@pytest.mark.usefixtures("home", "sign_in")
def test_so_do_the_variable_and_a_directory_of_one_s_own(coder, server, install, config):
    keyring = install(Keyring())
    assert coder("login", server.url, CODER_SESSION_TOKEN=SESSION).code == 0
    assert (config / "session").exists()
    run = coder("--global-config", "", "login", server.url, CODER_SESSION_TOKEN=SESSION, CODER_USE_KEYRING="false")
    assert run.code == 0
    assert keyring.entries == {}
    assert coder("--global-config", "", "login", "--no-keyring", server.url, CODER_SESSION_TOKEN=SESSION).code == 0


def test_a_keyring_that_is_silent_later_is_one_clear_line(coder, home, install, sign_in):
    keyring = install(Keyring())
    sign_in()
    for problem, why in ((Locked(), "locked"), (Keyring(), "not have it any more"), (Plain(), "none here")):
        install(problem)
        run = coder("--global-config", "", "whoami")
        assert (run.code, run.err.count("\n")) == (1, 1)
        assert why in run.err
        assert "--no-keyring login" in run.err
    install(keyring)
    assert coder("--global-config", "", "whoami").code == 0


def test_a_session_of_the_keyring_is_for_its_server_alone(coder, home, install, sign_in):
    install(Keyring())
    sign_in()
    assert "not signed in" in coder("--global-config", "", "--url", "http://127.0.0.1:1", "whoami").err


def test_who_has_no_session_there_imports_no_keyring(tmp_path):
    code = (
        "import sys; from coder.cli.main import run; run(['whoami'])\n"
        "assert not {'keyring', 'coder.cli.keychain', 'platformdirs'} & set(sys.modules)"
    )
    env = {"XDG_CONFIG_HOME": str(tmp_path), "PATH": "/usr/bin", "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True)
