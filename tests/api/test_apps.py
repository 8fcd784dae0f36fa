"""What the edge is told about requests for apps, and what browsers get on their way to one."""

import base64
import json
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from sqlalchemy import update

from api.conftest import Server, Workspace
from coder.config import AppsSettings, DerpSettings, HttpSettings, Settings
from coder.db import agents
from coder.db.models import Template, WorkspaceAgent
from coder.errors import Unreachable
from coder.server import agent_manifest
from coder.server.app_sessions import PARAMETER, cookie_name

HOST = "8080--main--dev--admin.apps.test"
PATH = "/@admin/dev.main/apps/code/"
APPS = [
    {"id": "0" * 32, "slug": "code", "url": "http://localhost:13337/sub?folder=/w", "sharing_level": "public"},
    {"id": "1" * 32, "slug": "mine", "url": "https://127.0.0.1:8443", "sharing_level": "owner"},
    {"id": "2" * 32, "slug": "team", "url": "http://127.0.0.1:81", "sharing_level": "authenticated"},
    {"id": "3" * 32, "slug": "low", "url": "http://127.0.0.1:3", "sharing_level": "owner"},
    {"id": "4" * 32, "slug": "out", "url": "https://x.test/?t=$SESSION_TOKEN", "external": True},
    {"id": "5" * 32, "slug": "top", "command": "top", "url": ""},
]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        state_dir=str(tmp_path / "state"),
        derp=DerpSettings(stun_port=-1),
        apps=AppsSettings(wildcard_access_url="*.apps.test", disable_path_apps=False),
        http=HttpSettings(disable_rate_limits=True),
    )


@dataclass
class Site:
    """A workspace with apps whose agent is connected, and the edge's place in front of it."""

    server: Server
    workspace: Workspace
    cookies: str = ""

    def with_settings(self, **changes: object) -> None:
        deployment = self.server.deployment
        apps = replace(deployment.settings.apps, **changes)
        object.__setattr__(deployment, "settings", replace(deployment.settings, apps=apps))

    async def ask(
        self, at: str = HOST, target: str = "", *, method: str = "GET", failure: str = "", **headers: str
    ) -> httpx2.Response:
        """Ask as the edge does. Names of headers have underscores."""
        asked = {
            "Coder-Edge-Secret": self.server.deployment.apps.secret.reveal(),
            "Coder-Edge-At": at,
            "Coder-Edge-Host": "coder.test:3000" if at.startswith("/") else f"{at}:3000",
            "Coder-Edge-Method": method,
            "Coder-Edge-Target": target or (at if at.startswith("/") else "/"),
        }
        if failure:
            asked["Coder-Edge-Failure"] = failure
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.server.http.cookies.clear()
        return await self.server.http.get("/-/edge/app", headers=asked | given)

    async def as_user(self, at: str = HOST, target: str = "", **options: str) -> httpx2.Response:
        return await self.ask(at, target, **{"Cookie": self.cookies} | options)

    def of(self, who: Server) -> "Site":
        cookie = f"coder_session_token={who.headers['Coder-Session-Token']}"
        return Site(who, self.workspace, cookie)

    async def sql(self, statement: object) -> None:
        async with self.server.deployment.store.write() as session:
            await session.execute(statement)


@pytest.fixture
async def site(server: Server) -> Site:
    workspace = await server.workspace()
    deployment = server.deployment
    async with deployment.store.write() as session:
        await agents.connected(session, workspace.agent_id, deployment.clock.now())
        await agents.change(session, workspace.agent_id, deployment.clock.now(), apps=APPS)
    return Site(server, workspace).of(server)


def claims(answer: httpx2.Response) -> dict[str, object]:
    assert answer.status_code == 204, answer.text
    part = answer.headers["coder-edge-ticket"].split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=="))


async def test_only_the_edge_may_ask(site: Site) -> None:
    for secret in ("", "x", "é"):
        answer = await site.server.http.get("/-/edge/app", headers={"Coder-Edge-Secret": secret.encode()})
        assert answer.status_code == 404, secret
        assert answer.json()["message"] == "Route not found."


