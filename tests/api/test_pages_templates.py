"""Forms of templates and schedules: what they send is what the API is asked, and its words come back."""

import re

import pytest

from api.browser import Browser
from api.conftest import PASSWORD, URL, Server

ORGANIZATION = "/organizations/default/templates"
AGENTS = "- name: main\n  environment: {EDITOR: vim}\n  apps:\n  - {slug: web, url: 'http://localhost:3000'}\n"


DOCKER = {
    "kind": "docker",
    "name": "box",
    "display_name": "Box",
    "stop_after": "1.5",
    "max_port_share_level": "authenticated",
    "cors_behavior": "passthru",
    "browser_only": "yes",
    "settings.image": "example.com/dev:1",
    "settings.command": "sh -c 'coder agent'",
    "settings.cpus": "1.5",
    "settings.memory_mb": "512",
    "settings.pull": "never",
    "settings.allow_sudo": "yes",
    "settings.volume": "",
    "agents": AGENTS,
    "parameters": "",
}


async def test_a_template_is_created_changed_and_deleted(server: Server, signed_in: Browser):
    made = await signed_in.send("/templates/new", DOCKER, at="/templates/new?kind=docker")
    assert made.headers["Location"] == "/templates?done=template-created", made.text
    found = await server.get(f"{ORGANIZATION}/box")
    assert {name: found["settings"][name] for name in ("image", "command", "cpus", "memory_mb", "pull", "volume")} == {
        "image": "example.com/dev:1",
        "command": ["sh", "-c", "coder agent"],
        "cpus": 1.5,
        "memory_mb": 512,
        "pull": "never",
        "volume": None,
    }
    assert found["settings"]["allow_sudo"]
    rules = ("default_ttl_ms", "max_port_share_level", "cors_behavior", "browser_only", "display_name", "kind")
    assert [found[name] for name in rules] == [5_400_000, "authenticated", "passthru", True, "Box", "docker"]
    assert found["agents"][0]["environment"] == {"EDITOR": "vim"}
    assert found["agents"][0]["apps"][0]["slug"] == "web"


async def test_a_form_that_is_sent_as_it_came_changes_nothing(server: Server, signed_in: Browser):
    await signed_in.send("/templates/new", DOCKER, at="/templates/new?kind=docker")
    before = await server.get(f"{ORGANIZATION}/box")
    page = (await signed_in.see("/templates/box")).text
    form = page[page.index('<form method="post" class="columns">') : page.index("</form>", page.index("columns"))]
    sent = dict(
        re.findall(r'<input[^>]*? name="([\w.]+)"[^>]*? value="([^"]*)"', re.sub(r"<input type=.check[^>]*>", "", form))
    )
    sent |= dict(re.findall(r'<select[^>]* name="([\w.]+)".*?<option value="([^"]*)" selected', form))
    sent |= dict.fromkeys(re.findall(r'type="checkbox" name="([\w.]+)" value="yes" checked', form), "yes")
    sent |= dict(re.findall(r'<textarea[^>]* name="(\w+)"[^>]*>\n(.*?)</textarea>', form, re.DOTALL))
    plain = {name: value.replace("&#39;", "'") for name, value in sent.items()}
    answer = await signed_in.post("/templates/box", plain)
    assert answer.status_code == 303, answer.text
    after = await server.get(f"{ORGANIZATION}/box")
    changing = ("updated_at", "active_version_id", "active_version_name")
    assert {name: value for name, value in after.items() if name not in changing} == {
        name: value for name, value in before.items() if name not in changing
    }


async def test_a_template_is_deleted_by_its_name_and_built_in_ones_never(server: Server, signed_in: Browser):
    await signed_in.send("/templates/new", DOCKER, at="/templates/new?kind=docker")
    assert (await signed_in.send("/templates/box", {"what": "delete", "confirm": "bax"})).status_code == 400
    gone = await signed_in.send("/templates/box", {"what": "delete", "confirm": "box"})
    assert gone.headers["Location"] == "/templates?done=template-deleted"
    assert 'value="delete"' not in (await signed_in.see("/templates/process")).text
    refused = await signed_in.send("/templates/process", {"what": "delete", "confirm": "process"})
    assert (refused.status_code, "always there" in refused.text) == (409, True)


@pytest.mark.parametrize(
    ("wrong", "field", "words"),
    [
        ({"settings.image": "Not An Image"}, "settings.image", ""),
        ({"settings.image": ""}, "settings.image", ""),
        ({"settings.memory_mb": "many"}, "settings.memory_mb", ""),
        ({"settings.command": "sh 'open"}, "settings.command", ""),
        ({"name": "a b"}, "name", ""),
        ({"stop_after": "soon"}, "stop_after", "number of hours"),
        ({"stop_after": "1e9"}, "stop_after", "30 days"),
        ({"stop_after": "nan"}, "stop_after", "number of hours"),
        ({"agents": "- name: [\n"}, "agents", "not YAML"),
    ],
    ids=str,
)
async def test_what_cannot_be_used_is_told_at_its_field_and_the_rest_is_kept(
    server: Server, signed_in: Browser, wrong: dict[str, str], field: str, words: str
):
    answer = await signed_in.send("/templates/new", DOCKER | wrong, at="/templates/new?kind=docker")
    assert answer.status_code == 400, answer.text
    told = re.search(rf'<p class="fault" id="h-{re.escape(field)}">([^<]+)</p>', answer.text)
    assert told, answer.text
    assert words in told[1]
    assert 'value="Box"' in answer.text
    assert [each["name"] for each in await server.get("/templates")] == ["machine", "process"]


