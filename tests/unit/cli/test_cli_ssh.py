import pytest
from hypothesis import given
from hypothesis import strategies as st

from coder.cli.commands.ssh import strip_host
from coder.cli.workspaces import Target


@pytest.fixture
def no_keys(monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


NAME = st.from_regex(r"[a-z0-9]+(-[a-z0-9]+)*", fullmatch=True)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("coder.dev", "dev"),
        ("coder.me--dev", "me/dev"),
        ("coder.me--dev--main", "me/dev.main"),
        ("dev.coder", "dev"),
        ("main.dev.coder", "dev.main"),
        ("main.dev.me.coder", "me/dev.main"),
        ("dev", "dev"),
        ("me/dev.main", "me/dev.main"),
        ("dev.other", "dev.other"),
        ("devcoder", "devcoder"),
    ],
)
def test_a_host_name_names_a_workspace(host, name):
    assert strip_host(host, prefix="coder.", suffix="coder") == name


def test_without_prefix_and_suffix_a_name_is_itself():
    assert strip_host("coder.dev", prefix=None, suffix=None) == "coder.dev"
    assert strip_host("dev.coder", prefix="", suffix="") == "dev.coder"


def test_a_suffix_may_have_its_dot_and_more_of_them():
    assert strip_host("dev.ws.example", prefix=None, suffix=".ws.example") == "dev"


@given(owner=NAME, workspace=NAME, agent=NAME)
def test_each_way_to_write_a_host_leads_to_the_same_agent(owner, workspace, agent):
    target = Target(owner, workspace, agent)
    for host in (f"coder.{owner}--{workspace}--{agent}", f"{agent}.{workspace}.{owner}.coder"):
        assert Target.parse(strip_host(host, prefix="coder.", suffix="coder")) == target
    assert Target.parse(strip_host(f"{agent}.{workspace}.coder", prefix="coder.", suffix="coder")) == Target(
        "me", workspace, agent
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--stdio", "dev", "true"), 2, "--stdio goes without a command"),
        (("-e", "x", "dev"), 2, "NAME=VALUE"),
        (("-A", "dev"), 2, "SSH_AUTH_SOCK"),
        (("nowhere", "true"), 255, "there is no workspace 'nowhere'"),
        (("--stdio", "nowhere"), 255, "there is no workspace 'nowhere'"),
    ],
)
@pytest.mark.usefixtures("no_keys")
def test_what_goes_wrong_here_is_told_in_the_last_line(coder, network, arguments, code, words):
    network.answers["GET /api/v2/users/me/workspace/nowhere"] = (404, {"message": "Resource not found."})
    run = coder("ssh", *arguments)
    assert run.code == code
    assert words in run.err.splitlines()[-1]
    assert run.out == ""
