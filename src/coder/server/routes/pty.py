"""Terminals of workspaces in the browser."""

from collections.abc import Mapping
from uuid import UUID

import structlog
from fastapi import APIRouter, WebSocket

from coder.access.roles import Action
from coder.errors import CoderError
from coder.server import agent_status, channel, keeping_hours, terminals
from coder.server.auth import SignedIn, caller
from coder.server.deployment import Deployed
from coder.server.problems import Problem, too_many
from coder.server.rechecks import rechecked
from coder.server.routes.agents import visible
from coder.server.terminals import Wish
from coder.server.upgrade import websocket_route

router = APIRouter(tags=["agents"])
log = structlog.get_logger(__name__)

MOST_OF_ONE = 64
"""Terminals one user may have open at a time."""
_SIDE = 80
_MAX_SIDE = 2**16 - 1
_MAX_TEXT = 4096


@websocket_route(router, "/workspaceagents/{agent}/pty", caller)
async def pty(websocket: WebSocket, agent: UUID, who: SignedIn, deployment: Deployed) -> None:
    """Open a terminal of the workspace, or attach to one that is open: bytes out, JSON objects in."""
    found = await visible(deployment, who, agent, Action.CONNECT)
    wish = _wish(websocket.query_params)
    state = agent_status.status(found.agent, deployment.clock.now())
    if state is not agent_status.Status.CONNECTED:
        raise Problem(502, f'Agent state is "{state.value}", not "connected"', detail="Start the workspace.")
    if deployment.terminals.of_user(who.user.id) >= MOST_OF_ONE:
        raise too_many(f"You have {MOST_OF_ONE} terminals open; close one first.", 1.0)
    opened = deployment.terminals.opened(agent, who.user.id, who.user.username)
    sockets = deployment.sockets.belonging_to(who.user.id, who.key.id, agent, found.owner.id)
    bound = structlog.contextvars.bound_contextvars(agent=str(agent), user=who.user.username)
    used = keeping_hours.in_use(deployment, found.workspace.id)
    with bound, opened, sockets, used, rechecked(deployment, who):
        await websocket.accept()
        code, reason = channel.GOING_AWAY, "the server ends this connection"
        try:
            async with deployment.node.stream(agent, terminals.PORT) as stream:
                stream.send(wish.first_message())  # a fresh stream has room for it
                flow = "flow" in websocket.query_params
                code, reason = await terminals.carry(websocket, stream, flow=flow)
        except (CoderError, OSError) as error:
            log.info("terminal.not_reached", reason=str(error))
            code, reason = channel.INTERNAL_ERROR, f"dial workspace agent: {error}"
        finally:
            await channel.close(websocket, code, reason)


def _wish(given: Mapping[str, str]) -> Wish:
    """Read the parameters. Raises Problem (400) that names all that are wrong."""
    faults: list[tuple[str, str]] = []
    number = given.get("reconnect", "")
    reconnect = UUID(int=0)
    if not number:
        faults.append(("reconnect", 'Query param "reconnect" is required and cannot be empty'))
    else:
        try:
            reconnect = UUID(number)
        except ValueError:
            faults.append(("reconnect", 'Query param "reconnect" must be a valid uuid'))
    sides = {}
    for name in ("height", "width"):
        text = given.get(name) or str(_SIDE)
        if text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) <= _MAX_SIDE:
            sides[name] = int(text)
        else:
            faults.append((name, f'Query param "{name}" must be a number from 1 to {_MAX_SIDE}'))
    texts = {name: given.get(name, "") for name in ("command", "container", "container_user", "backend_type")}
    faults += [
        (name, f'Query param "{name}" has at most {_MAX_TEXT} bytes')
        for name, text in texts.items()
        if len(text.encode()) > (_MAX_TEXT if name == "command" else 1024)
    ]
    if texts["backend_type"] not in {"", "screen", "buffered"}:
        faults.append(("backend_type", 'Query param "backend_type" must be screen or buffered'))
    if faults:
        raise Problem(400, "Invalid query parameters.", validations=faults)
    return Wish(
        reconnect=reconnect,
        rows=sides["height"],
        columns=sides["width"],
        command=texts["command"],
        container=texts["container"],
        container_user=texts["container_user"],
        backend=texts["backend_type"],
    )
