"""The calls of the Tailnet service: coordination, the DERP map, resume tokens, telemetry."""

from collections.abc import AsyncIterator
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from coder.rpc.handlers import Context, Handler, Send, Streaming, Unary
from coder.server.deployment import Deployment
from coder.tailnet.tunnels import AgentAuthorization, Authorization, ClientAuthorization
from coder.wire.proto import tailnet_pb2 as pb

_SERVICE = "/coder.tailnet.v2.Tailnet/"


class TailnetCalls:
    """The calls of one peer's connection."""

    def __init__(self, deployment: Deployment, peer: UUID, rules: Authorization, *, resumes: bool) -> None:
        self._deployment = deployment
        self._peer = peer
        self._rules = rules
        self._resumes = resumes

    @classmethod
    def of_agent(cls, deployment: Deployment, agent: UUID) -> "TailnetCalls":
        """Return the calls of an agent. Its id is its token's, so it gets no resume tokens."""
        return cls(deployment, agent, AgentAuthorization(agent), resumes=False)

    @classmethod
    def of_client(cls, deployment: Deployment, peer: UUID, agent: UUID) -> "TailnetCalls":
        """Return the calls of a client that may tunnel to one agent."""
        return cls(deployment, peer, ClientAuthorization(agent), resumes=True)

    def handlers(self) -> dict[str, Handler]:
        """Return the table of calls. What is not in it is answered as unimplemented."""
        table: dict[str, Handler] = {
            "Coordinate": Streaming(pb.CoordinateRequest, self._coordinate),
            "StreamDERPMaps": Streaming(pb.StreamDERPMapsRequest, self._maps),
            "PostTelemetry": Unary(pb.TelemetryRequest, self._telemetry),
        }
        if self._resumes:
            table["RefreshResumeToken"] = Unary(pb.RefreshResumeTokenRequest, self._resume)
        return {_SERVICE + name: handler for name, handler in table.items()}

    async def _coordinate(self, _context: Context, requests: AsyncIterator[pb.CoordinateRequest], send: Send) -> None:
        await self._deployment.introductions.coordinate(self._peer, self._rules, requests, send)

    async def _maps(self, _context: Context, _requests: AsyncIterator[pb.StreamDERPMapsRequest], send: Send) -> None:
        async for derp_map in self._deployment.maps.each():
            await send(derp_map)

    async def _telemetry(self, _context: Context, _request: pb.TelemetryRequest) -> pb.TelemetryResponse:
        return pb.TelemetryResponse()  # nothing is collected

    async def _resume(self, _context: Context, _request: pb.RefreshResumeTokenRequest) -> pb.RefreshResumeTokenResponse:
        issued = self._deployment.resume.issue(self._peer, self._deployment.clock.now())
        refresh_in, expires_at = Duration(), Timestamp()
        refresh_in.FromTimedelta(issued.refresh_in)
        expires_at.FromDatetime(issued.expires_at)
        return pb.RefreshResumeTokenResponse(token=issued.token.reveal(), refresh_in=refresh_in, expires_at=expires_at)
