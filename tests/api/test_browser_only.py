"""Browser-only: no tunnel is granted to anybody it holds, whatever client asks."""

from dataclasses import replace
from uuid import uuid4

import pytest
from sqlalchemy import update
from websockets.exceptions import InvalidStatus

from api.messages import Update, add_tunnel, coordinate, update_self
from coder.config import DerpSettings, HttpSettings, Settings
from coder.db.models import Template
from coder.server.run import _verifies

VERSION = "version=2.0"


async def refusal(server, path: str) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as refused:
        await server.open(path)
    return refused.value.response.status_code, refused.value.response.body.decode()


class TestEverybody:
    @pytest.fixture
    def settings(self, tmp_path):
        http = HttpSettings(browser_only=True)
        return Settings(state_dir=str(tmp_path / "state"), derp=DerpSettings(stun_port=-1), http=http)

    async def test_nobody_is_introduced_and_the_reason_is_told(self, live):
        workspace = await live.workspace()
        for path in (f"/workspaceagents/{workspace.agent_id}/coordinate?{VERSION}", f"/tailnet?{VERSION}"):
            status, body = await refusal(live, path)
            assert status == 409
            assert "for browsers only" in body
            assert "dashboard" in body

    async def test_agents_come_in(self, live):
        workspace = await live.workspace()
        async with live.agent(workspace) as calls:
            assert calls is not None

    def test_the_relay_serves_introduced_nodes_only(self, settings):
        assert _verifies(settings)
        assert not _verifies(replace(settings, http=HttpSettings()))


async def test_one_user_is_held_to_the_browser_and_let_go(live):
    ann = await live.member("ann")
    workspace = await ann.workspace()
    path = f"/workspaceagents/{workspace.agent_id}/coordinate?{VERSION}"
    tunnel = await ann.open(path)
    answer = await live.call("PUT", "/users/ann/browser-only", json={"browser_only": True})
    assert answer.json()["browser_only"] is True
    await tunnel.wait_closed()
    assert (await refusal(ann, path))[0] == 409
    assert (await refusal(ann, f"/tailnet?{VERSION}"))[0] == 409
    assert (await ann.call("PUT", "/users/ann/browser-only", json={"browser_only": False})).status_code in {400, 403}
    assert (await live.call("PUT", "/users/ann/browser-only", json={"browser_only": False})).status_code == 200
    await (await ann.open(path)).close()


async def test_workspaces_of_a_template_are_held_to_the_browser(live):
    workspace = await live.workspace()
    async with live.deployment.store.write() as session:
        await session.execute(update(Template).values(browser_only=True))
    path = f"/workspaceagents/{workspace.agent_id}/coordinate?{VERSION}"
    status, body = await refusal(live, path)
    assert (status, "template" in body) == (409, True)
    async with live.calls(f"/tailnet?{VERSION}") as calls, coordinate(calls) as coordination:
        await coordination.send(add_tunnel(workspace.agent_id))
        assert "permission" in (await anext(coordination)).error


async def test_tunnels_to_a_templates_workspaces_end_when_it_becomes_browser_only(live):
    workspace = await live.workspace()
    tunnel = await live.open(f"/workspaceagents/{workspace.agent_id}/coordinate?{VERSION}")
    offers = await live.get("/templates")
    machine = next(each for each in offers if each["id"] == workspace.body["template_id"])
    answer = await live.call("PATCH", f"/templates/{machine['id']}", json={"browser_only": True})
    assert answer.status_code == 200, answer.text
    await tunnel.wait_closed()


async def test_a_client_of_all_agents_is_not_introduced_again_when_the_agent_comes_back(live):
    workspace = await live.workspace()
    async with live.calls(f"/tailnet?{VERSION}") as client, coordinate(client) as call:
        await call.send(update_self(uuid4(), agent=False))
        await call.send(add_tunnel(workspace.agent_id))
        async with live.agent(workspace) as agent, coordinate(agent) as of_agent:
            await of_agent.send(update_self(workspace.agent_id, agent=True))
            assert (await anext(of_agent)).peer_updates[0].kind == Update.NODE
            template = workspace.body["template_id"]
            answer = await live.call("PATCH", f"/templates/{template}", json={"browser_only": True})
            assert answer.status_code == 200, answer.text
        kinds = [update.kind async for response in call for update in response.peer_updates]
    assert kinds[-1] == Update.DISCONNECTED
    assert live.deployment.introductions.users(workspace.agent_id) == set()
