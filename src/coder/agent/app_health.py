"""Health of the workspace's apps: each that names a URL is asked there, and the server told when that changes."""

import asyncio
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import UUID

import structlog

from coder.agent import calls
from coder.clock import Clock
from coder.errors import Malformed, RpcError
from coder.ids import uuid_from_bytes
from coder.peering.tasks import together
from coder.rpc.client import RpcClient
from coder.wire.proto import agent_pb2 as pb

MAX_APPS = 128
"""Apps looked after of one manifest."""

SHORTEST = 1.0
"""Seconds between two looks at an app, at least."""

SERVER_ERROR = 500
"""The least status that means trouble; a refusal shows that the app is there."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Check:
    """How one app is looked at."""

    app: UUID
    url: str
    interval: float
    """Seconds."""
    threshold: int
    """Failures in a row that make an app unhealthy."""

    @classmethod
    def of(cls, told: pb.WorkspaceApp) -> "Check | None":
        """Take it from the manifest; None when the app has no check. Raises Malformed."""
        wanted = told.healthcheck
        if not wanted.url:
            return None
        interval = wanted.interval.seconds + wanted.interval.nanos / 1e9
        return cls(
            uuid_from_bytes(told.id, where="app.id"), wanted.url, max(interval, SHORTEST), max(wanted.threshold, 1)
        )


class AppHealth:
    """Looks at apps while there is a connection to tell of them."""

    def __init__(self, apps: Iterable[pb.WorkspaceApp], clock: Clock) -> None:
        self._clock = clock
        found = (Check.of(each) for each in list(apps)[:MAX_APPS])
        self._checks = [each for each in found if each is not None]
        self._changed: dict[UUID, pb.AppHealth.ValueType] = {}
        self._arrived = asyncio.Event()

    async def report(self, rpc: RpcClient) -> None:
        """Look and tell, until cancelled or the connection ends."""
        await together(*map(self._watch, self._checks), self._send(rpc))

    async def _watch(self, check: Check) -> None:
        state, failures = pb.INITIALIZING, 0
        while True:
            problem = await self._look(check)
            failures = failures + 1 if problem else 0
            now = state
            if not problem:
                now = pb.HEALTHY
            elif failures >= check.threshold:
                now = pb.UNHEALTHY
            if now != state:
                state = now
                log.info("app.health", app=str(check.app), health=pb.AppHealth.Name(now).lower(), reason=problem)
                self._changed[check.app] = now
                self._arrived.set()
            await self._clock.sleep(check.interval)

    async def _look(self, check: Check) -> str:
        """Return what is wrong with an app; nothing when it answers."""
        asking = asyncio.ensure_future(_status(check.url))
        late = asyncio.ensure_future(self._clock.sleep(check.interval))
        try:
            await asyncio.wait({asking, late}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                return "no answer in time"
            status = asking.result()
        except (OSError, ValueError, Malformed) as error:
            return str(error) or type(error).__name__
        finally:
            asking.cancel()
            late.cancel()
        return f"status {status}" if status >= SERVER_ERROR else ""

    async def _send(self, rpc: RpcClient) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            changed, self._changed = self._changed, {}
            try:
                await calls.app_healths(rpc, changed)
            except RpcError as error:
                log.debug("app.health_refused", reason=str(error))
            await self._clock.sleep(SHORTEST)


async def _status(url: str) -> int:
    """Ask for a URL and return the answer's status; redirects are answers. Raises OSError, ValueError, Malformed."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Malformed("the URL to ask is neither http nor https", where="healthcheck.url")
    secure = ssl.create_default_context() if parts.scheme == "https" else None
    port = parts.port or (443 if secure else 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if any(sign <= " " or sign > "~" for sign in target + parts.netloc):
        raise Malformed("the URL to ask holds signs that must be escaped", where="healthcheck.url")
    host = parts.netloc.rpartition("@")[2]
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure)
    try:
        request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: coder-agent\r\nConnection: close\r\n\r\n"
        writer.write(request.encode("ascii"))
        line = await reader.readline()
    finally:
        writer.close()
    words = line.split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise Malformed("the app does not speak HTTP", where="healthcheck.url")
    return int(words[1])
