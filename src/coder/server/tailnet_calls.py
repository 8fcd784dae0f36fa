"""The calls of the Tailnet service: coordination, the DERP map, resume tokens, telemetry, a user's workspaces."""

from collections.abc import AsyncIterator
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from coder.access import roles, tunnels
from coder.access.roles import Action, Resource
from coder.db import agents, users, workspaces
from coder.errors import Forbidden
from coder.ids import uuid_from_bytes
from coder.rpc.handlers import Context, Handler, Send, ServerStreaming, Streaming, Unary
from coder.server.auth import Caller
from coder.server.deployment import Deployment
from coder.server.workspace_updates import Snapshot, difference, snapshot
from coder.tailnet.tunnels import AgentAuthorization, Authorization, ClientAuthorization, UserAuthorization
from coder.wire.proto import tailnet_pb2 as pb

_SERVICE = "/coder.tailnet.v2.Tailnet/"


class TailnetCalls:
    """The calls of one peer's connection."""

    def __init__(
        self,
        deployment: Deployment,
        peer: UUID,
        rules: Authorization,
        *,
        owner: UUID | None = None,
        user: Caller | None = None,
    ) -> None:
        self.peer = peer
        self._deployment = deployment
        self._rules = rules
        self._owner = owner
        self._user = user
        self._revoked = False

    async def revoke(self, reason: str) -> None:
        """Have the peer and its partners drop each other; for `Sockets`."""
        self._revoked = True
        await self._deployment.introductions.revoke(self.peer, reason)

    @classmethod
    def of_agent(cls, deployment: Deployment, agent: UUID) -> "TailnetCalls":
        """Return the calls of an agent. Its id is its token's, so it gets no resume tokens."""
        return cls(deployment, agent, AgentAuthorization(agent))

    @classmethod
    def of_client(cls, deployment: Deployment, peer: UUID, agent: UUID, owner: UUID) -> "TailnetCalls":
        """Return the calls of a client of a user that may tunnel to one agent."""
        return cls(deployment, peer, ClientAuthorization(agent), owner=owner)

    @classmethod
    def of_user(cls, deployment: Deployment, peer: UUID, who: Caller) -> "TailnetCalls":
        """Return the calls of a client that may tunnel to every agent its user may reach."""

        async def may_reach(agent: UUID) -> bool:
            async with deployment.store.read() as session:
                found = await agents.get(session, agent)
                user = await users.get(session, who.user.id)
            if found is None or user is None or user.status != users.ACTIVE:
                return False
            everybody = deployment.settings.http.browser_only
            template = found.workspace.template.browser_only
            if tunnels.browser_only(everybody=everybody, user=user.browser_only, template=template):
                return False
            own = found.owner.id == user.id
            return roles.allowed(user.role_names, Action.CONNECT, Resource.WORKSPACE, own=own)

        return cls(deployment, peer, UserAuthorization(may_reach), owner=who.user.id, user=who)

    def handlers(self) -> dict[str, Handler]:
        """Return the table of calls. What is not in it is answered as unimplemented."""
        table: dict[str, Handler] = {
            "Coordinate": Streaming(pb.CoordinateRequest, self._coordinate),
            "StreamDERPMaps": ServerStreaming(pb.StreamDERPMapsRequest, self._maps),
            "PostTelemetry": Unary(pb.TelemetryRequest, self._telemetry),
        }
        if self._owner:
            table["RefreshResumeToken"] = Unary(pb.RefreshResumeTokenRequest, self._resume)
        if self._user:
            table["WorkspaceUpdates"] = ServerStreaming(pb.WorkspaceUpdatesRequest, self._workspaces)
        return {_SERVICE + name: handler for name, handler in table.items()}

    async def _coordinate(self, _context: Context, requests: AsyncIterator[pb.CoordinateRequest], send: Send) -> None:
        if self._revoked:  # the last moment of a connection is not for beginning anew
            raise Forbidden("you may not be introduced to anybody now")
        await self._deployment.introductions.coordinate(self.peer, self._rules, requests, send)

    async def _maps(self, _context: Context, _request: pb.StreamDERPMapsRequest, send: Send) -> None:
        async for derp_map in self._deployment.maps.each():
            await send(derp_map)

    async def _workspaces(self, _context: Context, request: pb.WorkspaceUpdatesRequest, send: Send) -> None:
        owner = uuid_from_bytes(request.workspace_owner_id, where="workspace_owner_id")
        assert self._user is not None
        if not self._user.may(Action.READ, Resource.WORKSPACE, owner):
            raise Forbidden("these are not your workspaces")
        told = None
        with self._deployment.changes.watch((workspaces.OF_OWNER, owner)) as changed:
            while True:
                async with self._deployment.store.read() as session:
                    now = snapshot(await workspaces.search(session, workspaces.Search(owner_id=owner)))
                update = difference(told or Snapshot(), now)
                if told is None or update.ByteSize():  # the first one is sent even when there is nothing
                    await send(update)
                told = now
                await changed.wait()
                changed.clear()

    async def _telemetry(self, _context: Context, _request: pb.TelemetryRequest) -> pb.TelemetryResponse:
        return pb.TelemetryResponse()  # nothing is collected

    async def _resume(self, _context: Context, _request: pb.RefreshResumeTokenRequest) -> pb.RefreshResumeTokenResponse:
        issued = self._deployment.resume.issue(self.peer, self._deployment.clock.now(), self._owner)
        refresh_in, expires_at = Duration(), Timestamp()
        refresh_in.FromTimedelta(issued.refresh_in)
        expires_at.FromDatetime(issued.expires_at)
        return pb.RefreshResumeTokenResponse(token=issued.token.reveal(), refresh_in=refresh_in, expires_at=expires_at)
