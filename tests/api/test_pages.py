"""The dashboard's pages as a browser asks for them: who sees what, what a form must carry, and what never comes out."""

import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest
from fastapi import FastAPI

from api.browser import SAME, Browser
from api.conftest import PASSWORD, URL, Server
from coder.db import agent_logs
from coder.server.audit import RECORDED
from coder.web.assets import Assets
from coder.web.routes import routes

PAGES = (
    "/workspaces",
    "/workspaces/new",
    "/@admin/dev",
    "/templates",
    "/templates/new?kind=docker",
    "/templates/new?kind=ssh",
    "/templates/process",
    "/users",
    "/users/admin",
    "/audit",
    "/connectionlog",
    "/health",
    "/regions",
    "/settings/account",
    "/settings/tokens",
    "/cli-auth",
)
PARTS = ("state", "picture", "ports", "logs")


# --- coming in


async def test_a_new_server_leads_to_its_set_up_and_then_to_the_workspaces(visitor: Browser):
    assert (await visitor.see("/")).headers["Location"] == "/setup"
    assert (await visitor.see("/login")).headers["Location"] == "/setup"
    owner = {"email": "o@example.com", "username": "olga", "password": PASSWORD, "again": PASSWORD}
    done = await visitor.send("/setup", owner)
    assert (done.status_code, done.headers["Location"]) == (303, "/workspaces")
    assert "olga" in (await visitor.see("/workspaces")).text
    assert (await visitor.see("/setup")).headers["Location"] == "/login"


async def test_a_set_up_says_which_field_is_wrong_and_keeps_the_others(visitor: Browser):
    owner = {"email": "nowhere", "username": "olga", "password": PASSWORD, "again": PASSWORD}
    answer = await visitor.send("/setup", owner)
    assert answer.status_code == 400
    assert 'id="h-email"' in answer.text
    assert 'value="olga"' in answer.text
    assert PASSWORD not in answer.text
    differing = await visitor.send("/setup", owner | {"email": "o@example.com", "again": "other"})
    assert "not the same password" in differing.text


async def test_a_login_sets_the_cookie_of_the_api_and_a_logout_takes_it(signed_in: Browser):
    assert signed_in.http.cookies["coder_session_token"]
    assert (await signed_in.see("/workspaces")).status_code == 200
    left = await signed_in.send("/logout", {}, at="/workspaces")
    assert left.headers["Location"] == "/login?done=signed-out"
    assert (await signed_in.see("/workspaces")).headers["Location"] == "/login?redirect=%2Fworkspaces"


async def test_the_session_cookie_is_not_for_scripts_nor_for_other_sites(server: Server, visitor: Browser):
    answer = await visitor.send("/login", {"email": "admin@example.com", "password": PASSWORD})
    (cookie,) = (line for line in answer.headers.get_list("Set-Cookie") if line.startswith("coder_session_token="))
    assert "httponly" in cookie.lower()
    assert "samesite=lax" in cookie.lower()


async def test_a_wrong_password_is_refused_without_a_hint(server: Server, visitor: Browser):
    known = await visitor.send("/login", {"email": "admin@example.com", "password": "wrong password 1"})
    unknown = await visitor.send("/login", {"email": "nobody@example.com", "password": "wrong password 1"})
    assert known.status_code == unknown.status_code == 401
    assert known.text.replace("admin@", "nobody@") == unknown.text


async def test_logins_are_limited_as_they_are_in_the_api(server: Server, visitor: Browser):
    wrong = {"email": "admin@example.com", "password": "wrong password 1"}
    answers = [await visitor.send("/login", wrong) for _ in range(40)]
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    "wanted",
    [
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https://evil.example/",
        "http://coder.test:3000@evil.example/",
        "http://coder.test:3000.evil.example/",
        "///evil.example",
        "/\t/evil.example",
        "javascript:alert(1)",
        "/%0d%0aSet-Cookie:x=y\r\nX: y",
        "http://coder.test:3000//evil.example",
    ],
)
async def test_a_login_leads_to_no_other_site(server: Server, visitor: Browser, wanted: str):
    fields = {"email": "admin@example.com", "password": PASSWORD, "redirect": wanted}
    assert (await visitor.send("/login", fields)).headers["Location"] == "/"
    assert (await visitor.http.get("/login", params={"redirect": wanted})).headers["Location"] == "/"


