"""Workspaces: create, find, show, rename, use, delete."""

from uuid import uuid4

import pytest

from api.conftest import TOKEN_HEADER, Server


async def test_create_tells_the_agent_token_once_and_stores_its_hash(server: Server):
    workspace = await server.workspace()
    shown = await server.get(f"/workspaces/{workspace.id}")
    assert "agent_token" not in shown
    assert shown == {key: value for key, value in workspace.body.items() if not key.startswith("agent_token")}
    database = (server.deployment.settings.state_path / "coder.db-wal").read_bytes()
    assert workspace.agent_token.encode() not in database
    assert server.headers[TOKEN_HEADER].split("-")[1].encode() not in database


async def test_a_new_workspace_waits_for_its_agent(server: Server):
    workspace = await server.workspace()
    build = workspace.body["latest_build"]
    agent = build["resources"][0]["agents"][0]
    assert (build["status"], build["transition"], build["job"]["status"]) == ("running", "start", "succeeded")
    assert (agent["status"], agent["lifecycle_state"], agent["name"]) == ("connecting", "created", "main")
    await server.clock.advance(121)
    late = await server.get(f"/workspaceagents/{workspace.agent_id}")
    assert late["status"] == "timeout"
    assert late["health"]["healthy"] is False


@pytest.mark.parametrize("name", ["", "two--hyphens", "dots.no", "x" * 33, "-a"])
async def test_a_bad_name_is_refused(server: Server, name: str):
    answer = await server.call("POST", "/users/me/workspaces", json={"name": name})
    assert answer.status_code == 400
    assert answer.json()["validations"][0]["field"] == "name"


@pytest.mark.parametrize("field", ["name", "architecture", "operating_system", "directory"])
@pytest.mark.parametrize("text", ["a\x1b[2J", "a\nb", "a\x7f", "a\x9b2J", "a\u202eb", "a\u2028b"])
async def test_texts_that_steer_a_terminal_are_refused(server: Server, field: str, text: str):
    answer = await server.call("POST", "/users/me/workspaces", json={"name": "dev", field: text})
    assert answer.status_code == 400
    assert answer.json()["validations"][0]["field"] == field


async def test_a_name_is_taken_whatever_its_case_until_the_workspace_is_deleted(server: Server):
    workspace = await server.workspace("dev")
    assert (await server.call("POST", "/users/me/workspaces", json={"name": "DEV"})).status_code == 409
    assert (await server.call("DELETE", f"/workspaces/{workspace.id}")).status_code == 204
    again = await server.workspace("dev")
    assert again.id != workspace.id


async def test_create_by_organization_and_with_the_template_named(server: Server):
    version = (await server.workspace("one")).body["latest_build"]["template_version_id"]
    wanted = {"name": "two", "template_version_id": version}
    answer = await server.call("POST", "/organizations/default/members/me/workspaces", json=wanted)
    assert answer.status_code == 201
    unknown = {"name": "three", "template_id": str(uuid4())}
    assert (await server.call("POST", "/users/me/workspaces", json=unknown)).status_code == 400
    assert (await server.call("POST", "/organizations/x/members/me/workspaces", json=wanted)).status_code == 404


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["dev", "other"]),
        ("owner:me", ["dev", "other"]),
        ('owner:"me"', ["dev", "other"]),
        ('owner:"admin" name:"DE"', ["dev"]),
        ("admin/dev", ["dev"]),
        ("oth", ["other"]),
        ("owner:bob", []),
        ("status:running has-agent:connecting", ["dev", "other"]),
        ("status:stopped", []),
        ("has-agent:connected", []),
        ("template:machine organization:coder outdated:false", ["dev", "other"]),
        ("template:docker", []),
        ("name:%", []),
    ],
)
async def test_the_search_language(server: Server, query: str, found: list[str]):
    await server.workspace("dev")
    await server.workspace("other")
    answer = await server.get("/workspaces", params={"q": query})
    assert [workspace["name"] for workspace in answer["workspaces"]] == found
    assert answer["count"] == len(found)


@pytest.mark.parametrize("query", ["colour:red", "status:on", "id:5", "outdated:maybe", 'name:"open', "has-agent:x"])
async def test_a_bad_search_is_told_what_is_wrong(server: Server, query: str):
    answer = await server.call("GET", "/workspaces", params={"q": query})
    assert answer.status_code == 400
    assert answer.json()["validations"]


