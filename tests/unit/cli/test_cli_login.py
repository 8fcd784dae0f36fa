import stat

import pytest
from fakes.server import SESSION, USER

PASSWORD = "correct-horse-battery"
NEW_KEY = "Zz9zZ9zZ9z-0123456789abcdefghijkl"
FIRST = {"message": "There is no first user yet."}


def accept(call):
    ok = call.body == {"email": "alice@example.com", "password": PASSWORD}
    return (201, {"session_token": SESSION}) if ok else (401, {"message": "The e-mail or the password is wrong."})


@pytest.fixture
def fresh(server):
    """A server that has no users yet."""
    server.answers["GET /api/v2/users/first"] = (404, FIRST)
    server.answers["POST /api/v2/users/first"] = (201, {"user_id": "x", "organization_id": "y"})
    server.answers["POST /api/v2/users/login"] = accept
    return server


def test_makes_the_first_user_from_options_and_keeps_the_session(coder, fresh, config):
    run = coder(
        "login", fresh.url, "--first-user-username", "alice", "--first-user-email", "alice@example.com",
        CODER_FIRST_USER_PASSWORD=PASSWORD,
    )  # fmt: skip
    assert run.code == 0, run.err
    assert run.out == "> Welcome to Coder, alice! You're authenticated.\n"
    assert f"Attempting to authenticate with argument URL: '{fresh.url}'" in run.err
    [call] = [call for call in fresh.asked("/api/v2/users/first") if call.method == "POST"]
    assert call.body["username"] == "alice"
    assert call.body["trial"] is False
    assert (config / "session").read_text().strip() == SESSION
    assert (config / "url").read_text().strip() == fresh.url
    assert stat.S_IMODE((config / "session").stat().st_mode) == 0o600
    assert sorted(path.name for path in config.iterdir()) == ["session", "url"]


def test_asks_for_the_first_user_on_a_terminal_without_showing_the_password(coder, fresh):
    answers = f"alice\nalice@example.com\n{PASSWORD}\n{PASSWORD}\n"
    run = coder("--force-tty", "login", fresh.url, stdin=answers)
    assert run.code == 0, run.err
    assert PASSWORD not in run.out + run.err


def test_without_a_terminal_it_says_which_options_are_missing(coder, fresh):
    run = coder("login", fresh.url, "--first-user-username", "alice")
    assert run.code == 1
    assert "--first-user-email, --first-user-password" in run.err
    assert run.err.count("error:") == 1


def test_signs_in_with_a_password_where_users_exist(coder, server):
    server.answers["POST /api/v2/users/login"] = accept
    run = coder("login", server.url, CODER_FIRST_USER_EMAIL="alice@example.com", CODER_FIRST_USER_PASSWORD=PASSWORD)
    assert run.code == 0, run.err


def test_a_wrong_password_is_one_line(coder, server, config):
    server.answers["POST /api/v2/users/login"] = accept
    run = coder("--force-tty", "login", server.url, stdin="alice@example.com\nwrong\n" * 3)
    assert run.code == 1
    assert run.err.splitlines()[-1] == "error: The e-mail or the password is wrong. Try again: coder login."
    assert not config.exists()


def test_a_token_makes_a_key_of_our_own(coder, server, config):
    server.answers["POST /api/v2/users/me/keys"] = (201, {"key": NEW_KEY})
    run = coder("--token", SESSION, "login", server.url)
    assert run.code == 0, run.err
    assert (config / "session").read_text().strip() == NEW_KEY
    assert [call.headers["Coder-Session-Token"] for call in server.calls[1:]] == [SESSION, NEW_KEY]


def test_a_token_can_be_the_session_itself(coder, server, config):
    run = coder("login", server.url, "--use-token-as-session", CODER_SESSION_TOKEN=SESSION)
    assert run.code == 0, run.err
    assert (config / "session").read_text().strip() == SESSION
    assert SESSION not in run.out + run.err


