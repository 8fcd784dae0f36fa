"""The token that lets a client come back as the same peer after its connection was cut."""

from datetime import UTC, datetime, timedelta

from coder.clock import Clock
from coder.errors import RpcError
from coder.ids import Secret
from coder.rpc.client import RpcClient
from coder.wire.proto import tailnet_pb2 as pb

RPC = "/coder.tailnet.v2.Tailnet/RefreshResumeToken"

FALLBACK = timedelta(minutes=30)
"""When to ask for the next one if the server does not say."""


class ResumeToken:
    """Holds the newest token. The wall clock counts here, because the server says when it expires."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._token: Secret | None = None
        self._expires = datetime.min.replace(tzinfo=UTC)

    def get(self) -> str | None:
        """Return the token while it is good for another dial."""
        if self._token is None or self._clock.now() >= self._expires:
            return None
        return self._token.reveal()

    def forget(self) -> None:
        """Drop a token the server does not take."""
        self._token = None

    async def keep_fresh(self, rpc: RpcClient) -> None:
        """Ask for tokens as long as the server hands them out; return when it does not.

        A server without this call, or with trouble answering it, is no reason to end a connection.
        """
        while True:
            try:
                answer = await rpc.unary(RPC, pb.RefreshResumeTokenRequest(), pb.RefreshResumeTokenResponse)
            except RpcError:
                return
            self._token = Secret(answer.token) if answer.token else None
            self._expires = answer.expires_at.ToDatetime(tzinfo=UTC)
            pause = answer.refresh_in.ToTimedelta()
            await self._clock.sleep((pause if pause > timedelta(0) else FALLBACK).total_seconds())