async def test_members_see_what_is_offered_and_change_nothing(server: Server, visitor: Browser):
    await server.member("eve")
    await visitor.send("/login", {"email": "eve@example.com", "password": PASSWORD})
    shown = await visitor.see("/templates")
    assert (shown.status_code, "/templates/new" in shown.text, "/templates/process" in shown.text) == (
        200,
        False,
        False,
    )
    assert (await visitor.see("/templates/new")).status_code == 403
    refused = await visitor.send("/templates/process", {"what": "delete", "confirm": "process"}, at="/workspaces")
    assert refused.status_code == 403
    assert (await visitor.send("/templates/new", DOCKER, at="/workspaces")).status_code == 403


# --- schedules


@pytest.fixture
async def built(server: Server, signed_in: Browser) -> dict[str, str]:
    """A workspace of a kind that the server starts; nobody does, so its build only waits."""
    await signed_in.send("/templates/new", DOCKER, at="/templates/new?kind=docker")
    answer = await signed_in.send("/workspaces/new?template=box", {"name": "dev", "template_id": await _id(server)})
    assert answer.status_code == 303, answer.text
    return (await server.get("/workspaces"))["workspaces"][0]


async def _id(server: Server) -> str:
    return (await server.get(f"{ORGANIZATION}/box"))["id"]


async def test_a_schedule_is_set_shown_and_taken_away(server: Server, signed_in: Browser, built: dict[str, str]):
    page = (await signed_in.see("/@admin/dev")).text
    token = re.search(r'name="form_token" value="([0-9a-f]+)"', page)[1]
    sent = [("form_token", token), ("what", "autostart"), ("time", "08:05"), ("zone", "Europe/Berlin")]
    days = "&".join(f"day={day}" for day in (1, 3, 0))
    body = "&".join(f"{name}={value}" for name, value in sent) + f"&{days}"
    headers = {"Sec-Fetch-Site": "same-origin", "Origin": URL, "Content-Type": "application/x-www-form-urlencoded"}
    done = await signed_in.http.post("/@admin/dev", content=body, headers=headers)
    assert done.headers["Location"] == "/@admin/dev?done=schedule", done.text
    shown = await server.get(f"/workspaces/{built['id']}")
    assert shown["autostart_schedule"] == "CRON_TZ=Europe/Berlin 05 08 * * 1,3,0"
    page = (await signed_in.see("/@admin/dev")).text
    assert 'value="08:05"' in page
    assert re.findall(r'name="day" value="(\d)" checked', page) == ["1", "3", "0"]
    assert (await signed_in.send("/@admin/dev", {"what": "by-hand"})).status_code == 303
    assert "autostart_schedule" not in await server.get(f"/workspaces/{built['id']}")


@pytest.mark.parametrize(
    "wrong", [{"zone": "Atlantis/Centre"}, {"time": "soon"}, {"time": "29:00"}, {"day": "9"}, {"zone": "x y"}], ids=str
)
async def test_a_schedule_that_cannot_be_is_refused_in_words(
    server: Server, signed_in: Browser, built: dict[str, str], wrong: dict[str, str]
):
    fields = {"what": "autostart", "time": "08:05", "zone": "UTC", "day": "1"}
    answer = await signed_in.send("/@admin/dev", fields | wrong)
    assert (answer.status_code, 'role="alert"' in answer.text) == (400, True)
    assert "autostart_schedule" not in await server.get(f"/workspaces/{built['id']}")


async def test_the_time_without_use_is_set_in_hours(server: Server, signed_in: Browser, built: dict[str, str]):
    assert (await signed_in.send("/@admin/dev", {"what": "autostop", "hours": "2.5"})).status_code == 303
    assert (await server.get(f"/workspaces/{built['id']}"))["ttl_ms"] == 9_000_000
    for wrong in ("-1", "x", "inf", "1e4"):
        assert (await signed_in.send("/@admin/dev", {"what": "autostop", "hours": wrong})).status_code == 400, wrong
    assert (await signed_in.send("/@admin/dev", {"what": "autostop", "hours": "0"})).status_code == 303
    assert "ttl_ms" not in await server.get(f"/workspaces/{built['id']}")


async def test_a_machine_has_neither_a_schedule_nor_a_start_but_another_token(server: Server, signed_in: Browser):
    await signed_in.send("/workspaces/new", {"name": "laptop"})
    workspace = (await server.get("/workspaces"))["workspaces"][0]
    page = (await signed_in.see("/@admin/laptop")).text
    assert "Starts by itself" not in page
    assert ">Stop<" not in page
    agent = workspace["latest_build"]["resources"][0]["agents"][0]["id"]
    shown = await signed_in.send("/@admin/laptop", {"what": "token", "agent": agent})
    assert re.search(r"CODER_AGENT_TOKEN=[0-9a-f-]{36}", shown.text)
    assert (await signed_in.send("/@admin/laptop", {"what": "token", "agent": "x"})).status_code == 404
