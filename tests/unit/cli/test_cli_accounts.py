import json

import pytest
from fakes.server import agent, workspace

from coder.cli import times

ALICE = {
    "id": "11111111-1111-4111-8111-111111111111",
    "username": "alice",
    "email": "alice@example.com",
    "name": "Alice \x1b[31m",
    "status": "active",
    "roles": [{"name": "owner", "display_name": "Owner"}],
    "organization_ids": ["o"],
}
TOKEN = {
    "id": "Ab3dE6gH9k",
    "token_name": "ci",
    "username": "alice",
    "scope": "all",
    "expires_at": "2030-01-08T00:00:00Z",
}
SECRET = "Ab3dE6gH9k-0123456789abcdefghijkl"
USERS, TOKENS = "/api/v2/users", "/api/v2/users/me/keys/tokens"
MISSING = {"message": "There is no such resource."}


def called(server, method, path):
    return [call for call in server.calls if (call.method, call.path) == (method, path)]


def test_users_are_listed_searched_and_shown(coder, signed_in):
    signed_in.answers[f"GET {USERS}"] = (200, {"users": [ALICE], "count": 1})
    run = coder("users", "list", "--search", "ali", "-c", "username,roles,name")
    assert run.out.splitlines() == ["USERNAME  ROLES  NAME", "alice     owner  Alice ?[31m"]
    assert called(signed_in, "GET", USERS)[0].query == {"q": ["ali"]}
    assert json.loads(coder("users", "list", "-o", "json").out) == [ALICE]
    signed_in.answers[f"GET {USERS}/alice"] = (200, ALICE)
    assert "roles       owner" in coder("users", "show", "alice").out


@pytest.mark.parametrize("none", [[], None])
def test_no_tokens_are_an_empty_list_however_the_server_says_it(coder, signed_in, none):
    signed_in.answers[f"GET {TOKENS}"] = (200, none)
    assert json.loads(coder("tokens", "list", "-o", "json").out) == []


def test_a_new_user_gets_a_password_that_is_printed_once(coder, signed_in):
    signed_in.answers[f"POST {USERS}"] = (201, ALICE)
    run = coder("users", "create", "-u", "alice", "-e", "alice@example.com")
    sent = called(signed_in, "POST", USERS)[0].body
    assert run.out == sent["password"] + "\n"
    assert len(sent["password"]) == 20
    run = coder("users", "create", "-u", "alice", "-e", "alice@example.com", CODER_USER_PASSWORD="given")
    assert run.out == ""
    assert called(signed_in, "POST", USERS)[1].body["password"] == "given"
    made = json.loads(coder("users", "create", "-u", "alice", "-e", "alice@example.com", "-o", "json").out)
    assert made["password"] == called(signed_in, "POST", USERS)[2].body["password"]


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (("suspend", "alice", "-y"), f"PUT {USERS}/alice/status/suspend"),
        (("activate", "alice"), f"PUT {USERS}/alice/status/activate"),
        (("delete", "alice", "-y"), f"DELETE {USERS}/alice"),
        (("edit-roles", "alice", "--roles", "owner, auditor", "-y"), f"PUT {USERS}/alice/roles"),
    ],
)
def test_accounts_are_changed(coder, signed_in, words, call):
    signed_in.answers[call] = (200, ALICE)
    run = coder("users", *words)
    assert run.code == 0, run.err
    assert "'alice'" in run.out
    sent = called(signed_in, *call.split())[0].body
    assert sent == ({"roles": ["owner", "auditor"]} if "roles" in call else None)


@pytest.mark.parametrize("words", [("suspend", "a"), ("delete", "a"), ("edit-roles", "a", "--roles", "")])
def test_nothing_is_changed_when_nobody_is_there_to_confirm(coder, signed_in, words):
    assert coder("users", *words).code == 2
    assert [call for call in signed_in.calls if call.method != "GET"] == []


def test_a_password_is_asked_for_and_never_an_argument(coder, signed_in):
    signed_in.answers["GET /api/v2/users/me"] = (200, ALICE)
    signed_in.answers[f"PUT {USERS}/me/password"] = (204, None)
    run = coder("users", "password", stdin="old one\nnew one\n")
    assert run.code == 0, run.err
    sent = called(signed_in, "PUT", f"{USERS}/me/password")[0].body
    assert sent == {"old_password": "old one", "password": "new one"}
    signed_in.answers[f"PUT {USERS}/bob/password"] = (204, None)
    assert coder("users", "password", "bob", stdin="new one\n").code == 0


def test_tokens_are_made_and_listed(coder, signed_in):
    signed_in.answers[f"POST {TOKENS}"] = (201, {"key": SECRET})
    assert coder("tokens", "create", "-n", "ci", "--lifetime", "8d").out == SECRET + "\n"
    assert called(signed_in, "POST", TOKENS)[0].body == {
        "token_name": "ci",
        "lifetime": 691_200 * 10**9,
        "scope": "all",
    }
    signed_in.answers[f"GET {TOKENS}"] = (200, [TOKEN])
    assert coder("token", "ls", "-c", "id,name").out.splitlines() == ["ID          NAME", "Ab3dE6gH9k  ci"]
    assert "OWNER" in coder("tokens", "list", "--all").out
    assert called(signed_in, "GET", TOKENS)[1].query == {"include_all": ["true"]}
    assert json.loads(coder("tokens", "list", "-o", "json").out) == [TOKEN]


