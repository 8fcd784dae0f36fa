"""A server with a table of answers in place of a database, on a real socket and a thread of its own."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from coder.errors import Closed
from coder.rpc.handlers import Context, Handler, Send, Streaming, Unary
from coder.rpc.server import serve
from coder.wire.proto import tailnet_pb2 as pb

BUILD = "v2.26.0+fake"
AGENT_ID = UUID("4b0f9be3-2a1d-4e5c-9f10-0123456789ab")
USER = {"id": "11111111-1111-4111-8111-111111111111", "username": "alice", "email": "alice@example.com"}
SESSION = "Ab3dE6gH9k-0123456789abcdefghijkl"

Answer = tuple[int, Any]


class JsonText(bytes):
    """An answer's body that says it is JSON; other bytes are sent without a word on what they are."""


@dataclass
class Call:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Any


@dataclass
class FakeServer:
    """`answers` maps "METHOD /path" to (status, JSON) or to a function of the call."""

    answers: dict[str, Answer | Callable[[Call], Answer]] = field(default_factory=dict)
    handlers: dict[str, Handler] = field(default_factory=dict)
    build: str | None = BUILD
    calls: list[Call] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"fake": self}))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def asked(self, path: str) -> list[Call]:
        return [call for call in self.calls if call.path == path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeServer

    def _any(self) -> None:
        parts = urlsplit(self.path)
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        call = Call(
            self.command, parts.path, parse_qs(parts.query), dict(self.headers), json.loads(data) if data else None
        )
        self.fake.calls.append(call)
        answer = self.fake.answers.get(f"{self.command} {parts.path}", (404, {"message": "Route not found."}))
        status, body = answer(call) if callable(answer) else answer
        if status == 101:
            self.close_connection = True
            _websocket(self.connection, self.raw_requestline, self.headers.as_bytes(policy=HTTP), self.fake.handlers)
            return
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        if self.fake.build is not None:
            self.send_header("X-Coder-Build-Version", self.fake.build)
        if not isinstance(body, bytes) or isinstance(body, JsonText):
            self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(payload)))
        with contextlib.suppress(ConnectionError):  # whoever asked may have gone
            self.end_headers()
            self.wfile.write(payload)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815

    def log_message(self, *args: object) -> None: ...


def _websocket(connection: socket.socket, line: bytes, headers: bytes, handlers: dict[str, Handler]) -> None:
    protocol = ServerProtocol(max_size=None)
    protocol.receive_data(line + headers)
    [request] = protocol.events_received()
    assert isinstance(request, Request)
    protocol.send_response(protocol.accept(request))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setblocking(False)
    asyncio.run(_serve(_ServerChannel(connection, protocol), handlers))


async def _serve(channel: "_ServerChannel", handlers: dict[str, Handler]) -> None:
    await channel.flush()
    await serve(channel, handlers)


class _ServerChannel:
    """A channel over the library's sans-IO protocol."""

    def __init__(self, connection: socket.socket, protocol: ServerProtocol) -> None:
        self._connection = connection
        self._protocol = protocol
        self._received: list[bytes] = []

    async def recv(self) -> bytes | None:
        loop = asyncio.get_running_loop()
        while not self._received:
            try:
                data = await loop.sock_recv(self._connection, 1 << 16)
            except OSError:
                return None
            if not data:
                return None
            self._protocol.receive_data(data)
            for frame in self._protocol.events_received():
                if getattr(frame, "opcode", None) is Opcode.BINARY:
                    self._received.append(bytes(frame.data))
            await self.flush()
            if self._protocol.state is not State.OPEN:
                return None
        return self._received.pop(0)

    async def send(self, data: bytes) -> None:
        if self._protocol.state is not State.OPEN:
            raise Closed("gone")
        self._protocol.send_binary(data)
        await self.flush()

    async def close(self) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)
            await self.flush()

    async def flush(self) -> None:
        loop = asyncio.get_running_loop()
        for data in self._protocol.data_to_send():
            try:
                if data:
                    await loop.sock_sendall(self._connection, data)
            except OSError:
                return


