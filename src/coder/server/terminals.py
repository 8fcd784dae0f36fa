"""Carries a terminal between a browser's WebSocket and the agent, at the pace of the slower.

A browser takes messages faster than it can show them and has no way to make a server wait. A page that asks for it
(`flow` in the query) therefore says how many bytes it has shown, in text messages `{"shown": <total>}`, and never has
more than a window of them to show. All else is binary and passes as it is: the agent reads what the browser says.
"""

import asyncio
import json
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from starlette.websockets import WebSocket, WebSocketDisconnect

from coder.server.channel import INTERNAL_ERROR, NORMAL, UNSUPPORTED_DATA

PORT: Final = 2
"""The agent's terminal port."""
WINDOW: Final = 384 << 10
"""Bytes a page may have to show."""

_PIECE: Final = 32 << 10
_MAX_TOLD: Final = 64  # characters of a text message


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Which terminal, and how large."""

    reconnect: UUID
    rows: int
    columns: int
    command: str = ""
    container: str = ""
    container_user: str = ""
    backend: str = ""

    def first_message(self) -> bytes:
        """Return what opens the terminal at the agent; it is sent in one piece. Raises ValueError when too long."""
        body = json.dumps(
            {
                "ID": str(self.reconnect),
                "Height": self.rows,
                "Width": self.columns,
                "Command": self.command,
                "Container": self.container,
                "ContainerUser": self.container_user,
                "BackendType": self.backend,
            },
            separators=(",", ":"),
        ).encode()
        if len(body) >= 2**16:
            raise ValueError("the command is too long")
        return len(body).to_bytes(2, "little") + body


class _Flow:
    """How many bytes the page has been sent and has shown."""

    def __init__(self) -> None:
        self._sent = 0
        self._shown = 0
        self._room = asyncio.Event()
        self._room.set()

    def sent(self, size: int) -> None:
        self._sent += size
        self._look()

    def told(self, text: str) -> bool:
        """Take what the page says; False when it says something else."""
        if len(text) > _MAX_TOLD:
            return False
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return False
        shown: Any = message.get("shown") if isinstance(message, dict) else None
        if type(shown) is not int or not self._shown <= shown <= self._sent:
            return False
        self._shown = shown
        self._look()
        return True

    def _look(self) -> None:
        (self._room.set if self._sent - self._shown < WINDOW else self._room.clear)()

    async def room(self) -> None:
        await self._room.wait()


class OpenTerminals:
    """Which terminals browsers show now: of which agent, for whom."""

    def __init__(self) -> None:
        self._open: Counter[tuple[UUID, UUID, str]] = Counter()

    @property
    def total(self) -> int:
        """Number of those open now."""
        return self._open.total()

    def of_user(self, user: UUID) -> int:
        """Count those one user has open."""
        return sum(count for (_, whose, _), count in self._open.items() if whose == user)

    def user_at(self, agent: UUID) -> tuple[UUID, str] | None:
        """Return id and name of the user who has terminals of this agent open; None when that is not one user."""
        users = {(user, name) for where, user, name in self._open if where == agent}
        return users.pop() if len(users) == 1 else None

    @contextmanager
    def opened(self, agent: UUID, user: UUID, name: str) -> Iterator[None]:
        """Note that one is open while the block runs."""
        mine = (agent, user, name)
        self._open[mine] += 1
        try:
            yield
        finally:
            self._open[mine] -= 1
            if not self._open[mine]:
                del self._open[mine]


async def carry(websocket: WebSocket, stream: socket.socket, *, flow: bool) -> tuple[int, str]:
    """Carry both directions of an accepted WebSocket until either ends; return code and reason to close it with."""
    shown = _Flow() if flow else None
    jobs = [asyncio.create_task(_down(websocket, stream, shown)), asyncio.create_task(_up(websocket, stream, shown))]
    try:
        done, _ = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
        return next(job for job in jobs if job in done).result()
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)


async def _down(websocket: WebSocket, stream: socket.socket, flow: _Flow | None) -> tuple[int, str]:
    loop = asyncio.get_running_loop()
    while True:
        if flow is not None:
            await flow.room()
        try:
            data = await loop.sock_recv(stream, _PIECE)
        except OSError:
            return INTERNAL_ERROR, "the connection to the agent was lost"
        if not data:
            return NORMAL, "the program has ended"
        if flow is not None:
            flow.sent(len(data))
        try:
            await websocket.send({"type": "websocket.send", "bytes": data})
        except (WebSocketDisconnect, RuntimeError):
            return NORMAL, ""
        await asyncio.sleep(0)  # neither side need have waited: others are served between two pieces


async def _up(websocket: WebSocket, stream: socket.socket, flow: _Flow | None) -> tuple[int, str]:
    loop = asyncio.get_running_loop()
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return NORMAL, ""
        data = message.get("bytes")
        if data is None:
            if flow is None or not flow.told(message.get("text") or ""):
                return UNSUPPORTED_DATA, "terminals are binary"
            continue
        try:
            await loop.sock_sendall(stream, data)
        except OSError:
            continue  # the other direction knows whether the agent has anything left to say