@pytest.mark.parametrize("named", ["ci", "Ab3dE6gH9k", SECRET])
def test_a_token_is_removed_by_name_id_or_itself_and_its_secret_stays_out_of_paths(coder, signed_in, named):
    signed_in.answers[f"GET {TOKENS}/ci"] = (200, TOKEN)
    signed_in.answers[f"GET {TOKENS}/Ab3dE6gH9k"] = (404, MISSING)
    signed_in.answers[f"GET {USERS}/me/keys/Ab3dE6gH9k"] = (200, TOKEN)
    signed_in.answers[f"DELETE {USERS}/me/keys/Ab3dE6gH9k"] = (204, None)
    run = coder("tokens", "rm", named)
    assert (run.code, run.out) == (0, "Token has been deleted.\n"), run.err
    assert not any("0123456789" in call.path for call in signed_in.calls)


def test_a_token_that_is_not_there(coder, signed_in):
    for path in (f"{TOKENS}/x", f"{USERS}/me/keys/x"):
        signed_in.answers[f"GET {path}"] = (404, MISSING)
    run = coder("tokens", "remove", "x")
    assert run.code != 0
    assert run.err == "error: there is no such token. 'coder tokens list' shows yours.\n"


def test_the_audit_log_is_filtered_and_shown(coder, signed_in):
    entry = {"time": "2030-01-01T00:00:00Z", "user": None, "action": "login", "resource_type": "api_key",
             "resource_target": "x\x1b]0;", "additional_fields": {"detail": "d"},
             "status_code": 401, "ip": "192.0.2.1"}  # fmt: skip
    signed_in.answers["GET /api/v2/audit"] = (200, {"audit_logs": [entry], "count": 1})
    run = coder("audit", "--action", "login", "--failed", "--limit", "5")
    assert run.out.splitlines()[1].split() == [
        *times.short("2030-01-01T00:00:00Z").split(),
        "-",
        "login",
        "api_key",
        "x?]0;",
        "d",
        "401",
        "192.0.2.1",
    ]
    query = called(signed_in, "GET", "/api/v2/audit")[0].query
    assert (query["q"], query["limit"]) == (['action:"login" success:false'], ["5"])
    assert json.loads(coder("audit", "-o", "json").out) == [entry]


def test_connections_are_filtered_and_shown(coder, signed_in):
    entry = {"connect_time": "2030-01-01T00:00:00Z", "workspace_owner_username": "alice", "workspace_name": "dev",
             "type": "ssh", "ip": "fd7a::1", "username": "bob",
             "ssh_info": {"disconnect_time": "2030-01-01T00:01:30Z", "exit_code": 3}}  # fmt: skip
    still = entry | {"ssh_info": {"connection_id": "x"}}
    signed_in.answers["GET /api/v2/connectionlog"] = (200, {"connection_logs": [entry, still], "count": 2})
    run = coder("connections", "--workspace", "dev", "--type", "ssh", "--open")
    assert [line.split()[-2:] for line in run.out.splitlines()[1:]] == [["1m30s", "3"], ["fd7a::1", "open"]]
    query = called(signed_in, "GET", "/api/v2/connectionlog")[0].query
    assert query["q"] == ['workspace:"dev" type:"ssh" status:ongoing']
    assert json.loads(coder("connections", "-o", "json").out) == [entry, still]


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (("users", "show", "bob"), f"GET {USERS}/bob"),
        (("users", "suspend", "bob", "-y"), f"PUT {USERS}/bob/status/suspend"),
        (("users", "delete", "bob", "-y"), f"DELETE {USERS}/bob"),
        (("users", "browser-only", "bob"), f"PUT {USERS}/bob/browser-only"),
        (("users", "edit-roles", "bob", "--roles", "", "-y"), f"PUT {USERS}/bob/roles"),
        (("tokens", "create", "-u", "bob"), f"POST {USERS}/bob/keys/tokens"),
    ],
)
def test_an_unknown_user_is_named(coder, signed_in, words, call):
    signed_in.answers[call] = (404, MISSING)
    assert coder(*words).err.startswith("error: there is no user 'bob'")


def test_connections_of_a_workspace_that_is_not_there(coder, signed_in):
    log, found = "/api/v2/connectionlog", "/api/v2/workspaces"
    signed_in.answers[f"GET {log}"] = (200, {"connection_logs": [], "count": 0})
    signed_in.answers[f"GET {found}"] = (200, {"workspaces": [], "count": 0})
    run = coder("connections", "--workspace", "ann/nope")
    assert (run.code, run.err.split(". ")[0]) == (1, "error: there is no workspace 'ann/nope'")
    assert signed_in.asked(log)[0].query == {
        "q": ['workspace_owner:"ann" workspace:"nope"'], "limit": ["50"], "offset": ["0"],
    }  # fmt: skip
    assert signed_in.asked(found)[0].query == {"q": ['name:"nope" owner:"ann"']}
    signed_in.answers[f"GET {found}"] = (200, {"workspaces": [workspace(agent(), name="nope")], "count": 1})
    run = coder("connections", "--workspace", "nope")
    assert (run.code, run.err) == (0, "The log holds no connection of that kind.\n")


def test_what_is_wrong_with_a_request_is_said_in_a_person_s_words(coder, signed_in):
    taken = {
        "message": "A token named 'x' exists already.",
        "validations": [{"field": "token_name", "detail": "Taken."}],
    }
    signed_in.answers[f"POST {TOKENS}"] = (409, taken)
    assert coder("tokens", "create", "-n", "x").err == "error: A token named 'x' exists already\n"
    missing = {"message": "No.", "validations": [{"field": "settings.image", "detail": "Field required"}]}
    signed_in.answers["POST /api/v2/organizations/default/templates"] = (400, missing)
    run = coder("templates", "create", "x", "--kind", "docker")
    assert run.err.startswith("error: No: the setting 'image' is missing. Settings are given with --set NAME=VALUE")