def test_a_pasted_token_is_checked(coder, server, config):
    run = coder("--force-tty", "login", server.url, stdin=f"\n{SESSION}\n")
    assert run.code == 0, run.err
    assert (config / "session").read_text().strip() == SESSION
    assert SESSION not in run.out + run.err


def test_a_refused_token(coder, server):
    server.answers["POST /api/v2/users/me/keys"] = (401, {"message": "no"})
    run = coder("--token", "nonsense", "login", server.url)
    assert run.code == 1
    assert "does not accept this token" in run.err
    assert "nonsense" not in run.err


def test_nobody_to_ask(coder, server):
    run = coder("login", server.url)
    assert run.code == 1
    assert "no credentials" in run.err


def test_no_server_named(coder):
    run = coder("login")
    assert run.code == 1
    assert "coder login <url>" in run.err


def test_without_credentials_a_session_that_works_is_kept(coder, signed_in, config):
    run = coder("login")
    assert run.code == 0, run.err
    assert "authenticate with config URL" in run.err
    assert "signed in already" in run.err
    assert (config / "session").read_text() == SESSION
    assert not [call for call in signed_in.calls if call.method != "GET"], "it is no token to make keys with"


def test_an_old_session_that_does_not_work_is_no_credential(coder, signed_in):
    signed_in.answers["GET /api/v2/users/me"] = (401, {"message": "no"})
    run = coder("login")
    assert run.code == 1
    assert "no credentials" in run.err


def test_a_session_at_another_server_is_not_sent_to_this_one(coder, signed_in, config):
    (config / "url").write_text("https://elsewhere.example.com")
    run = coder("login", signed_in.url)
    assert "no credentials" in run.err
    assert not [call for call in signed_in.calls if "Coder-Session-Token" in call.headers]


def test_logout_tells_the_server_and_forgets(coder, signed_in, config):
    signed_in.answers["POST /api/v2/users/logout"] = (200, {"message": "bye"})
    run = coder("logout", "-y")
    assert run.code == 0
    assert "no longer logged in" in run.out
    assert list(config.iterdir()) == []
    assert signed_in.asked("/api/v2/users/logout")


def test_logout_forgets_even_when_the_session_is_gone(coder, signed_in, config):
    signed_in.answers["POST /api/v2/users/logout"] = (401, {"message": "no"})
    run = coder("logout", "-y")
    assert run.code == 0
    assert list(config.iterdir()) == []


def test_whoami(coder, signed_in):
    assert coder("whoami").out == f"Coder is running at {signed_in.url}, You're authenticated as alice !\n"
    assert f'"username": "{USER["username"]}"' in coder("whoami", "-o", "json").out


def test_an_expired_session_says_where_to_sign_in(coder, signed_in):
    signed_in.answers["GET /api/v2/users/me"] = (401, {"message": "expired"})
    run = coder("whoami")
    assert run.code == 1
    assert run.err == (
        f"error: your session is not valid or has expired. Sign in again: coder login {signed_in.url}.\n"
    )


def test_a_token_given_for_the_call_is_not_mended_by_signing_in(coder, signed_in):
    signed_in.answers["GET /api/v2/users/me"] = (401, {"message": "expired"})
    run = coder("whoami", CODER_SESSION_TOKEN="0123456789-0123456789012345678901")
    assert run.code == 1
    assert "CODER_SESSION_TOKEN" in run.err
    assert "coder login" not in run.err


@pytest.mark.parametrize("kept", [b"a\nb", b"a\0b", "\u20ac".encode(), b"\xff\xfe"])
def test_a_damaged_session_is_no_session(coder, signed_in, config, kept):
    (config / "session").write_bytes(kept)
    run = coder("whoami")
    assert (run.code, run.err.count("\n")) == (1, 1)
    assert f"Sign in again: coder login {signed_in.url}" in run.err
    assert coder("logout", "-y").code == 0
    assert list(config.iterdir()) == []


