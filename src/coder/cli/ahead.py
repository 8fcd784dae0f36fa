"""What a connection to an agent needs and can be had before the agent is known.

In turn each of it costs a round trip or two, which on a long way are felt.
"""

import asyncio
import functools
import socket
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from coder.cli import racing
from coder.cli.errors import ApiError
from coder.cli.threads import in_thread
from coder.errors import CoderError, UpgradeRefused

if TYPE_CHECKING:
    from coder.cli.api import Api
    from coder.cli.context import Globals
    from coder.peering import WebSocketDial
    from coder.rpc.channel import Channel

PATIENCE = 10.0
"""Seconds for the TCP connection that is opened ahead; whoever needs it sooner does without."""


class Ahead:
    """Asks for the relay map, and opens a TCP connection for the coordination socket. `close` it at the end."""

    def __init__(self, flags: "Globals", api: "Api") -> None:
        self._api = api
        self._info = asyncio.ensure_future(in_thread(functools.partial(_info, api.signed_in(flags.session()))))
        self._info.add_done_callback(lambda done: done.cancelled() or done.exception())  # told even if nobody asks
        self._opening = None if flags.outbound.proxy(api.url) is not None else _Opening(api.url)

    async def info(self, agent: str) -> Any:
        """Return the relay map and the rules for connecting to an agent. Raises what `Api.connection_info` does."""
        info = await self._info
        return await in_thread(functools.partial(self._api.connection_info, agent)) if info is None else info

    async def dial(self, dial: "WebSocketDial") -> "Channel":
        """Dial, over the connection that is open if one is and it still works. Raises what dialling does."""
        ready = self._opening.take() if self._opening is not None else None
        if ready is not None:
            try:
                return await dial.over(ready)
            except BaseException as error:
                ready.close()
                if isinstance(error, UpgradeRefused) or not isinstance(error, CoderError):
                    raise
                # else it was idle for too long, or leads elsewhere: a new one will tell
        return await dial(None)

    def close(self) -> None:
        """Give up what nobody took."""
        self._info.cancel()
        if self._opening is not None and (unused := self._opening.take()) is not None:
            unused.close()


class _Opening:
    """A connection that is opened on a thread, for whoever takes it; one that comes too late is closed."""

    def __init__(self, url: str) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._over = False
        threading.Thread(target=self._open, args=(url,), name="ahead", daemon=True).start()

    def take(self) -> socket.socket | None:
        """Give the connection away; None if it is not open yet: on a line with losses a new one may be sooner."""
        with self._lock:
            self._over, taken, self._socket = True, self._socket, None
            return taken

    def _open(self, url: str) -> None:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            opened = racing.create_connection((parts.hostname or "", port), PATIENCE)
        except OSError:
            return  # the API will tell
        with self._lock:
            if self._over:
                opened.close()
            else:
                self._socket = opened


def _info(api: "Api") -> Any:
    """Ask for what holds for all agents; None from a server that tells it of single ones only."""
    with api:
        try:
            return api.any_connection_info()
        except ApiError as error:
            if error.code == 404:
                return None
            raise