def agent(**changes: Any) -> dict[str, Any]:
    return {
        "id": str(AGENT_ID),
        "name": "main",
        "status": "connected",
        "lifecycle_state": "ready",
        "version": "v0.1.0",
        "operating_system": "linux",
        "architecture": "amd64",
        "first_connected_at": "2026-01-02T03:04:05Z",
        "last_connected_at": "2026-01-02T03:04:05Z",
        "health": {"healthy": True},
    } | changes


def workspace(*agents: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "id": "22222222-2222-4222-8222-222222222222",
        "name": "dev",
        "owner_name": "alice",
        "created_at": "2026-01-02T03:04:05Z",
        "template_name": "machine",
        "outdated": False,
        "health": {"healthy": True},
        "latest_build": {
            "transition": "start",
            "status": "running",
            "created_at": "2026-01-02T03:04:05Z",
            "template_version_name": "v1",
            "job": {"created_at": "2026-01-02T03:04:05Z", "completed_at": "2026-01-02T03:04:06Z"},
            "resources": [{"type": "machine", "name": "dev", "agents": list(agents)}],
        },
    } | changes


MAP = {
    "HomeParams": {},
    "Regions": {
        "999": {
            "EmbeddedRelay": True,
            "RegionID": 999,
            "RegionCode": "coder",
            "RegionName": "Coder Embedded Relay",
            "Nodes": [
                {"Name": "999b", "RegionID": 999, "HostName": "inner.example", "DERPPort": 443, "STUNPort": 3478}
            ],
        }
    },
}


def map_message() -> pb.DERPMap:
    region = pb.DERPMap.Region(
        region_id=999, embedded_relay=True, region_code="coder", region_name="Coder Embedded Relay"
    )
    region.nodes.add(name="999b", region_id=999, host_name="inner.example", derp_port=443, stun_port=3478)
    return pb.DERPMap(home_params=pb.DERPMap.HomeParams(), regions={999: region})


def node_message(endpoints: tuple[str, ...] = ("10.0.0.7:41641",)) -> pb.Node:
    address = "fd7a:115c:a1e0:4e5c:9f10:123:4567:89ab/128"
    return pb.Node(
        id=1,
        key=b"np" + bytes(range(32)),
        disco="discokey:" + "3c" * 32,
        preferred_derp=999,
        addresses=[address],
        allowed_ips=[address],
        endpoints=endpoints,
    )


def coordination(requests: list[pb.CoordinateRequest]) -> dict[str, Handler]:
    """Answer as a coordinator that knows one agent, which is ready at once."""

    async def coordinate(ctx: Context, incoming: AsyncIterator[Any], send: Send) -> None:
        async for request in incoming:
            requests.append(request)
            if request.HasField("add_tunnel"):
                kinds = pb.CoordinateResponse.PeerUpdate
                update = kinds(id=AGENT_ID.bytes, node=node_message(), kind=kinds.NODE)
                await send(pb.CoordinateResponse(peer_updates=[update]))
                ready = kinds(id=AGENT_ID.bytes, kind=kinds.READY_FOR_HANDSHAKE)
                await send(pb.CoordinateResponse(peer_updates=[ready]))
            if request.HasField("disconnect"):
                return

    async def maps(ctx: Context, incoming: AsyncIterator[Any], send: Send) -> None:
        async for _ in incoming:
            await send(map_message())
        await asyncio.Event().wait()

    return {
        "/coder.tailnet.v2.Tailnet/Coordinate": Streaming(pb.CoordinateRequest, coordinate),
        "/coder.tailnet.v2.Tailnet/StreamDERPMaps": Streaming(pb.StreamDERPMapsRequest, maps),
        "/coder.tailnet.v2.Tailnet/PostTelemetry": Unary(pb.TelemetryRequest, _nothing),
    }


async def _nothing(ctx: Context, request: Any) -> pb.TelemetryResponse:
    return pb.TelemetryResponse()
