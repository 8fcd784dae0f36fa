"""Routes that are WebSockets."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from coder.server.problems import upgrade_required


def websocket_route(router: APIRouter, path: str, checks: Callable[..., Any]) -> Callable[[Any], Any]:
    """Register a WebSocket. A plain request to it is told so, once it has passed the same `checks` of who asks."""

    async def refuse(_who: Annotated[object, Depends(checks)]) -> None:
        raise upgrade_required()

    router.add_api_route(path, refuse, methods=["GET"], include_in_schema=False)
    return router.websocket(path)
