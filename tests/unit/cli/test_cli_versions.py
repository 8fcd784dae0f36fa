import pytest

from coder.cli import versions


@pytest.mark.parametrize(
    ("build", "differs"),
    [
        ("v2.26.0+py0.1.0", False),
        ("v2.26.0+py0.1.9", False),
        ("v2.31.0+py0.1.0", False),
        ("v2.26.0+py0.2.0", True),
        ("v2.26.0+py1.1.0", True),
        ("v2.26.0+abc1234", False),
        ("v2.19.4", False),
        ("v2.26.0-devel+a8f92cb58", False),
        ("v3.0.0+abc1234", True),
        ("v0.0.0-devel", False),
        ("somebody's fork", False),
    ],
)
def test_which_servers_may_not_suit(build, differs):
    assert versions.mismatch(build, own="0.1.3") is differs


@pytest.fixture
def other(signed_in):
    signed_in.build = "v2.26.0+py9.0.0"
    signed_in.answers["GET /api/v2/buildinfo"] = (200, {"version": signed_in.build})
    return signed_in


def test_the_warning_comes_once_and_asks_without_the_token(coder, other):
    run = coder("whoami")
    assert run.code == 0
    assert run.err.splitlines()[0].startswith("version mismatch: client v")
    assert run.err.splitlines()[0].endswith(", server v2.26.0+py9.0.0")
    [asked] = other.asked("/api/v2/buildinfo")
    assert "Coder-Session-Token" not in asked.headers


def test_the_administrator_may_say_what_to_do(coder, other):
    other.answers["GET /api/v2/buildinfo"] = (200, {"upgrade_message": "Ask Bob for the new one."})
    assert coder("whoami").err.splitlines()[1] == "Ask Bob for the new one."


def test_a_server_that_cannot_say_more_is_warned_of_all_the_same(coder, other):
    other.answers["GET /api/v2/buildinfo"] = (500, {"message": "no"})
    run = coder("whoami")
    assert run.code == 0
    assert "version mismatch" in run.err


@pytest.mark.parametrize("args", [("--no-version-warning",), ()])
def test_no_warning_when_it_is_not_wanted_or_not_needed(coder, other, args):
    if not args:
        other.build = "v2.26.0+fake"
    run = coder(*args, "whoami")
    assert "mismatch" not in run.err
    assert other.asked("/api/v2/buildinfo") == []
