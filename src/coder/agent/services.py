"""What the agent itself answers inside the tunnel, and what it tells of its node's life."""

import asyncio
import socket
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog

from coder.access import tokens
from coder.agent.node import SSH, SSH_STANDARD, TERMINAL
from coder.dataplane.engine import Incoming, PathChanged, RelayProblem, SelfChanged
from coder.ids import Secret
from coder.peering import PortMapped
from coder.tailnet.sides import NOTHING

if TYPE_CHECKING:
    from coder.agent.sessions import Sessions
    from coder.peering import Peering

MAX_CLIENTS = 64
"""Connections to the HTTP API served at a time; more are closed at once."""

log = structlog.get_logger()


def peers_path(token: Secret) -> str:
    """Return where our server asks for the ways to our peers; empty for a token that is none."""
    try:
        return tokens.peers_path(tokens.hash_agent_token(UUID(token.reveal())))
    except ValueError:
        return ""


class Services:
    """Serves the streams that reach Python, each in a task of its own."""

    def __init__(self, peers_path: str = "") -> None:
        self._peers_path = peers_path
        self.peering: Peering | None = None
        """Set once the node exists; what the report on the connection is made from."""
        self.sessions: Sessions | None = None
        """Set once the agent knows what its shell is like."""
        self._home = 0
        self._problems: dict[int, str] = {}
        """What last was wrong, by region, until that is over."""
        self._tasks: set[asyncio.Task[None]] = set()

    def on_event(self, event: object) -> None:
        """Take an event of the node."""
        match event:
            case Incoming(port=port) if port in (SSH, SSH_STANDARD) and self.sessions is not None:
                self.sessions.serve(event.stream, event.source)
            case Incoming(port=port) if port == TERMINAL and self.sessions is not None:
                self.sessions.serve_terminal(event.stream, event.source)
            case Incoming():
                self._accept(event)
            case SelfChanged() if event.home not in {0, self._home} and self.peering is not None:
                self._home = event.home
                log.info("home.chosen", why=self.peering.why_home())
            case PathChanged():
                place = event.path.endpoint or f"region {event.path.region}"
                log.debug("path.changed", peer=event.peer[:16], kind=event.path.kind, via=place)
            case RelayProblem():
                self._note_relay(event)
            case PortMapped():
                report = event.report
                log.info("port.mapped", gateway=report.gateway, external=report.external, via=report.via)

    def _note_relay(self, event: RelayProblem) -> None:
        """Log what is wrong with a relay, once for each cause in a row, and when that is over."""
        before = self._problems.pop(event.region, "")
        if not event.text:
            if before:
                log.info("relay.back", region=event.region)
            return
        self._problems[event.region] = event.text
        level = log.debug if before == event.text else log.warning
        level("relay.problem", region=event.region, reason=event.text)

    def _accept(self, event: Incoming) -> None:
        if len(self._tasks) >= MAX_CLIENTS:
            event.stream.close()
            return
        task = asyncio.ensure_future(self._serve(event.stream, event.source))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, stream: socket.socket, asker: str) -> None:
        from coder.agent import webapi  # noqa: PLC0415 - most agents are never asked

        async def paths() -> dict[str, Any]:
            return self._paths(asker)

        await webapi.serve(
            stream,
            {
                "/": _hello,
                "/api/v0/listening-ports": _listening_ports,
                "/api/v0/netcheck": self._netcheck,
                "/api/v0/paths": paths,
                **({self._peers_path: self._peers} if self._peers_path else {}),
            },
        )

    async def close(self) -> None:
        """End all streams."""
        if self.sessions is not None:
            await self.sessions.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _netcheck(self) -> dict[str, Any]:
        """Tell what our network is like, as other agents of the protocol do."""
        from coder.agent import netcheck  # noqa: PLC0415 - as above

        return await netcheck.report(self.peering)

    def _paths(self, asker: str) -> dict[str, Any]:
        """Tell what we know of the way to the one who asks; of no other peer."""
        from coder.peering import network  # noqa: PLC0415 - as above

        if self.peering is None:
            return NOTHING.dump()
        return network.extra_of(self.peering, network.paths_to(self.peering, asker)).dump()

    async def _peers(self) -> dict[str, Any]:
        """Tell our server the way to each peer there is a session with."""
        from coder.peering import network  # noqa: PLC0415 - as above

        return {"peers": [] if self.peering is None else network.ways(self.peering)}


async def _hello() -> dict[str, str]:
    return {"message": "Hello from the agent!"}


async def _listening_ports() -> dict[str, Any]:
    from coder.agent.ports import listening  # noqa: PLC0415 - as above

    found = await asyncio.to_thread(listening)
    return {"ports": [{"process_name": one.process, "network": "tcp", "port": one.port} for one in found]}
