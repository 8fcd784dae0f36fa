"""Plays the client's side of a recorded flow against a server, and holds its answers against the recorded ones."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid4

import pytest
from api.conftest import TOKEN_HEADER, Server, Workspace
from google.protobuf import message_factory
from google.protobuf.message import Message
from websockets.exceptions import InvalidStatus

from coder.errors import CoderError
from coder.rpc.client import RpcClient, RpcStream
from coder.rpc.websocket import WebSocketChannel
from coder.tailnet.addresses import agent_addresses
from coder.wire.proto import agent_pb2, tailnet_pb2
from compat.differences import difference
from compat.shapes import fields, missing, pair_ids

TRANSCRIPTS = Path(__file__).parent / "transcripts"
AGENT_START = "06-agent-start"
RECORDED_AGENT = UUID("430e9cc5-6b49-4436-b440-6e0f95c2717c")
PATIENCE = 10
"""Seconds to wait for an answer; only a failing test waits that long."""

SERVICES = {
    f"/{service.full_name}/{method.name}": method
    for service in (
        agent_pb2.DESCRIPTOR.services_by_name["Agent"],
        tailnet_pb2.DESCRIPTOR.services_by_name["Tailnet"],
    )
    for method in service.methods
}


def flows() -> list[str]:
    return sorted(path.stem for path in TRANSCRIPTS.glob("*.json"))


def steps_of(flow: str) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = json.loads((TRANSCRIPTS / f"{flow}.json").read_text())["steps"]
    return steps


class Replay:
    """One server, its workspaces `dev` and `dev2`, and the connections that a flow holds open."""

    def __init__(self, server: Server, dev: Workspace | None, dev2: Workspace | None, bodies: dict[str, Any]) -> None:
        self.server = server
        self.dev, self.dev2, self.bodies = dev, dev2, bodies
        self.user_token = server.headers.pop(TOKEN_HEADER, "")
        self.key_id = self.resume = ""
        self.calls: dict[int, RpcClient] = {}
        self.streams: dict[tuple[int, int], RpcStream[Any]] = {}
        self.events: dict[str, AsyncIterator[tuple[str, str]]] = {}
        self.ids = {RECORDED_AGENT.bytes: dev.agent_id.bytes} if dev else {}
        self.agent: dict[str, RpcStream[Any]] = {}
        """The agent's streams that outlive a flow, by the call's name."""
        self.announced: set[bytes] = set()
        self.outsiders: set[bytes] = set()
        """Peers without a connection in the recording: the recorded server's own node."""
        self.differing: list[tuple[str, str]] = []
        self.exchanges = self.messages = 0
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.headers[TOKEN_HEADER] = self.user_token
        for stream in [*self.streams.values(), *self.agent.values()]:
            stream.close()
        await self._stack.aclose()

    async def play(self, flow: str) -> None:
        for step in steps_of(flow):
            if "method" in step:
                await self._exchange(flow, step)
            elif "event" in step:
                await self._event(flow, step)
            elif "rpc" in step:
                await self._packet(flow, step)
            elif "end" in step and step["conn"] in self.calls:
                await self.calls.pop(step["conn"]).close()
        if flow == AGENT_START:
            self.agent = {step["rpc"]: self.streams[2, step["stream"]] for step in steps_of(flow) if "rpc" in step}
            self.streams = {}

    # HTTP

    async def _exchange(self, flow: str, step: dict[str, Any]) -> None:
        if reason := difference(flow, step):
            self.differing.append((step["route"], reason))
            return
        self.exchanges += 1
        about = f"{flow}: {step['method']} {step['route']} as {step['as']}"
        path, headers, body = self._path(step), self._headers(step["as"]), self._body(step)
        if step["route"].endswith(("/rpc", "/coordinate")):
            await self._socket(step, path, headers, about)
        elif step.get("media_type") == "text/event-stream" and step["status"] == 200:
            await self._open_events(step, path, headers)
        else:
            headers |= body.pop("headers", {})
            answer = await self.server.http.request(step["method"], path, headers=headers, **body)
            self.server.http.cookies.clear()
            assert answer.status_code == step["status"], (about, answer.text)
            assert answer.headers.get("Content-Type", "").partition(";")[0] == step.get("media_type", ""), about
            self._check(step, answer, about)

    def _check(self, step: dict[str, Any], answer: Any, about: str) -> None:
        assert answer.headers["X-Coder-Build-Version"], about
        if "body" not in step:
            return
        body = answer.json()
        assert missing(step["body"], body) == [], about
        if "session_token" in body:
            self.user_token = body["session_token"]
        elif "key" in body and "token_name" not in body and step.get("request"):
            self.key_id = body["key"].partition("-")[0]

    def _path(self, step: dict[str, Any]) -> str:
        path = step["route"]
        if self.dev and self.dev2:
            version = self.dev.body["latest_build"]["template_version_id"]
            known = {"{agent}": self.dev.agent_id, "{agent2}": self.dev2.agent_id, "{workspace}": self.dev.id}
            for placeholder, value in (known | {"{version}": version, "{key}": self.key_id}).items():
                path = path.replace(placeholder, str(value))
        query = "&".join(f"{name}={value.replace('{resume}', self.resume)}" for name, value in step.get("query", ()))
        return f"{path}?{query}" if query else path

    def _headers(self, who: str) -> dict[str, str]:
        match who:
            case "nobody":
                return {}
            case "agent":
                assert self.dev
                return {"Cookie": f"coder_session_token={self.dev.agent_token}"}
            case "unknown agent token":
                return {"Cookie": f"coder_session_token={uuid4()}"}
            case "user":
                token = self.user_token
            case "user token, wrong secret":
                token = self.user_token[:11] + "B" * 22
            case "unknown user token":
                token = "A" * 10 + "-" + "B" * 22
            case "malformed token":
                token = "bad"
            case _:
                raise AssertionError(who)
        return {TOKEN_HEADER: token}

    def _body(self, step: dict[str, Any]) -> dict[str, Any]:
        if "request" not in step:
            broken = {"content": b"{", "headers": {"Content-Type": "application/json"}}
            return broken if (step["method"], step["status"]) == ("POST", 400) else {}
        if step["route"].endswith("/usage") and "agent_id" in step["request"]:
            assert self.dev
            return {"json": {"agent_id": str(self.dev.agent_id), "app_name": "ssh"}}
        body = self.bodies[step["route"]]
        return {"json": body if step["status"] < 400 else body | {"password": "wrong"}}

    async def _socket(self, step: dict[str, Any], path: str, headers: dict[str, str], about: str) -> None:
        path = path.removeprefix("/api/v2")
        if step["status"] == 101:
            client = RpcClient(WebSocketChannel(await self.server.open(path, headers)))
            self.calls[step["conn"]] = await self._stack.enter_async_context(client)
            return
        with pytest.raises(InvalidStatus) as refused:
            await self.server.open(path, headers)
        assert refused.value.response.status_code == step["status"], about
        assert missing(step["body"], json.loads(refused.value.response.body)) == [], about

    # server-sent events

    async def _open_events(self, step: dict[str, Any], path: str, headers: dict[str, str]) -> None:
        answer = await self._stack.enter_async_context(self.server.http.stream("GET", path, headers=headers))
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].partition(";")[0] == "text/event-stream"
        self.events[step["route"]] = _events(answer.aiter_lines())

    async def _event(self, flow: str, step: dict[str, Any]) -> None:
        stream = self.events.get(step["stream"])
        if stream is None or (step["event"] == "ping" and step["stream"].endswith("/reinit")):
            return  # opened before the flow, or a ping of later
        async with asyncio.timeout(PATIENCE):
            kind, data = await anext(stream)
            while kind != step["event"]:
                kind, data = await anext(stream)
        if "data" in step:
            assert missing(step["data"], json.loads(data), f"{flow}: event") == []

    # calls

    async def _packet(self, flow: str, step: dict[str, Any]) -> None:
        key, name = (step["conn"], step["stream"]), step["rpc"]
        if step["kind"] == "Invoke":
            if step["conn"] in self.calls:
                answer = message_factory.GetMessageClass(SERVICES[name].output_type)
                self.streams[key] = self.calls[step["conn"]].stream(name, None, answer)
            return
        stream = self.streams.get(key) or self._of_the_agent(name)
        if stream is None:
            return  # the rest of a call of before
        if step["kind"] == "Message":
            await self._message(flow, step, stream)
        elif step["from"] == "client":
            await (stream.close_send() if step["kind"] == "CloseSend" else _close(stream))
        elif step["kind"] in {"CloseSend", "Close"} and key in self.streams:
            await _ends(stream)

    def _of_the_agent(self, name: str) -> RpcStream[Any] | None:
        return self.agent.get(name) if name.endswith(("/Coordinate", "/StreamDERPMaps")) else None

    async def _message(self, flow: str, step: dict[str, Any], stream: RpcStream[Any]) -> None:
        self.messages += 1
        method = SERVICES[step["rpc"]]
        from_client = step["from"] == "client"
        recorded = message_factory.GetMessageClass(method.input_type if from_client else method.output_type)()
        recorded.ParseFromString(self._with_our_ids(bytes.fromhex(step["hex"])))
        if not self._without_outsiders(recorded):
            return
        if from_client:
            await stream.send(recorded)
            return
        wanted = fields(recorded) - _OPTIONAL.get(method.output_type.name, set())
        ours = await _find(stream, wanted, f"{flow}: {step['rpc']}")
        pair_ids(recorded, ours, self.ids)
        if isinstance(ours, tailnet_pb2.RefreshResumeTokenResponse):
            self.resume = ours.token

    def _without_outsiders(self, message: Message) -> bool:
        """Take out what concerns outsiders; answer whether anything is left."""
        if isinstance(message, tailnet_pb2.CoordinateRequest):
            self.announced.add(message.update_self.node.key)
            return _drop(message.ready_for_handshake, self.outsiders)
        if isinstance(message, tailnet_pb2.CoordinateResponse):
            strangers = [each for each in message.peer_updates if each.node.key]
            self.outsiders |= {each.id for each in strangers if each.node.key not in self.announced}
            return _drop(message.peer_updates, self.outsiders)
        return True

    def _with_our_ids(self, data: bytes) -> bytes:
        for recorded, ours in self.ids.items():
            data = data.replace(recorded, ours)
        if self.dev:
            for theirs, mine in zip(agent_addresses(RECORDED_AGENT), agent_addresses(self.dev.agent_id), strict=True):
                data = _replace_text(data, str(theirs), str(mine))
        return data