async def test_an_owner_gets_a_ticket_for_exactly_one_app(site: Site) -> None:
    answer = await site.as_user()
    found = claims(answer)
    assert found.pop("exp") == int(site.server.clock.now().timestamp()) + 60
    assert found.pop("to").endswith("]:8080")
    assert found == {"at": HOST, "tls": False, "path": "/", "query": "", "cors": False}
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("coder_signed_app_token=ey")
    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Lax; Max-Age=60")
    found = claims(await site.as_user(PATH))
    assert (found["path"], found["query"], str(found["to"]).rpartition(":")[2]) == ("/sub", "folder=/w", "13337")
    assert f"Path={PATH};" in (await site.as_user(PATH)).headers["set-cookie"]
    found = claims(await site.as_user("mine--main--dev--admin.apps.test"))
    assert (found["tls"], str(found["to"]).rpartition(":")[2]) == (True, "8443")
    assert claims(await site.as_user("8080s--main--dev--admin.apps.test"))["tls"] is True


async def test_names_lead_to_the_named_users_things_only(site: Site) -> None:
    other = await site.server.member("eve")
    await other.workspace("dev")
    known = ["pre---8080--main--dev--admin", "code--dev--admin", "CODE--Main--Dev--Admin"]
    unknown = [
        "8080--main--dev--nobody",
        "8080--other--dev--admin",
        "8080--main--other--admin",
        f"8080--main--{site.workspace.id}--eve",
        f"8080--main--{site.workspace.id}--admin",
        f"8080--main--{site.workspace.id}--nobody",
        "out--main--dev--admin",
        "top--main--dev--admin",
        "none--main--dev--admin",
        "65536--main--dev--admin",
        "8080--main--dev--me",
    ]
    for label in known:
        assert (await site.as_user(f"{label}.apps.test")).status_code == 204, label
    for label in unknown:
        assert (await site.as_user(f"{label}.apps.test")).status_code == 404, label
    for label in ("8080", "8080--dev--admin", "a--b", "8080--main--dev--ad_min"):
        assert (await site.as_user(f"{label}.apps.test")).status_code == 400, label
    assert (await site.as_user("/@admin/dev/apps/code/")).status_code == 204
    for path, status in (("/@me/dev/apps/code/", 404), ("/@admin/dev/apps/8080/", 400), ("/@eve/dev/apps/code/", 404)):
        assert (await site.as_user(path)).status_code == status, path


async def test_levels_decide_who_may_open(site: Site) -> None:
    member = site.of(await site.server.member("bob"))
    labels = {"mine": (204, 404, 303), "team": (204, 204, 303), "code": (204, 204, 204)}
    for label, expected in labels.items():
        host = f"{label}--main--dev--admin.apps.test"
        found = [(await each).status_code for each in (site.as_user(host), member.as_user(host), site.ask(host))]
        assert tuple(found) == expected, label
    assert (await member.as_user(PATH)).status_code == 404  # as a path it shares the dashboard's origin
    assert (await site.ask(PATH)).headers["location"] == (
        "http://coder.test:3000/login?redirect=%2F%40admin%2Fdev.main%2Fapps%2Fcode%2F"
    )
    site.with_settings(allow_path_app_sharing=True)
    assert (await member.as_user(PATH)).status_code == 204


@pytest.mark.parametrize("who", ["deployment", "template"])
async def test_no_app_and_no_port_exceeds_a_ceiling(site: Site, who: str) -> None:
    share = {"agent_name": "main", "port": 8080, "share_level": "public"}
    path = f"/workspaces/{site.workspace.id}/port-share"
    assert (await site.server.call("POST", path, json=share)).status_code == 200
    assert (await site.ask()).status_code == 204
    if who == "deployment":
        site.with_settings(max_sharing_level="owner")
    else:
        await site.sql(update(Template).values(max_port_share_level="owner"))
    assert (await site.ask()).status_code == 303
    assert (await site.ask("code--main--dev--admin.apps.test")).status_code == 303
    refused = await site.server.call("POST", path, json=share)
    assert refused.status_code == 400
    assert refused.json()["message"] == '"public" sharing level is not allowed under max level "owner"'


