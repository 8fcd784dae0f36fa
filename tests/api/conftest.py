"""A server for each test: the real application on a real database, on a unix socket when sockets are needed."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
from websockets.asyncio.client import unix_connect

from api.browser import URL, Browser
from coder.clock import FakeClock
from coder.config import DerpSettings, Settings
from coder.db.store import SqliteStore
from coder.rpc.client import RpcClient
from coder.rpc.websocket import WebSocketChannel
from coder.server.app import create_app
from coder.server.deployment import Deployment
from coder.server.run import assemble
from coder.server.web_server import web_server

PASSWORD = "correct horse 7 battery"
TOKEN_HEADER = "Coder-Session-Token"


@dataclass
class Server:
    """A deployment with a client that speaks to it."""

    deployment: Deployment
    clock: FakeClock
    http: httpx2.AsyncClient
    socket: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    async def call(self, method: str, path: str, **options: Any) -> httpx2.Response:
        options["headers"] = self.headers | options.get("headers", {})
        return await self.http.request(method, f"/api/v2{path}", **options)

    async def get(self, path: str, **options: Any) -> Any:
        answer = await self.call("GET", path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def sign_in(self, email: str = "admin@example.com") -> str:
        answer = await self.call("POST", "/users/login", json={"email": email, "password": PASSWORD})
        assert answer.status_code == 201, answer.text
        self.http.cookies.clear()
        self.headers[TOKEN_HEADER] = answer.json()["session_token"]
        return self.headers[TOKEN_HEADER]

    async def set_up(self) -> str:
        """Create the first user and sign in."""
        first = {"email": "admin@example.com", "username": "admin", "password": PASSWORD, "name": "Admin"}
        assert (await self.call("POST", "/users/first", json=first)).status_code == 201
        return await self.sign_in()

    async def member(self, name: str) -> "Server":
        """Create a further user; return a server handle signed in as them."""
        new = {"email": f"{name}@example.com", "username": name, "password": PASSWORD}
        assert (await self.call("POST", "/users", json=new)).status_code == 201
        other = replace(self, headers={})
        await other.sign_in(new["email"])
        return other

    async def workspace(self, name: str = "dev") -> "Workspace":
        answer = await self.call("POST", "/users/me/workspaces", json={"name": name})
        assert answer.status_code == 201, answer.text
        body = answer.json()
        agent = body["latest_build"]["resources"][0]["agents"][0]
        return Workspace(body["id"], name, UUID(agent["id"]), body["agent_token"], body)

    async def open(self, path: str, headers: dict[str, str] | None = None, **options: Any) -> Any:
        """Open a WebSocket. Raises InvalidStatus when the server answers otherwise."""
        return await unix_connect(
            self.socket,
            f"ws://coder.test:3000/api/v2{path}",
            additional_headers=self.headers if headers is None else headers,
            compression=None,
            **options,
        )

    @asynccontextmanager
    async def calls(self, path: str, headers: dict[str, str] | None = None) -> AsyncIterator[RpcClient]:
        async with RpcClient(WebSocketChannel(await self.open(path, headers))) as client:
            yield client

    def agent(self, workspace: "Workspace", version: str = "2.6", instance: str = "") -> Any:
        headers = {"Cookie": f"coder_session_token={workspace.agent_token}"}
        if instance:
            headers["Coder-Agent-Instance"] = instance
        return self.calls(f"/workspaceagents/me/rpc?version={version}", headers)

    def client(self, workspace: "Workspace") -> Any:
        return self.calls(f"/workspaceagents/{workspace.agent_id}/coordinate?version=2.0")


@dataclass(frozen=True)
class Workspace:
    id: str
    name: str
    agent_id: UUID
    agent_token: str = field(repr=False)
    body: dict[str, Any] = field(repr=False)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The health report finds nobody here; it need not wait for them."""
    monkeypatch.setattr("coder.server.health_probes.PATIENCE", 0.2)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=str(tmp_path / "state"), derp=DerpSettings(stun_port=-1))


@pytest.fixture
def access_url() -> str:
    """Where browsers and programs find the server."""
    return URL


@pytest.fixture
async def deployment(settings: Settings, access_url: str) -> AsyncIterator[Deployment]:
    store = await SqliteStore.open(settings.state_path)
    yield await assemble(settings, store, access_url, (), FakeClock())
    await store.close()


@pytest.fixture
async def bare(deployment: Deployment, access_url: str) -> AsyncIterator[Server]:
    """A server without users, without sockets."""
    transport = httpx2.ASGITransport(app=create_app(deployment), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=access_url) as http:
        yield Server(deployment, deployment.clock, http)


@pytest.fixture
async def server(bare: Server) -> Server:
    """A server whose owner is signed in, without sockets."""
    await bare.set_up()
    return bare


@pytest.fixture
async def visitor(bare: Server) -> AsyncIterator[Browser]:
    transport = httpx2.ASGITransport(app=create_app(bare.deployment), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=URL) as http:
        yield Browser(http)


@pytest.fixture
async def signed_in(server: Server, visitor: Browser) -> Browser:
    answer = await visitor.send("/login", {"email": "admin@example.com", "password": PASSWORD})
    assert answer.status_code == 303, answer.text
    return visitor


@pytest.fixture
async def live(deployment: Deployment, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Server]:
    """A server on a unix socket, its owner signed in. Whatever a test does, no error may reach the log."""
    path = str(tmp_path / "app.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        web = web_server(create_app(deployment))
        serving = asyncio.create_task(web.serve(sockets=[listener]))
        async with httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=path), base_url=URL) as http:
            running = Server(deployment, deployment.clock, http, path)
            await running.set_up()
            yield running
        deployment.introductions.shutdown()
        await deployment.sockets.stop(5)
        web.should_exit = True
        await serving
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR] == []
