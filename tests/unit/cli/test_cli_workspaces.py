import io
import json
import stat

import pytest
import yaml
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
    assert run.err == "error: A workspace named 'dev' exists already\n"


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
    assert "└─ main (linux, amd64)  connected  healthy  v0.1.0   coder ssh dev" in run.out
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
    run = coder("--force-tty", "delete", "dev", stdin="")
    assert run.code == 1
    assert run.err.splitlines()[-1].startswith("error: an answer is needed")
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
    one = workspace(agent()) | {"template_display_name": "A template with quite a long name"}

    def headers(columns):
        table = listing.LISTING.table([one], columns).splitlines()
        return [name.strip().lower() for name in table[0].split("  ") if name]

    monkeypatch.setattr("sys.stdout", Terminal())
    for width, left in ((200, listing.DEFAULT), (60, ("workspace", "status", "healthy", "agent", "last built"))):
        monkeypatch.setenv("COLUMNS", str(width))
        assert headers(listing.DEFAULT) == list(left)
    chosen = ["workspace", "template", "status"]
    assert headers(chosen) == chosen, "what was asked for stays"
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert headers(listing.DEFAULT) == list(listing.DEFAULT)


class Terminal(io.StringIO):
    """What takes itself for one."""

    def isatty(self) -> bool:
        return True


def two_agents(call):
    tokens = {"web": AGENT_TOKEN, "db": "44444444-4444-4444-8444-444444444444"}
    return 201, workspace(agent(), name=call.body["name"]) | {"agent_token": AGENT_TOKEN, "agent_tokens": tokens}


def test_create_prints_a_unit_without_the_token(coder, signed_in):
    signed_in.answers["POST /api/v2/users/me/workspaces"] = created
    run = coder("create", "box", "-o", "systemd", "--run-as", "ann")
    assert "User=ann\nLoadCredential=token:/etc/coder-agent/box-main.token\n" in run.out
    assert f"Environment=CODER_AGENT_URL={signed_in.url}\n" in run.out
    assert AGENT_TOKEN not in run.out
    assert AGENT_TOKEN in run.err


def test_create_prints_a_document_for_a_new_machine(coder, signed_in):
    signed_in.answers["POST /api/v2/users/me/workspaces"] = two_agents
    run = coder("create", "box", "-o", "cloud-init")
    assert run.out.startswith("#cloud-config\n")
    document = yaml.safe_load(run.out)
    files = {file["path"]: file for file in document["write_files"]}
    token = files["/etc/coder-agent/box-web.token"]
    assert (token["permissions"], token["content"]) == ("0600", AGENT_TOKEN + "\n")
    assert "ExecStart=/usr/local/bin/coder agent" in files["/etc/systemd/system/coder-agent-box-db.service"]["content"]
    assert document["runcmd"][-1][-2:] == ["coder-agent-box-web.service", "coder-agent-box-db.service"]


@pytest.mark.parametrize("user", ["a\nExecStart=/bin/sh", "", "-x", "a b"])
def test_create_puts_no_strange_user_into_a_unit(coder, signed_in, user):
    assert coder("create", "box", "-o", "systemd", "--run-as", user).code == 2
    assert not [call for call in signed_in.calls if call.method == "POST"]


@pytest.mark.parametrize("name", ["x\nExecStart=/bin/evil", "../x", "a/b", ""])
def test_a_server_cannot_name_agents_into_other_files(coder, signed_in, name, tmp_path):
    answer = workspace(agent()) | {"agent_token": AGENT_TOKEN, "agent_tokens": {name: AGENT_TOKEN}}
    signed_in.answers["POST /api/v2/users/me/workspaces"] = (201, answer)
    run = coder("create", "box", "-o", "systemd", "--output-token-file", str(tmp_path / "token"))
    assert (run.code, run.out) == (1, "")
    assert not list(tmp_path.glob("token*"))


TEMPLATE = {
    "id": "55555555-5555-4555-8555-555555555555",
    "active_version_id": "66666666-6666-4666-8666-666666666666",
    "name": "box",
    "kind": "docker",
    "settings": {"image": "a", "cpus": 1},
    "description": "",
}
BUILD = "77777777-7777-4777-8777-777777777777"


def building(status, transition="start", error=None):
    return {"id": BUILD, "transition": transition, "job": {"status": status, "error": error}}


def test_create_of_a_template_shows_the_build_until_it_is_over(coder, signed_in):
    signed_in.answers["GET /api/v2/organizations/default/templates/box"] = (200, TEMPLATE)
    made = workspace(agent(), name="dev")
    made["latest_build"] |= building("pending")
    signed_in.answers["POST /api/v2/users/me/workspaces"] = (201, made)
    signed_in.answers[f"GET /api/v2/workspacebuilds/{BUILD}"] = (200, building("succeeded"))
    line = {"id": 1, "created_at": "2030-01-01T00:00:00Z", "output": "pulling\x1b[2J", "stage": "Start"}
    signed_in.answers[f"GET /api/v2/workspacebuilds/{BUILD}/logs"] = lambda call: (
        200,
        [line] if call.query.get("after") == ["0"] else [],
    )
    signed_in.answers[BY_NAME] = (200, made)
    run = coder("create", "dev", "-t", "box", "--parameter", "size=l", "--stop-after", "8h")
    assert run.code == 0, run.err
    assert run.err.count("pulling") == 1
    assert "\x1b" not in run.err
    (asked,) = signed_in.asked("/api/v2/users/me/workspaces")
    assert asked.body == {
        "name": "dev",
        "template_id": TEMPLATE["id"],
        "ttl_ms": 28_800_000,
        "rich_parameter_values": [{"name": "size", "value": "l"}],
    }