async def test_the_list_has_pages_and_a_full_count(server: Server):
    for name in "abc":
        await server.workspace(name)
    for query in ("", "has-agent:connecting"):
        page = await server.get("/workspaces", params={"q": query, "limit": 1, "offset": 1})
        assert [workspace["name"] for workspace in page["workspaces"]] == ["b"]
        assert page["count"] == 3
        past = await server.get("/workspaces", params={"q": query, "offset": 3})
        assert (past["workspaces"], past["count"]) == ([], 3)
    for wrong in ({"limit": -1}, {"limit": 1 << 64}, {"offset": 1 << 64}):
        assert (await server.call("GET", "/workspaces", params=wrong)).status_code == 400


async def test_members_see_only_their_own(server: Server):
    workspace, bob = await server.workspace(), await server.member("bob")
    assert (await bob.get("/workspaces"))["count"] == 0
    for method, path in (
        ("GET", f"/workspaces/{workspace.id}"),
        ("GET", "/users/admin/workspace/dev"),
        ("GET", f"/workspaceagents/{workspace.agent_id}"),
        ("GET", f"/workspaceagents/{workspace.agent_id}/connection"),
        ("GET", f"/workspaces/{workspace.id}/watch"),
        ("DELETE", f"/workspaces/{workspace.id}"),
        ("POST", f"/workspaces/{workspace.id}/usage"),
    ):
        assert (await bob.call(method, path)).status_code == 404, path
    mine = await bob.workspace("dev")
    assert (await server.get("/users/bob/workspace/dev"))["id"] == mine.id


async def test_names_in_routes_have_no_case(server: Server):
    workspace = await server.workspace("dev")
    assert (await server.get("/users/ADMIN/workspace/DEV"))["id"] == workspace.id
    assert (await server.call("GET", "/users/me/workspace/nope")).status_code == 404


async def test_delete_by_build_as_the_command_line_does(server: Server):
    workspace = await server.workspace()
    answer = await server.call("POST", f"/workspaces/{workspace.id}/builds", json={"transition": "delete"})
    assert answer.status_code == 201
    assert (answer.json()["transition"], answer.json()["build_number"]) == ("delete", 2)
    assert answer.json()["status"] == "deleted"
    assert (await server.get("/workspaces"))["count"] == 0
    assert (await server.call("GET", "/users/me/workspace/dev?include_deleted=false")).status_code == 404
    last = await server.get("/users/me/workspace/dev?include_deleted=true")
    assert last["latest_build"]["status"] == "deleted"
    assert (await server.call("GET", f"/workspaceagents/{workspace.agent_id}")).status_code == 404
    again = await server.call("POST", f"/workspaces/{workspace.id}/builds", json={"transition": "delete"})
    assert again.status_code == 409
    agent = {TOKEN_HEADER: workspace.agent_token}
    assert (await server.call("GET", "/workspaceagents/me/reinit", headers=agent)).status_code == 401


async def test_rename(server: Server):
    workspace = await server.workspace("dev")
    await server.workspace("taken")
    path = f"/workspaces/{workspace.id}"
    assert (await server.call("PATCH", path, json={"name": "new"})).status_code == 204
    assert (await server.get(path))["name"] == "new"
    assert (await server.call("PATCH", path, json={"name": "TAKEN"})).status_code == 409
    assert (await server.call("PATCH", path, json={"name": ""})).status_code == 400


async def test_usage_moves_last_used(server: Server):
    workspace = await server.workspace()
    path = f"/workspaces/{workspace.id}"
    await server.clock.advance(60)
    assert (await server.call("POST", f"{path}/usage")).status_code == 204
    body = {"agent_id": str(workspace.agent_id), "app_name": "ssh"}
    assert (await server.call("POST", f"{path}/usage", json=body)).status_code == 204
    assert (await server.get(path))["last_used_at"] > workspace.body["last_used_at"]
    for bad in ({"app_name": "ssh"}, {"agent_id": str(uuid4()), "app_name": "telnet"}):
        assert (await server.call("POST", f"{path}/usage", json=bad)).status_code == 400
    assert (await server.call("POST", f"{path}/usage", content=b"{")).status_code == 400


async def test_builds_and_template_versions_are_shown(server: Server):
    workspace = await server.workspace()
    build = workspace.body["latest_build"]
    assert await server.get(f"/workspacebuilds/{build['id']}") == build
    assert await server.get(f"/workspacebuilds/{build['id']}/parameters") == []
    assert await server.get(f"/workspacebuilds/{build['id']}/logs") == []
    assert (await server.call("GET", f"/workspacebuilds/{uuid4()}")).status_code == 404
    version = build["template_version_id"]
    assert (await server.get(f"/templateversions/{version}"))["job"]["status"] == "succeeded"
    assert await server.get(f"/templateversions/{version}/rich-parameters") == []
    assert (await server.call("GET", f"/templateversions/{uuid4()}")).status_code == 404
    bob = await server.member("bob")
    assert (await bob.call("GET", f"/workspacebuilds/{build['id']}")).status_code == 404