async def test_ports_are_shared_and_unshared(site: Site) -> None:
    path = f"/workspaces/{site.workspace.id}/port-share"
    share = {"agent_name": "main", "port": 8080, "share_level": "authenticated", "protocol": "http"}
    assert await site.server.get(path) == {"shares": []}
    answer = await site.server.call("POST", path, json=share)
    assert answer.json() == share | {"workspace_id": site.workspace.id}
    member = site.of(await site.server.member("bob"))
    assert (await member.as_user()).status_code == 204
    assert (await site.server.call("POST", path, json=share | {"port": 80, "protocol": "https"})).status_code == 200
    assert [each["port"] for each in (await site.server.get(path))["shares"]] == [80, 8080]
    for call in (("GET", {}), ("POST", {"json": share}), ("DELETE", {"json": {"agent_name": "main", "port": 80}})):
        assert (await member.server.call(call[0], path, **call[1])).status_code == 404
    gone = {"agent_name": "main", "port": 8080}
    assert (await site.server.call("DELETE", path, json=gone)).status_code == 200
    assert (await site.server.call("DELETE", path, json=gone)).json()["message"] == "Port share not found."
    assert (await member.as_user()).status_code == 404
    wrong = [
        ({"share_level": "owner"}, "Port sharing level not allowed."),
        ({"share_level": "x"}, "Port sharing level not allowed."),
        ({"protocol": "udp"}, "Port protocol not allowed."),
        ({"port": 8}, "Port must be between 9 and 65535."),
        ({"port": 65536}, "Port must be between 9 and 65535."),
        ({"agent_name": "x"}, "Agent not found."),
    ]
    for change, message in wrong:
        refused = await site.server.call("POST", path, json=share | change)
        assert (refused.status_code, refused.json()["message"]) == (400, message)


async def test_an_owner_of_the_deployment_opens_apps_but_no_path_apps_of_others(site: Site) -> None:
    bob = await site.server.member("bob")
    workspace = await bob.workspace("own")
    await site.sql(update(WorkspaceAgent).where(WorkspaceAgent.id == workspace.agent_id).values(apps=APPS))
    async with bob.deployment.store.write() as session:
        await agents.connected(session, workspace.agent_id, bob.clock.now())
    path = "/@bob/own/apps/mine/"
    assert (await site.as_user("mine--main--own--bob.apps.test")).status_code == 204
    assert (await site.as_user(path)).status_code == 404
    assert (await site.of(bob).as_user(path)).status_code == 204
    site.with_settings(allow_path_app_owner_access=True)
    assert (await site.as_user(path)).status_code == 204
    site.with_settings(disable_path_apps=True)
    assert (await site.as_user("/@bob/own/apps/none/")).status_code == 404
    led = await site.of(bob).as_user(path, f"{path}a/b?c=d")
    assert (led.status_code, led.headers["location"]) == (307, "http://mine--main--own--bob.apps.test:3000/a/b?c=d")
    site.with_settings(wildcard_access_url="")
    assert (await site.of(bob).as_user(path)).status_code == 403


def test_apps_are_not_served_below_the_dashboards_address_unless_told() -> None:
    assert AppsSettings().disable_path_apps


async def sign_in(site: Site, target: str = "/x?q=1") -> tuple[str, httpx2.Response]:
    """Walk a browser from an app to the dashboard and back; return the code's address and what came of it."""
    away = await site.ask(HOST, target)
    assert away.status_code == 303
    where = away.headers["location"]
    assert where.startswith("http://coder.test:3000/api/v2/applications/auth-redirect?redirect_uri=")
    back = await site.server.http.get(where, headers={"Cookie": site.cookies})
    assert back.status_code == 303, back.text
    parts = urlsplit(back.headers["location"])
    assert f"{parts.scheme}://{parts.netloc}" == f"http://{HOST}:3000"
    address = f"{parts.path}?{parts.query}"
    return address, await site.ask(HOST, address)


