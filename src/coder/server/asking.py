"""Routes that know who asks before they read what is sent."""

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Message

from coder.server.auth import ASKED, agent_caller, anyone, caller
from coder.server.deployment import deployment

MAX_OF_STRANGERS = 16 << 10
"""Bytes of a body from somebody who is not signed in: a login, or the first user."""

_ASKS: tuple[Callable[..., Any], ...] = (caller, agent_caller, anyone)


class AskedFirst(APIRoute):
    """A route whose caller is verified, and paced, before its body is read: nobody unknown makes us hold one."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what handles requests."""
        handle = super().get_route_handler()
        calls = set(_calls(self.dependant))
        asks = next((each for each in _ASKS if each in calls), None)
        if self.body_field is None or asks is None:
            return handle

        async def ask_first(request: Request) -> Response:
            request.scope[ASKED] = await asks(request, deployment(request))
            return await handle(_bounded(request) if asks is anyone else request)

        return ask_first


def _bounded(request: Request) -> Request:
    """Return the request of somebody unknown, whose body is small: what has come of it is held until the rest comes."""
    receive, count = request.receive, 0

    async def counted() -> Message:
        nonlocal count
        message = await receive()
        count += len(message.get("body", b""))
        if count > MAX_OF_STRANGERS:
            raise HTTPException(413)
        return message

    return Request(request.scope, counted)


def _calls(dependant: Dependant) -> Iterator[Any]:
    yield dependant.call
    for inner in dependant.dependencies:
        yield from _calls(inner)
