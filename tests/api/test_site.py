"""What the deployment says of itself, and how every refusal looks."""

import pytest
from sqlalchemy.exc import OperationalError

from api.conftest import URL, Server


async def test_health_and_latency_need_no_login(bare: Server):
    health = await bare.http.get("/healthz")
    assert (health.status_code, health.text) == (200, "OK")
    latency = await bare.http.get("/latency-check")
    assert latency.headers["Timing-Allow-Origin"] == "*"
    assert latency.headers["Access-Control-Allow-Credentials"] == "false"


async def test_build_info(bare: Server):
    info = await bare.get("/buildinfo")
    assert info["version"].startswith("v2.26.0+py")
    assert info["dashboard_url"] == URL
    assert info["agent_api_version"] == "1.0"


async def test_every_answer_carries_the_envelope(server: Server):
    for path in ("/buildinfo", "/nothing", "/users/me"):
        headers = (await server.call("GET", path)).headers
        assert headers["X-Coder-Build-Version"].startswith("v2.")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert len(headers["X-Coder-Request-Id"]) == 36
        assert headers["Content-Type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize("path", ["/api/v2/nothing", "/api/v2/appearance", "/api/v2/entitlements", "/nothing"])
async def test_an_unknown_route_is_told_so_in_json(server: Server, path: str):
    answer = await server.http.get(path, headers=server.headers)
    assert (answer.status_code, answer.json()) == (404, {"message": "Route not found."})


async def test_a_wrong_method_is_told_so(server: Server):
    answer = await server.call("DELETE", "/buildinfo")
    assert answer.status_code == 405
    assert answer.json()["message"]


async def test_repeated_slashes_count_as_one(bare: Server):
    assert (await bare.http.get(f"{URL}/api//v2///buildinfo")).status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"email": 1}', b"[]", b"null"])
async def test_a_broken_body_is_400(bare: Server, body: bytes):
    headers = {"Content-Type": "application/json"}
    answer = await bare.call("POST", "/users/login", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["message"]


async def test_a_broken_id_is_400(server: Server):
    answer = await server.call("GET", "/workspaces/not-a-uuid")
    assert answer.status_code == 400
    assert answer.json()["validations"][0]["field"] == "workspace"


async def test_a_database_that_does_not_answer_is_told_in_the_compared_words(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    async def gone() -> None:
        raise OperationalError("SELECT 1", {}, Exception("disk"))

    monkeypatch.setattr("coder.db.store.SqliteStore.ping", lambda _self: gone())
    answer = await server.http.get("/healthz")
    assert (answer.status_code, answer.json()) == (500, {"message": "database not reachable"})


async def test_a_full_disk_is_told_with_what_helps(server: Server, monkeypatch: pytest.MonkeyPatch):
    async def full() -> None:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    monkeypatch.setattr("coder.db.store.SqliteStore.ping", lambda _self: full())
    told = (await server.http.get("/healthz")).json()
    assert told["message"] == "database not reachable"
    assert "state directory" in told["detail"]


async def test_a_bug_is_500_with_the_number_of_its_log_line(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("coder.server.views.user", lambda _row: 1 / 0)
    answer = await server.call("GET", "/users/me")
    assert answer.status_code == 500
    assert "ZeroDivisionError" not in answer.text
    assert answer.headers["X-Coder-Request-Id"] in answer.json()["detail"]
    assert answer.headers["X-Coder-Build-Version"]


async def test_small_routes(server: Server):
    assert await server.get("/experiments") == []
    assert (await server.get("/regions"))["regions"][0]["path_app_url"] == URL
    assert (await server.get("/updatecheck"))["current"] is True
    assert (await server.get("/deployment/ssh"))["hostname_suffix"] == "coder"
    assert await server.get("/applications/host") == {"host": ""}
    [organization] = await server.get("/organizations")
    assert await server.get("/users/me/organizations") == [organization]
    assert await server.get(f"/organizations/{organization['id']}") == organization
    assert (await server.call("GET", "/organizations/nope")).status_code == 404


async def test_auth_check_answers_by_ownership(server: Server):
    checks = {
        "mine": {"object": {"resource_type": "workspace", "owner_id": "me"}, "action": "read"},
        "all": {"object": {"resource_type": "workspace"}, "action": "read"},
    }
    bob = await server.member("bob")
    assert (await bob.call("POST", "/authcheck", json={"checks": checks})).json() == {"mine": True, "all": False}
    assert (await server.call("POST", "/authcheck", json={"checks": checks})).json() == {"mine": True, "all": True}


async def test_connection_info_holds_the_map(server: Server):
    workspace = await server.workspace()
    info = await server.get(f"/workspaceagents/{workspace.agent_id}/connection")
    assert info == await server.get("/workspaceagents/connection")
    node = info["derp_map"]["Regions"]["999"]["Nodes"][0]
    assert (node["HostName"], node["DERPPort"], node["ForceHTTP"]) == ("coder.test", 3000, True)
    assert info["disable_direct_connections"] is False


async def test_ports_and_containers_are_refused_honestly(server: Server):
    workspace = await server.workspace()
    for part in ("listening-ports", "containers"):
        answer = await server.call("GET", f"/workspaceagents/{workspace.agent_id}/{part}")
        assert answer.status_code == 400
        assert "connecting" in answer.json()["message"]


async def test_the_page_of_the_api_lists_every_route_and_loads_nothing(server: Server):
    page = await server.http.get("/api/docs")
    assert page.status_code == 200
    assert "/api/v2/users/login" in page.text
    assert "http" not in page.text.replace("</html>", "").lower().replace("doctype html", "")
    described = (await server.http.get("/api/openapi.json")).json()
    undescribed = [
        path for path, methods in described["paths"].items() for each in methods.values() if not each.get("description")
    ]
    assert undescribed == []