def _drop(entries: Any, ids: set[bytes]) -> bool:
    kept = [each for each in entries if each.id not in ids]
    emptied = bool(entries) and not kept
    del entries[:]
    entries.extend(kept)
    return not emptied


def _replace_text(data: bytes, old: str, new: str) -> bytes:
    """Replace an address, kept as long as it was: a longer form of the same address is the same address."""
    if old.encode() not in data:
        return data
    padded = new
    groups = new.split(":")
    for index, group in enumerate(groups):
        lacking = len(old) - len(padded)
        if lacking > 0 and 0 < len(group) < 4:
            groups[index] = group.zfill(min(4, len(group) + lacking))
            padded = ":".join(groups)
    assert len(padded) == len(old), "choose another agent id"
    return data.replace(old.encode(), padded.encode())


async def _find(stream: RpcStream[Any], wanted: set[str], about: str) -> Message:
    seen: list[set[str]] = []
    try:
        async with asyncio.timeout(PATIENCE):
            async for ours in stream:
                if wanted <= fields(ours):
                    answer: Message = ours
                    return answer
                seen.append(wanted - fields(ours))
    except TimeoutError:
        pass
    raise AssertionError(f"{about}: no message with {sorted(wanted)}; lacking were {seen}")


async def _close(stream: RpcStream[Any]) -> None:
    stream.close()


async def _ends(stream: RpcStream[Any]) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            async for _ in stream:
                pass
    except CoderError:
        pass


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, str]]:
    kind, data = "message", ""
    async for line in lines:
        if found := re.match(r"(event|data): ?(.*)", line):
            kind, data = (found[2], data) if found[1] == "event" else (kind, data + found[2])
        elif not line:
            yield kind, data
            kind, data = "message", ""


_OPTIONAL = {"Manifest": {".directory", ".vs_code_port_proxy_uri"}}
"""Fields that the recorded server's settings had it send: a directory of its template, a wildcard host for apps."""
