"""What the agent itself answers inside the tunnel, and what it tells of its node's life."""

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import structlog

from coder.dataplane.engine import Incoming, PathChanged, RelayProblem

if TYPE_CHECKING:
    from coder.peering import Peering

MAX_CLIENTS = 64
"""Connections to the HTTP API served at a time; more are closed at once."""

log = structlog.get_logger()


class Services:
    """Serves the streams that reach Python, each in a task of its own."""

    def __init__(self) -> None:
        self.peering: Peering | None = None
        """Set once the node exists; what the report on the connection is made from."""
        self._tasks: set[asyncio.Task[None]] = set()

    def on_event(self, event: object) -> None:
        """Take an event of the node."""
        match event:
            case Incoming():
                self._accept(event.stream)
            case PathChanged():
                place = event.path.endpoint or f"region {event.path.region}"
                log.debug("path.changed", peer=event.peer[:16], kind=event.path.kind, via=place)
            case RelayProblem():
                log.warning("relay.problem", region=event.region, reason=event.text)

    def _accept(self, stream: socket.socket) -> None:
        if len(self._tasks) >= MAX_CLIENTS:
            stream.close()
            return
        task = asyncio.ensure_future(self._serve(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, stream: socket.socket) -> None:
        from coder.agent import webapi  # noqa: PLC0415 - most agents are never asked

        routes = {"/": _hello, "/api/v0/listening-ports": _listening_ports, "/api/v0/netcheck": self._netcheck}
        await webapi.serve(stream, routes)

    async def close(self) -> None:
        """End all streams."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _netcheck(self) -> dict[str, Any]:
        from coder.agent.interfaces import interfaces  # noqa: PLC0415 - as above

        state = self.peering.state() if self.peering is not None else None
        found = [
            {"name": one.name, "mtu": one.mtu, "addresses": list(one.addresses)}
            for one in await asyncio.to_thread(interfaces)
        ]
        return {
            "severity": "ok",
            "warnings": None,
            "dismissed": False,
            "net_info": {
                "PreferredDERP": state.home if state else 0,
                "DERPLatency": dict(state.latencies) if state else {},
            },
            "interfaces": {"severity": "ok", "warnings": [], "dismissed": False, "interfaces": found},
        }


async def _hello() -> dict[str, str]:
    return {"message": "Hello from the agent!"}


async def _listening_ports() -> dict[str, Any]:
    from coder.agent.ports import listening  # noqa: PLC0415 - as above

    found = await asyncio.to_thread(listening)
    return {"ports": [{"process_name": one.process, "network": "tcp", "port": one.port} for one in found]}