async def test_a_browser_signs_in_on_the_host_of_an_app(site: Site) -> None:
    address, answer = await sign_in(site)
    assert (answer.status_code, answer.headers["location"]) == (303, "/x?q=1")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{cookie_name('*.apps.test')}=")
    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Lax; Domain=.apps.test")
    mine = cookie.partition(";")[0]
    assert (await site.ask(Cookie=mine)).status_code == 204
    api = await site.server.http.get("/api/v2/users/me", headers={"Coder-Session-Token": mine.partition("=")[2]})
    assert api.status_code == 401  # opens apps and nothing else
    assert (await site.ask(HOST, address)).status_code == 400  # a code is good once


async def test_a_code_is_good_for_its_host_its_minute_and_its_session(site: Site) -> None:
    def code_of(address: str) -> str:
        return parse_qs(urlsplit(address).query)[PARAMETER][0]

    away = await site.server.http.get(
        "/api/v2/applications/auth-redirect",
        params={"redirect_uri": f"http://{HOST}/"},
        headers={"Cookie": site.cookies},
    )
    code = code_of(away.headers["location"])
    assert (await site.ask("8081--main--dev--admin.apps.test", f"/?{PARAMETER}={code}")).status_code == 400
    assert (await site.ask(PATH, f"{PATH}?{PARAMETER}={code}")).status_code == 400
    assert (await site.ask(HOST, f"/?{PARAMETER}={code[:-2]}AA")).status_code == 400
    await site.server.clock.advance(60)
    assert (await site.ask(HOST, f"/?{PARAMETER}={code}")).status_code == 400
    away = await site.server.http.get(
        "/api/v2/applications/auth-redirect",
        params={"redirect_uri": f"http://{HOST}/"},
        headers={"Cookie": site.cookies},
    )
    assert (await site.server.call("POST", "/users/logout")).status_code == 200
    assert (await site.ask(HOST, f"/?{PARAMETER}={code_of(away.headers['location'])}")).status_code == 400


async def test_signing_out_and_suspension_end_app_sessions(site: Site) -> None:
    bob = await site.server.member("bob")
    host = "team--main--dev--admin.apps.test"
    theirs = site.of(bob)

    async def session_of(who: Site) -> str:
        away = await who.server.http.get(
            "/api/v2/applications/auth-redirect",
            params={"redirect_uri": f"http://{host}/"},
            headers={"Cookie": who.cookies},
        )
        parts = urlsplit(away.headers["location"])
        answer = await who.ask(host, f"{parts.path}?{parts.query}")
        return answer.headers["set-cookie"].partition(";")[0]

    held = await session_of(theirs)
    assert (await site.ask(host, Cookie=held)).status_code == 204
    assert (await site.server.call("PUT", "/users/bob/status/suspend", json={})).status_code == 200
    assert (await site.ask(host, Cookie=held)).status_code == 303
    held = await session_of(site)
    key = site.server.headers["Coder-Session-Token"].partition("-")[0]
    await site.server.sign_in()
    assert (await site.ask(host, Cookie=held)).status_code == 204
    assert (await site.server.call("DELETE", f"/users/me/keys/{key}")).status_code == 204
    assert (await site.ask(host, Cookie=held)).status_code == 303
    held = await session_of(site.of(site.server))
    assert (await site.ask(host, Cookie=held)).status_code == 204
    assert (await site.server.call("POST", "/users/logout")).status_code == 200
    assert (await site.ask(host, Cookie=held)).status_code == 303


async def test_a_login_leads_back_to_apps_only(site: Site) -> None:
    bad = [
        "https://evil.test/",
        f"https://{HOST}.evil.test/",
        f"https://evil.test@{HOST}/",
        f"https://{HOST}@evil.test/",
        f"https://evil.test\\@{HOST}/",
        "//evil.test/",
        "http://coder.test:3000/",
        "https://apps.test/",
        "https://a.b.apps.test/",
        f"http://{HOST}/\r\nX: y",
        "http://[::1/",
        "javascript:alert(1)",
    ]
    for uri in bad:
        answer = await site.server.http.get(
            "/api/v2/applications/auth-redirect", params={"redirect_uri": uri}, headers={"Cookie": site.cookies}
        )
        assert (answer.status_code, answer.json()["message"]) == (400, "Invalid redirect_uri."), uri
    answer = await site.server.http.get("/api/v2/applications/auth-redirect", headers={"Cookie": site.cookies})
    assert answer.json()["message"] == "Missing redirect_uri query parameter."
    odd = await site.server.http.get(
        "/api/v2/applications/auth-redirect",
        params={"redirect_uri": f"ftp://{HOST}:99//x?a"},
        headers={"Cookie": site.cookies},
    )
    assert odd.headers["location"].startswith(f"http://{HOST}:3000//x?a&{PARAMETER}=")
    out = await site.server.http.get("/api/v2/applications/auth-redirect", params={"redirect_uri": f"http://{HOST}/"})
    assert out.headers["location"].startswith("http://coder.test:3000/login?redirect=%2Fapi%2Fv2%2Fapplications")