async def test_a_login_leads_to_the_page_that_was_asked_for(server: Server, visitor: Browser):
    fields = {"email": "admin@example.com", "password": PASSWORD, "redirect": "/@admin/dev?x=1"}
    assert (await visitor.send("/login", fields)).headers["Location"] == "/@admin/dev?x=1"


async def test_a_login_for_an_app_goes_on_by_a_page_since_forms_may_not_lead_elsewhere(
    server: Server, visitor: Browser
):
    where = "/api/v2/applications/auth-redirect?redirect_uri=https%3A%2F%2Fapp.example%2F"
    fields = {"email": "admin@example.com", "password": PASSWORD, "redirect": where}
    answer = await visitor.send("/login", fields)
    assert answer.status_code == 200
    assert f"url={where}" in answer.text


# --- who may see


@pytest.mark.parametrize("path", [*PAGES, "/@admin/dev/state.part"])
async def test_nobody_unknown_sees_a_page(server: Server, visitor: Browser, path: str):
    answer = await visitor.see(path)
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("/login?redirect=%2F")


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_is_there_for_the_owner(server: Server, signed_in: Browser, path: str):
    await server.workspace()
    answer = await signed_in.see(path)
    assert answer.status_code == 200, answer.text
    assert "<h1>" in answer.text


@pytest.mark.parametrize("part", PARTS)
async def test_an_unchanged_part_is_not_sent_again(server: Server, signed_in: Browser, part: str):
    await server.workspace()
    first = await signed_in.see(f"/@admin/dev/{part}.part", **{"HX-Request": "true"})
    assert first.status_code == 200, first.text
    again = await signed_in.see(f"/@admin/dev/{part}.part", **{"X-Part-Tag": first.headers["X-Part-Tag"]})
    assert (again.status_code, again.content) == (204, b"")


async def test_a_part_of_a_page_whose_session_ended_sends_the_page_to_the_login(server: Server, visitor: Browser):
    answer = await visitor.see("/workspaces", **{"HX-Request": "true"})
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, "/login")


async def test_a_member_sees_their_own_and_a_menu_without_what_is_not_theirs(server: Server, visitor: Browser):
    await server.member("eve")
    await server.workspace()
    assert (await visitor.send("/login", {"email": "eve@example.com", "password": PASSWORD})).status_code == 303
    page = await visitor.see("/workspaces")
    assert 'href="/users"' not in page.text
    assert 'href="/health"' not in page.text
    assert (await visitor.see("/@admin/dev")).status_code == 404
    assert (await visitor.see("/health")).status_code == 404
    assert (await visitor.see("/audit")).status_code == 403
    refused = await visitor.send(
        "/users", {"email": "x@example.com", "username": "x", "password": PASSWORD}, at="/users"
    )
    assert refused.status_code == 403


# --- headers


@pytest.mark.parametrize("path", ["/login", *PAGES, "/@admin/nowhere"])
async def test_pages_run_only_our_scripts_and_are_neither_kept_nor_framed(
    server: Server, signed_in: Browser, path: str
):
    await server.workspace()
    answer = await signed_in.see(path)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "base-uri 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert not re.search(r"\sstyle=|<style|\son\w+=|<script>", answer.text)


# --- forms


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://coder.test:3000.evil.example"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/login", "/settings/tokens", "/users", "/logout"])
async def test_a_form_from_elsewhere_does_nothing(
    server: Server, signed_in: Browser, path: str, headers: dict[str, str]
):
    at = "/settings/tokens" if path in {"/logout", "/login"} else path
    answer = await signed_in.send(path, {"token_name": "stolen", "email": "a@b.c"}, at=at, **headers)
    assert answer.status_code == 403
    assert await server.get("/users/me/keys/tokens") == []