@pytest.mark.parametrize(("command", "transition"), [("stop", "stop"), ("restart", "stop")])
def test_a_build_that_fails_is_one_line(coder, signed_in, command, transition):
    found = workspace(agent())
    signed_in.answers[BY_NAME] = (200, found)
    path = f"POST /api/v2/workspaces/{found['id']}/builds"
    signed_in.answers[path] = (201, building("failed", transition, "No docker. Install docker."))
    signed_in.answers[f"GET /api/v2/workspacebuilds/{BUILD}/logs"] = (200, [])
    run = coder(command, "dev")
    assert run.code == 1
    assert run.err == "error: the workspace 'dev' could not be stopped: No docker. Install docker\n"
    assert [call.body for call in signed_in.asked(path.partition(" ")[2])] == [{"transition": "stop"}]


def test_start_of_what_runs_does_nothing(coder, signed_in):
    signed_in.answers[BY_NAME] = (200, workspace(agent()))
    assert coder("start", "dev").out == "The workspace 'dev' is running already.\n"


def test_templates_are_listed_shown_and_edited(coder, signed_in, tmp_path):
    signed_in.answers["GET /api/v2/templates"] = (
        200,
        [TEMPLATE | {"workspace_count": 2, "default_ttl_ms": 28_800_000}],
    )
    assert coder("templates", "list").out.splitlines()[1].split() == ["box", "docker", "2", "8h"]
    signed_in.answers["GET /api/v2/organizations/default/templates/box"] = (200, TEMPLATE)
    file = tmp_path / "box.yaml"
    file.write_text(coder("templates", "show", "box").out)
    path = f"PATCH /api/v2/templates/{TEMPLATE['id']}"
    signed_in.answers[path] = (200, TEMPLATE)
    assert coder("templates", "edit", "box", "--set", "image=b").code == 0
    assert signed_in.asked(path.partition(" ")[2])[-1].body == {"settings": {"image": "b", "cpus": 1}}
    assert coder("templates", "edit", "box", "-f", str(file)).code == 0
    assert signed_in.asked(path.partition(" ")[2])[-1].body == {"settings": TEMPLATE["settings"], "description": ""}
    file.write_text("kind: docker\ncolour: red\n")
    assert "has no colour" in coder("templates", "create", "x", "-f", str(file)).err
    assert coder("templates", "create", "x").code == 2, "who starts the agents?"
    assert coder("templates", "edit", "box").code == 2, "nothing to change"


def test_schedules_are_shown_and_set(coder, signed_in):
    found = workspace(agent()) | {"ttl_ms": 3_600_000, "autostart_schedule": "30 9 * * 1-5"}
    signed_in.answers[BY_NAME] = (200, found)
    shown = coder("schedule", "show", "dev").out.splitlines()
    assert shown == ["starts  30 9 * * 1-5", "stops   after 1h without use"]
    for words, body in (
        (("stop", "dev", "8h"), {"ttl_ms": 28_800_000}),
        (("stop", "dev", "manual"), {"ttl_ms": None}),
    ):
        path = f"PUT /api/v2/workspaces/{found['id']}/ttl"
        signed_in.answers[path] = (204, b"")
        assert coder("schedule", *words).code == 0
        assert signed_in.asked(path.partition(" ")[2])[-1].body == body


def test_a_start_by_the_clock_is_written_as_people_do(coder, signed_in):
    found = workspace(agent()) | {"next_start_at": "2999-01-01T09:30:00Z"}
    signed_in.answers[BY_NAME] = (200, found)
    path = f"/api/v2/workspaces/{found['id']}/autostart"
    signed_in.answers[f"PUT {path}"] = (204, b"")
    run = coder("schedule", "start", "dev", "9:30AM", "Mon-Fri", "UTC")
    assert run.code == 0, run.err
    assert signed_in.asked(path)[-1].body == {"schedule": "CRON_TZ=UTC 30 9 * * mon-fri"}
    assert "next on 2999-01-01" in run.out
    assert coder("schedule", "start", "dev", "manual").code == 0
    assert signed_in.asked(path)[-1].body == {"schedule": None}
    assert "five cron fields" in coder("schedule", "start", "dev", "9").err


def test_a_time_too_short_to_be_idle_and_a_stop_that_never_comes(coder, signed_in):
    signed_in.answers[BY_NAME] = (200, workspace(agent()))
    assert "a minute at least" in coder("schedule", "stop", "dev", "10ns").err
    assert "coder schedule stop dev 8h" in coder("schedule", "extend", "dev", "3h").err
    assert not [call for call in signed_in.calls if call.method == "PUT"]


def test_extending_never_brings_the_stop_nearer(coder, signed_in):
    found = workspace(agent())
    found["latest_build"]["deadline"] = "2999-01-01T00:00:00Z"
    signed_in.answers[BY_NAME] = (200, found)
    run = coder("schedule", "extend", "dev", "3h")
    assert run.code == 0
    assert "longer than that already" in run.out
    assert not [call for call in signed_in.calls if call.method == "PUT"]
