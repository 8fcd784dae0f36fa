import io
import json
import stat

import pytest
from fakes.server import AGENT_ID, agent, workspace

from coder.cli.commands import list as listing

AGENT_TOKEN = "33333333-3333-4333-8333-333333333333"
BY_NAME = "GET /api/v2/users/me/workspace/dev"
MISSING = {"message": "Resource not found or you do not have access to this resource"}


def created(call):
    return 201, workspace(agent(status="connecting"), name=call.body["name"]) | {"agent_token": AGENT_TOKEN}


def test_create_prints_the_one_line_to_run(coder, signed_in):
    signed_in.answers["POST /api/v2/users/me/workspaces"] = created
    run = coder("create", "box")
    assert run.code == 0, run.err
    assert run.out == f"CODER_AGENT_URL={signed_in.url} CODER_AGENT_TOKEN={AGENT_TOKEN} coder agent\n"
    assert "'box' has been created" in run.err


def test_create_for_scripts(coder, signed_in):
    signed_in.answers["POST /api/v2/users/me/workspaces"] = created
    made = json.loads(coder("create", "box", "-o", "json").out)
    assert made["agent_token"] == AGENT_TOKEN
    assert made["agent_id"] == str(AGENT_ID)
    assert made["name"] == "box"


def test_create_can_keep_the_token_off_the_screen(coder, signed_in, tmp_path):
    signed_in.answers["POST /api/v2/users/me/workspaces"] = created
    for form in ("text", "json"):
        file = tmp_path / form
        run = coder("create", "box", "-o", form, "--output-token-file", str(file))
        assert run.code == 0, run.err
        assert AGENT_TOKEN not in run.out + run.err
        assert f"CODER_AGENT_TOKEN_FILE={file}" in run.out
        assert file.read_text() == AGENT_TOKEN + "\n"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(("file", "problem"), [("there", "exists already"), ("nowhere/token", "there is no directory")])
def test_create_makes_nothing_when_the_token_could_not_be_kept(coder, signed_in, tmp_path, file, problem):
    (tmp_path / "there").write_text("another workspace's")
    run = coder("create", "box", "--output-token-file", str(tmp_path / file))
    assert run.code == 2
    assert problem in run.err
    assert (tmp_path / "there").read_text() == "another workspace's"
    assert not [call for call in signed_in.calls if call.method == "POST"]


def test_create_of_a_name_that_is_taken(coder, signed_in):
    body = {
        "message": "A workspace named 'dev' exists already.",
        "validations": [{"field": "name", "detail": "Taken."}],
    }
    signed_in.answers["POST /api/v2/users/me/workspaces"] = (409, body)
    run = coder("create", "dev")
    assert run.code == 1
    assert run.err == "error: A workspace named 'dev' exists already: name: Taken\n"


def test_list_shows_a_table(coder, signed_in):
    signed_in.answers["GET /api/v2/workspaces"] = (200, {"workspaces": [workspace(agent())], "count": 1})
    run = coder("list", "-c", "workspace,template,status,healthy,agent")
    assert run.out.splitlines() == [
        "WORKSPACE  TEMPLATE  STATUS   HEALTHY  AGENT",
        "alice/dev  machine   Started  true     connected",
    ]
    assert signed_in.calls[-1].query == {"q": ["owner:me"]}


def test_list_of_everyone_and_search(coder, signed_in):
    signed_in.answers["GET /api/v2/workspaces"] = (200, {"workspaces": [], "count": 0})
    run = coder("ls", "-a")
    assert signed_in.calls[-1].query == {}
    assert run.out == ""
    assert "No workspaces found!" in run.err
    coder("list", "--search", "name:x")
    assert signed_in.calls[-1].query == {"q": ["name:x"]}


def test_list_gives_scripts_the_servers_objects(coder, signed_in):
    signed_in.answers["GET /api/v2/workspaces"] = (200, {"workspaces": [workspace(agent())], "count": 1})
    assert json.loads(coder("list", "-o", "json").out) == [workspace(agent())]


def test_list_refuses_unknown_columns(coder, signed_in):
    run = coder("list", "-c", "nope")
    assert run.code == 2
    assert "choose from workspace" in run.err


def test_show_lists_agents_and_their_ports(coder, signed_in):
    signed_in.answers[BY_NAME] = (200, workspace(agent()))
    signed_in.answers[f"GET /api/v2/workspaceagents/{AGENT_ID}/listening-ports"] = (
        200, {"ports": [{"process_name": "node", "network": "tcp", "port": 3000}]},
    )  # fmt: skip
    run = coder("show", "dev")
    assert run.code == 0, run.err
    assert "machine.dev" in run.out
    assert "└─ main (linux, amd64)  connected  healthy  v0.1.0   coder ping dev" in run.out
    assert "3000/tcp node" in run.out


def test_show_says_since_when_an_agent_is_away_and_asks_it_nothing(coder, signed_in):
    away = agent(status="disconnected", disconnected_at="2020-01-01T00:00:00Z")
    signed_in.answers[BY_NAME] = (200, workspace(away))
    assert "disconnected 2" in coder("show", "dev").out
    assert len(signed_in.calls) == 1


def test_an_unknown_workspace(coder, signed_in):
    signed_in.answers[BY_NAME] = (404, MISSING)
    for command in (["show", "dev"], ["delete", "-y", "dev"], ["ping", "dev"], ["speedtest", "dev"]):
        run = coder(*command)
        assert run.code == 1
        assert run.err == ("error: there is no workspace 'dev'. 'coder list' shows yours, 'coder create' makes one.\n")


def test_delete_asks_first(coder, signed_in):
    signed_in.answers[BY_NAME] = (200, workspace(agent()))
    path = f"/api/v2/workspaces/{workspace()['id']}/builds"
    signed_in.answers[f"POST {path}"] = (201, {})
    assert coder("delete", "dev").code == 2, "nobody to ask"
    run = coder("--force-tty", "delete", "dev", stdin="n\n")
    assert (run.code, run.err.splitlines()[-1]) == (1, "Nothing was deleted.")
    assert coder("--force-tty", "delete", "dev", stdin="").code == 130
    assert not signed_in.asked(path)
    run = coder("--force-tty", "delete", "dev", stdin="y\n")
    assert run.out == "The workspace 'dev' has been deleted.\n"
    assert coder("delete", "dev", "-y").code == 0
    assert [call.body for call in signed_in.asked(path)] == [{"transition": "delete"}] * 2


def test_the_server_is_not_there(coder, signed_in, config):
    (config / "url").write_text("http://127.0.0.1:1")
    for command in ("whoami", "list", "show dev", "ping dev", "speedtest dev"):
        run = coder(*command.split())
        assert run.code == 1
        assert run.err.startswith("error: cannot reach the server at http://127.0.0.1:1: nothing listens there. Check")
        assert run.err.count("\n") == 1


def test_a_list_fits_a_narrow_terminal(monkeypatch):
    monkeypatch.setattr("sys.stdout", Terminal())
    one = workspace(agent()) | {"template_display_name": "A template with quite a long name"}
    for columns, left in ((200, listing.DEFAULT), (60, ("workspace", "status", "healthy", "agent", "last built"))):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert tuple(listing._fitting(list(listing.DEFAULT), [one])) == left
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert tuple(listing._fitting(list(listing.DEFAULT), [one])) == listing.DEFAULT


class Terminal(io.StringIO):
    """What takes itself for one."""

    def isatty(self) -> bool:
        return True