async def test_a_form_that_says_nothing_of_its_origin_does_nothing(server: Server, signed_in: Browser):
    page = await signed_in.see("/settings/tokens")
    token = re.search(r'name="form_token" value="([0-9a-f]+)"', page.text)[1]
    answer = await signed_in.http.post("/settings/tokens", data={"form_token": token, "token_name": "x"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "path",
    [route.path for route in routes(URL, datetime.now) if "POST" in (route.methods or ())],
)
async def test_no_form_does_anything_without_its_token(server: Server, signed_in: Browser, path: str):
    await server.workspace()
    before = await server.get("/audit")
    place = path.format(owner="admin", name="dev" if "@" in path else "process", user="admin")
    sent = {"what": "delete", "confirm": "dev", "email": "admin@example.com", "password": PASSWORD, "name": "made"}
    assert (await signed_in.see("/workspaces")).status_code == 200
    for token in ({}, {"form_token": ""}, {"form_token": "0" * 64}):
        answer = await signed_in.post(place, sent | token)
        assert (answer.status_code, "out of date" in answer.text) == (403, True), place
    assert await server.get("/audit") == before


@pytest.mark.parametrize("token", ["", "0" * 64])
async def test_a_form_without_the_token_of_its_session_does_nothing(server: Server, signed_in: Browser, token: str):
    answer = await signed_in.post("/settings/tokens", {"form_token": token, "token_name": "stolen"})
    assert answer.status_code == 403
    assert await server.get("/users/me/keys/tokens") == []


async def test_a_form_of_another_session_does_nothing(server: Server, signed_in: Browser, visitor: Browser):
    other = await server.member("eve")
    stolen = re.search(r'value="([0-9a-f]{64})"', (await signed_in.see("/settings/tokens")).text)[1]
    token = other.headers["Coder-Session-Token"]
    visitor.http.cookies.set("coder_session_token", token, domain="coder.test")
    answer = await visitor.http.post(
        "/settings/tokens", data={"form_token": stolen}, headers=SAME | {"Cookie": f"coder_session_token={token}"}
    )
    assert answer.status_code == 403


async def test_a_large_form_is_refused(server: Server, signed_in: Browser):
    answer = await signed_in.send("/settings/tokens", {"token_name": "x" * 70_000})
    assert answer.status_code == 413


# --- doing things


async def test_a_workspace_is_created_with_a_token_shown_once_and_deleted_by_its_name(
    server: Server, signed_in: Browser
):
    made = await signed_in.send("/workspaces/new", {"name": "box"})
    assert re.search(r"CODER_AGENT_TOKEN=[0-9a-f-]{36}", made.text)
    assert "CODER_AGENT_TOKEN" not in (await signed_in.see("/@admin/box")).text
    refused = await signed_in.send("/@admin/box", {"what": "delete", "confirm": "bix"})
    assert refused.status_code == 400
    gone = await signed_in.send("/@admin/box", {"what": "delete", "confirm": "box"})
    assert gone.headers["Location"] == "/workspaces?done=deleted"
    assert (await server.get("/workspaces"))["count"] == 0


async def test_a_taken_name_is_told_in_the_form(server: Server, signed_in: Browser):
    await server.workspace("box")
    answer = await signed_in.send("/workspaces/new", {"name": "box"})
    assert answer.status_code == 409
    assert "exists already" in answer.text


async def test_users_are_created_given_roles_suspended_and_deleted(server: Server, signed_in: Browser):
    new = {"email": "bob@example.com", "username": "bob", "password": PASSWORD}
    assert (await signed_in.send("/users", new)).headers["Location"] == "/users?done=user-created"
    assert (await signed_in.send("/users/bob", {"what": "roles", "role": "auditor"})).status_code == 303
    assert (await signed_in.send("/users/bob", {"what": "browser-only", "on": "yes"})).status_code == 303
    assert (await server.get("/users/bob"))["browser_only"]
    assert (await signed_in.send("/users/bob", {"what": "suspend"})).status_code == 303
    bob = await server.get("/users/bob")
    assert (bob["status"], bob["roles"][0]["name"]) == ("suspended", "auditor")
    assert (await signed_in.send("/users/bob", {"what": "delete", "confirm": "bub"})).status_code == 400
    gone = {"what": "delete", "confirm": "bob"}
    assert (await signed_in.send("/users/bob", gone)).headers["Location"] == "/users?done=user-deleted"


async def test_a_token_is_shown_once_and_deleted(server: Server, signed_in: Browser):
    made = await signed_in.send("/settings/tokens", {"token_name": "ci", "days": "1", "scope": "all"})
    token = re.search(r'id="made">([^<]+)<', made.text)[1]
    assert token not in (await signed_in.see("/settings/tokens")).text
    (row,) = await server.get("/users/me/keys/tokens")
    gone = await signed_in.send("/settings/tokens/delete", {"id": row["id"]}, at="/settings/tokens")
    assert gone.status_code == 303
    assert await server.get("/users/me/keys/tokens") == []


async def test_a_new_password_ends_the_other_sessions_but_not_this_one(server: Server, signed_in: Browser):
    new = PASSWORD + " and more"
    form = {"what": "password", "old_password": PASSWORD, "password": new, "again": new}
    assert (await signed_in.send("/settings/account", form)).status_code == 303
    assert (await signed_in.see("/settings/account")).status_code == 200
    assert (await server.call("GET", "/users/me")).status_code == 401


async def test_what_a_page_does_is_in_the_audit_log_once_as_what_the_api_did(server: Server, signed_in: Browser):
    await signed_in.send("/workspaces/new", {"name": "box"})
    rows = (await server.get("/audit?q=resource_type:workspace"))["audit_logs"]
    assert [(row["action"], row["resource_target"], row["status_code"]) for row in rows] == [("create", "box", 201)]
    everything = (await server.get("/audit"))["audit_logs"]
    assert {row["resource_type"] for row in everything} <= {kind for _action, kind in RECORDED.values()}


# --- what others wrote


EVIL = "<img src=x onerror=alert(1)>"


async def test_output_of_an_agent_is_text_whatever_it_holds(server: Server, signed_in: Browser):
    workspace = await server.workspace()
    lines = [
        f"\x1b[31m{EVIL}\x1b[0m",
        "\x1b]8;;javascript:alert(1)\x1b\\click\x1b]8;;\x1b\\ \x1b]0;title\x07 \x1b]52;c;ZXZpbA==\x07after",
        "left \u202e right\x9b31m\x00\x08 end",
        "\x1b]0;never ended " + "x" * 50,
    ]
    async with server.deployment.store.write() as session:
        now = server.clock.now()
        rows = [{"source_id": uuid4(), "level": "info", "output": each, "created_at": now} for each in lines]
        await agent_logs.add(session, workspace.agent_id, rows, now)
    shown = (await signed_in.see("/@admin/dev")).text
    assert EVIL not in shown
    assert "&lt;img src=x onerror=alert(1)&gt;" in shown
    assert "click" in shown
    assert "after" in shown
    for never in ("\x1b", "\x9b", "\x07", "\u202e", "javascript:", "ZXZpbA", "title\x07"):
        assert never not in shown


async def test_names_and_searches_are_text(server: Server, signed_in: Browser):
    assert (await server.call("PUT", "/users/me/profile", json={"username": "admin", "name": EVIL})).status_code == 200
    for path in ("/settings/account", "/users/admin"):
        assert EVIL not in (await signed_in.see(path)).text
    for path in ("/workspaces", "/users", "/audit", "/connectionlog"):
        answer = await signed_in.http.get(path, params={"q": EVIL, "username": EVIL, "page": EVIL})
        assert EVIL not in answer.text
        assert answer.status_code in {200, 400}


async def test_a_notice_is_one_of_ours(signed_in: Browser):
    assert "Call+this" not in (await signed_in.see("/workspaces?done=Call+this+number")).text
    assert "The workspace is deleted." in (await signed_in.see("/workspaces?done=deleted")).text


async def test_lists_have_pages(server: Server, signed_in: Browser):
    for number in range(27):
        await server.workspace(f"w{number}")
    first, second = await signed_in.see("/workspaces"), await signed_in.see("/workspaces?page=2")
    assert "Page 1 of 2" in first.text
    assert second.text.count('<li class="card">') == 2


# --- assets


async def test_assets_are_kept_for_ever_and_nothing_else_is_served(signed_in: Browser):
    assets = Assets()
    if not assets.built:
        pytest.skip("the assets are not built: make assets")
    style = await signed_in.see(assets.url("style.css"))
    assert "immutable" in style.headers["Cache-Control"]
    assert style.headers["Content-Type"].startswith("text/css")
    packed = await signed_in.see(assets.url("app.js"), **{"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    for path in ("/static/manifest.json", "/static/..%2fpage.py", "/static/nothing.js", "/static/%2e%2e/page.py"):
        assert (await signed_in.see(path)).status_code == 404


async def test_a_server_without_assets_says_so_and_still_works(server: Server, tmp_path: Path):
    plain = FastAPI()  # knows no users, so it looks new
    plain.router.routes.extend(routes(URL, server.clock.now, Assets(tmp_path)))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=plain), base_url=URL) as http:
        page = await http.get("/setup")
    assert "make assets" in page.text
    assert "<script" not in page.text
    assert 'name="password"' in page.text


async def test_unknown_paths_answer_as_the_api_does(server: Server, signed_in: Browser):
    answer = await signed_in.see("/api/v2/nowhere")
    assert (answer.status_code, answer.json()["message"]) == (404, "Route not found.")
    member = replace(server, headers={})
    assert (await member.call("POST", "/buildinfo")).status_code == 405