async def test_an_apps_own_authorization_is_no_reason_to_refuse(site: Site) -> None:
    for value in ("Bearer not-a-coder-token", "Basic YTpi", "Bearer " + "a" * 10 + "-" + "b" * 22):
        assert (await site.as_user(Authorization=value)).status_code == 204
    token = site.server.headers["Coder-Session-Token"]
    assert (await site.ask(Authorization=f"Bearer {token}")).status_code == 204
    member = site.of(await site.server.member("bob"))
    share = {"agent_name": "main", "port": 8080, "share_level": "authenticated"}
    assert (
        await site.server.call("POST", f"/workspaces/{site.workspace.id}/port-share", json=share)
    ).status_code == 200
    theirs = member.server.headers["Coder-Session-Token"]
    assert (await site.ask(Coder_Session_Token=theirs)).status_code == 204
    assert (await site.ask(Authorization=f"Bearer {theirs}")).status_code == 303  # another user's app would read it
    assert (await site.ask(Coder_Session_Token=token)).status_code == 204
    assert (await site.ask(HOST, f"/?coder_session_token={token}")).status_code == 303  # the app would read it


async def test_pages_of_other_origins_open_no_websocket_and_change_nothing(site: Site) -> None:
    eve = await site.server.member("eve")
    await eve.workspace("dev")
    foreign = ["null", "https://evil.test", "http://8080--main--dev--eve.apps.test:3000", "http://[::1", "http://x@"]
    own = [f"http://{HOST}:3000", "http://9090--main--dev--admin.apps.test:3000", "http://coder.test:3000"]
    for origin in foreign:
        assert (await site.as_user(Origin=origin, Coder_Edge_Upgrade="1")).status_code == 403, origin
        assert (await site.as_user(Origin=origin, method="POST")).status_code == 403, origin
        read = await site.as_user(Origin=origin)
        assert read.status_code == 204
        assert "coder-edge-allow-origin" not in read.headers
    for origin in own:
        assert (await site.as_user(Origin=origin, Coder_Edge_Upgrade="1")).status_code == 204, origin
        assert (await site.as_user(Origin=origin, method="POST")).status_code == 204, origin
    assert (await site.ask(Coder_Edge_Upgrade="1")).status_code == 401
    sibling = await site.as_user(Origin=own[1])
    assert sibling.headers["coder-edge-allow-origin"] == own[1]
    for origin in foreign:  # whoever has the token itself is no page
        token = site.server.headers["Coder-Session-Token"]
        answer = await site.ask(Origin=origin, Coder_Session_Token=token, Coder_Edge_Upgrade="1")
        assert answer.status_code == 204


async def test_preflights_allow_apps_of_the_same_user(site: Site) -> None:
    eve = await site.server.member("eve")
    await eve.workspace("dev")
    asked = {"method": "OPTIONS", "Access_Control_Request_Method": "PUT", "Access_Control_Request_Headers": "x-a"}
    answer = await site.ask(Origin="http://code--main--dev--admin.apps.test:3000", **asked)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "http://code--main--dev--admin.apps.test:3000"
    assert answer.headers["access-control-allow-headers"] == "x-a"
    workspace = site.workspace.id
    for label in ("8080--main--dev--eve", f"8080--main--{workspace}--eve", "x--main--none--admin"):
        answer = await site.ask(Origin=f"http://{label}.apps.test:3000", **asked)
        assert answer.status_code == 204
        assert "access-control-allow-origin" not in answer.headers, label
    there, away = [await site.ask(f"8080--main--{dev}--admin.apps.test", **asked) for dev in ("dev", "none")]
    assert (there.status_code, there.headers["vary"]) == (away.status_code, away.headers["vary"])
    name = "code--main--dev--admin.apps.test"
    strangers = (f"{name}:81", name, f"u@{name}:3000", f"{name}:3000.evil.test", f"{name}:3000@evil.test")
    for origin in (*(f"http://{each}" for each in strangers), f"https://{name}:3000", "null", name):
        answer = await site.ask(Origin=origin, **asked)
        assert "access-control-allow-origin" not in answer.headers, origin


