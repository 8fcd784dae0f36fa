"""What a server answers calls with: a table from RPC name to handler.

    handlers = {
        "/coder.tailnet.v2.Tailnet/PostTelemetry": Unary(TelemetryRequest, post_telemetry),
        "/coder.tailnet.v2.Tailnet/StreamDERPMaps": ServerStreaming(StreamDERPMapsRequest, stream_derp_maps),
        "/coder.tailnet.v2.Tailnet/Coordinate": Streaming(CoordinateRequest, coordinate),
    }

A handler answers a call with an error by raising: `RpcError` travels as it is, any other `CoderError` as its message,
anything else as "internal error" (and into the log).
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message


@dataclass(frozen=True, slots=True)
class Context:
    """Which call a handler answers."""

    rpc: str
    """The name as called, such as `/coder.tailnet.v2.Tailnet/Coordinate`."""
    stream: int
    """The yamux stream of the call, unique within its channel; for logs."""


Send = Callable[[Any], Awaitable[None]]
"""Sends one response message; waits while the caller does not take more. Raises `Closed` when the caller has gone."""


@dataclass(frozen=True, slots=True)
class Unary:
    """One request, one response: `async def call(ctx, request) -> response`."""

    request: type[Message]
    call: Callable[[Context, Any], Awaitable[Message]]


@dataclass(frozen=True, slots=True)
class ServerStreaming:
    """One request, any number of responses: `async def call(ctx, request, send) -> None`.

    It is cancelled when the caller goes away.
    """

    request: type[Message]
    call: Callable[[Context, Any, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Streaming:
    """Any number of each: `async def call(ctx, requests, send) -> None`; the call ends when it returns.

    `requests` ends when the caller has said it will send no more. It is cancelled when the caller goes away.
    """

    request: type[Message]
    call: Callable[[Context, AsyncIterator[Any], Send], Awaitable[None]]


Handler = Unary | ServerStreaming | Streaming