def test_a_damaged_address_is_no_address(coder, signed_in, config):
    (config / "url").write_bytes(b"\xff\xfe")
    run = coder("whoami")
    assert (run.code, run.err.count("\n")) == (1, 1)
    assert "is not the address of a server" in run.err
    assert coder("login", signed_in.url, "--use-token-as-session", CODER_SESSION_TOKEN=SESSION).code == 0


@pytest.mark.parametrize("text", ["\u00e4=b", "a=\u20ac", "a=b\tc"])
def test_headers_that_cannot_be_sent_are_refused(coder, text):
    run = coder("--header", text, "whoami")
    assert run.code == 2
    assert "printable ASCII" in run.err


def test_not_signed_in(coder):
    run = coder("whoami")
    assert run.code == 1
    assert run.err == "error: you are not signed in. Try 'coder login <url>'.\n"


def test_flags_win_over_variables_and_these_over_files(coder, signed_in, server):
    other = "Other6gH9k-0123456789abcdefghijkl"
    coder("whoami", CODER_SESSION_TOKEN=other)
    coder("--token", "Third", "whoami", CODER_SESSION_TOKEN=other)
    coder("whoami")
    seen = [call.headers["Coder-Session-Token"] for call in signed_in.calls]
    assert seen == [other, "Third", SESSION]


def test_headers_reach_every_request(coder, signed_in):
    coder("--header", "X-One=1", "whoami")
    coder("whoami", CODER_HEADER="X-One=1,X-Two=a=b")
    assert signed_in.calls[0].headers["X-One"] == "1"
    assert signed_in.calls[1].headers["X-Two"] == "a=b"
    run = coder("--header", "nonsense-secret", "whoami")
    assert run.code == 2
    assert "nonsense-secret" not in run.err


def test_a_command_may_print_headers_and_knows_the_server(coder, signed_in, tmp_path):
    count = tmp_path / "count"
    command = f"echo ran >> {count}; echo X-Where=$CODER_URL; echo; echo 'X-Sum = 1=1'"
    run = coder("--header", "X-Sum=0", "--header-command", command, "list")
    assert run.code == 1  # the fake has no list; what counts is what it was sent
    [call] = signed_in.calls
    assert call.headers["X-Where"] == signed_in.url
    assert call.headers["X-Sum"] == "1=1"
    assert count.read_text() == "ran\n"
    coder("whoami", CODER_HEADER_COMMAND="echo X-Env=yes")
    assert signed_in.calls[-1].headers["X-Env"] == "yes"


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("echo X-Key=hush; exit 3", "error: the header command ended with status 3. Run it by hand"),
        ("echo; echo hush", "error: line 2 of the header command is not written key=value. Run it by hand"),
    ],
)
def test_a_header_command_that_fails_is_one_line_without_what_it_printed(coder, signed_in, command, text):
    run = coder("--header-command", command, "whoami")
    assert run.code == 1
    assert run.err.startswith(text)
    assert "hush" not in run.err + run.out
    assert signed_in.calls == []


def test_a_slip_does_not_end_a_login_that_asks(coder, server):
    server.answers["POST /api/v2/users/login"] = accept
    run = coder("--force-tty", "login", server.url, stdin=f"alice@example.com\nwrong\nalice@example.com\n{PASSWORD}\n")
    assert run.code == 0, run.err
    assert "Error: The e-mail or the password is wrong. Once more:" in run.err


def test_what_the_server_would_refuse_is_asked_again_at_once(coder, fresh):
    answers = f"me\na b\nalice\nnonsense\nalice@example.com\nshort\nshort\n{PASSWORD}\n{PASSWORD}\n"
    run = coder("--force-tty", "login", fresh.url, stdin=answers)
    assert run.code == 0, run.err
    for told in ("`me` is reserved", "letters and digits", "An e-mail address is needed", "too easy to guess"):
        assert run.err.count(told) == 1