async def test_a_template_may_leave_other_origins_to_its_apps(site: Site) -> None:
    await site.sql(update(Template).values(cors_behavior="passthru"))
    sibling = {"Origin": "http://code--main--dev--admin.apps.test:3000"}
    answer = await site.as_user(**sibling)
    assert claims(answer)["cors"] is True
    assert "coder-edge-allow-origin" not in answer.headers
    asked = {"method": "OPTIONS", "Access_Control_Request_Method": "PUT", "Origin": "https://elsewhere.test"}
    closed = await site.ask(**asked)  # not open to everybody: nobody knows yet who asks
    assert (closed.status_code, "coder-edge-ticket" in closed.headers) == (204, False)
    public = await site.ask("code--main--dev--admin.apps.test", **asked)
    assert claims(public)["cors"] is True


async def test_what_cannot_be_reached_is_told_on_a_page(site: Site) -> None:
    assert (await site.as_user("low--main--dev--admin.apps.test")).status_code == 400
    pages = {"refused": 503, "broken": 502, "no answer in time": 502, "<b>": 502}
    for failure, status in pages.items():
        answer = await site.as_user(target="//evil.test/?a", failure=failure)
        assert answer.status_code == status
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
        assert "<b>" not in answer.text
        assert 'href="//' not in answer.text
    assert "http://8080s--main--dev--admin.apps.test:3000" in (await site.as_user(failure="broken")).text
    await site.server.clock.advance(300)
    answer = await site.as_user()
    assert (answer.status_code, "disconnected" in answer.text) == (502, True)


async def test_a_tunnel_is_there_before_the_ticket(site: Site) -> None:
    asked: list[object] = []

    class Tunnels:
        async def ensure(self, agent_id: object) -> None:
            asked.append(agent_id)
            if len(asked) > 1:
                raise Unreachable("the relay is away")

    site.server.deployment.apps.tunnels = Tunnels()
    assert (await site.as_user()).status_code == 204
    assert asked == [site.workspace.agent_id]
    answer = await site.as_user()
    assert (answer.status_code, "the relay is away" in answer.text) == (502, True)


async def test_the_slash_of_a_path_app_is_added(site: Site) -> None:
    answer = await site.as_user(PATH, f"{PATH[:-1]}?a=b")
    assert (answer.status_code, answer.headers["location"]) == (307, f"{PATH}?a=b")


async def test_clients_learn_the_host_of_apps(site: Site) -> None:
    assert await site.server.get("/applications/host") == {"host": "*.apps.test:3000"}
    assert (await site.server.get("/regions"))["regions"][0]["wildcard_hostname"] == "*.apps.test:3000"


async def test_workspaces_and_agents_learn_where_apps_are(site: Site) -> None:
    apps = [each | {"subdomain": each["slug"] == "mine"} for each in APPS]
    async with site.server.deployment.store.write() as session:
        await agents.change(session, site.workspace.agent_id, site.server.clock.now(), apps=apps)
    shown = await site.server.get(f"/workspaces/{site.workspace.id}")
    listed = shown["latest_build"]["resources"][0]["agents"][0]["apps"]
    assert {each["slug"]: each.get("subdomain_name") for each in listed if each["slug"] in {"mine", "code"}} == {
        "mine": "mine--main--dev--admin",
        "code": None,
    }
    async with site.server.deployment.store.read() as session:
        known = await agents.get(session, site.workspace.agent_id)
    told = agent_manifest.manifest(site.server.deployment, known)
    assert told.vs_code_port_proxy_uri == "http://{{port}}--main--dev--admin.apps.test:3000"
