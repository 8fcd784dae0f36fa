"""The calls of the Agent service: what an agent asks for at its start, and what it reports."""

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from coder.db import agents
from coder.errors import Malformed
from coder.ids import uuid_from_bytes
from coder.rpc.handlers import Context, Handler, Unary
from coder.server import connection_reports
from coder.server.deployment import Deployment
from coder.wire.proto import agent_pb2 as pb

log = structlog.get_logger(__name__)

_SERVICE = "/coder.agent.v2.Agent/"
_NIL = UUID(int=0)
_EXTERNAL_LOGS = UUID("3b579bf4-1ed8-4b99-87a8-e9a1e3410410")
"""Source of lines that name none; the protocol's number."""
_SEMVER = re.compile(r"v\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?", re.ASCII)
_MAX_METADATA_KEYS = 6144
_MAX_VERSION, _MAX_PATH = 128, 4096
_MONITOR_POINTS, _MONITOR_SECONDS = 20, 10  # a released agent fails without both
_LEVELS = {pb.Log.TRACE: "trace", pb.Log.DEBUG: "debug", pb.Log.WARN: "warn", pb.Log.ERROR: "error"}
_READY_STATES = frozenset({"ready", "start_timeout", "start_error"})


class AgentCalls:
    """The calls of one agent's connection."""

    def __init__(self, deployment: Deployment, identity: agents.Identity, api_version: str) -> None:
        self._deployment = deployment
        self._identity = identity
        self._agent_id = identity.agent.id
        self._workspace_id = identity.workspace.id
        self._api_version = api_version

    def handlers(self) -> dict[str, Handler]:
        """Return the table of calls. What is not in it is answered as unimplemented."""
        served: dict[str, tuple[type[Message], Callable[[Any], Awaitable[Message]]]] = {
            "GetManifest": (pb.GetManifestRequest, self._manifest),
            "GetServiceBanner": (pb.GetServiceBannerRequest, _answer(pb.ServiceBanner())),
            "GetAnnouncementBanners": (
                pb.GetAnnouncementBannersRequest,
                _answer(pb.GetAnnouncementBannersResponse()),
            ),
            "UpdateStats": (pb.UpdateStatsRequest, self._stats),
            "UpdateLifecycle": (pb.UpdateLifecycleRequest, self._lifecycle),
            "UpdateStartup": (pb.UpdateStartupRequest, self._startup),
            "BatchUpdateAppHealths": (pb.BatchUpdateAppHealthRequest, _answer(pb.BatchUpdateAppHealthResponse())),
            "BatchUpdateMetadata": (pb.BatchUpdateMetadataRequest, self._metadata),
            "BatchCreateLogs": (pb.BatchCreateLogsRequest, self._logs),
            "ScriptCompleted": (
                pb.WorkspaceAgentScriptCompletedRequest,
                _answer(pb.WorkspaceAgentScriptCompletedResponse()),
            ),
            "GetResourcesMonitoringConfiguration": (
                pb.GetResourcesMonitoringConfigurationRequest,
                _answer(_monitoring()),
            ),
            "PushResourcesMonitoringUsage": (
                pb.PushResourcesMonitoringUsageRequest,
                _answer(pb.PushResourcesMonitoringUsageResponse()),
            ),
            "ReportConnection": (pb.ReportConnectionRequest, self._connection),
            "ListSubAgents": (pb.ListSubAgentsRequest, _answer(pb.ListSubAgentsResponse())),
        }
        return {_SERVICE + name: Unary(request, _plain(call)) for name, (request, call) in served.items()}

    async def _manifest(self, _request: pb.GetManifestRequest) -> pb.Manifest:
        derp, known = self._deployment.settings.derp, self._identity
        return pb.Manifest(
            agent_id=self._agent_id.bytes,
            agent_name=known.agent.name,
            owner_username=known.owner.username,
            workspace_id=self._workspace_id.bytes,
            workspace_name=known.workspace.name,
            directory=known.agent.directory,
            disable_direct_connections=derp.block_direct,
            derp_force_websockets=derp.force_websockets,
            derp_map=self._deployment.maps.protobuf(),
        )

    async def _stats(self, _request: pb.UpdateStatsRequest) -> pb.UpdateStatsResponse:
        return pb.UpdateStatsResponse(report_interval=_duration(self._deployment.settings.client.stats_interval))

    async def _lifecycle(self, request: pb.UpdateLifecycleRequest) -> pb.Lifecycle:
        reported = request.lifecycle
        if reported.state not in pb.Lifecycle.State.values() or reported.state == pb.Lifecycle.STATE_UNSPECIFIED:
            raise Malformed(f"there is no lifecycle state {reported.state}", where="lifecycle.state")
        state = pb.Lifecycle.State.Name(reported.state).lower()
        changed_at = _moment(reported.changed_at, "lifecycle.changed_at")
        values: dict[str, Any] = {"lifecycle_state": state}
        if state == "starting":
            values |= {"started_at": changed_at, "ready_at": None}
        elif state in _READY_STATES:
            values["ready_at"] = changed_at
        async with self._deployment.store.write() as session:
            found = await agents.get(session, self._agent_id)
            if state in _READY_STATES and found and found.agent.started_at is None:
                values["started_at"] = changed_at
            await agents.change(session, self._agent_id, self._deployment.clock.now(), **values)
        self._deployment.changes.announce(self._workspace_id)
        return reported

    async def _startup(self, request: pb.UpdateStartupRequest) -> pb.Startup:
        startup = request.startup
        if not _SEMVER.fullmatch(startup.version):
            raise Malformed("expected a semantic version with a leading v", where="startup.version")
        if len(startup.version) > _MAX_VERSION or len(startup.expanded_directory) > _MAX_PATH:
            raise Malformed("version or expanded_directory is too long", where="startup")
        known = pb.Startup.Subsystem
        subsystems = {known.Name(each).lower() for each in startup.subsystems if each in known.values() and each}
        async with self._deployment.store.write() as session:
            await agents.change(
                session,
                self._agent_id,
                self._deployment.clock.now(),
                version=startup.version,
                api_version=self._api_version,
                expanded_directory=startup.expanded_directory,
                subsystems=",".join(sorted(subsystems)),
            )
        self._deployment.changes.announce(self._workspace_id)
        return startup

    async def _metadata(self, request: pb.BatchUpdateMetadataRequest) -> pb.BatchUpdateMetadataResponse:
        # The manifest describes no metadata, so there is nothing a value could belong to.
        if sum(len(each.key) for each in request.metadata) > _MAX_METADATA_KEYS:
            raise Malformed(f"all keys together have at most {_MAX_METADATA_KEYS} characters", where="metadata")
        return pb.BatchUpdateMetadataResponse()

    async def _logs(self, request: pb.BatchCreateLogsRequest) -> pb.BatchCreateLogsResponse:
        source = uuid_from_bytes(request.log_source_id, where="log_source_id") if request.log_source_id else _NIL
        if source == _NIL:
            source = _EXTERNAL_LOGS
        now, kept = self._deployment.clock.now(), len(request.logs) <= agents.MAX_LOG_LINES
        # More lines than could ever be kept are not even looked at: they would stall everybody else.
        lines = [_log_line(source, each) for each in request.logs] if kept else []
        async with self._deployment.store.write() as session:
            if kept:
                kept = await agents.add_logs(session, self._agent_id, lines, now)
            else:
                await agents.overflow_logs(session, self._agent_id, now)
        self._deployment.changes.announce((agents.LOGS, self._agent_id))
        return pb.BatchCreateLogsResponse(log_limit_exceeded=not kept)

    async def _connection(self, request: pb.ReportConnectionRequest) -> Empty:
        connection = request.connection
        if (number := uuid_from_bytes(connection.id, where="connection.id")) == _NIL:
            raise Malformed("must not be the nil UUID", where="connection.id")
        log.info(
            "agent.connection",
            workspace=self._identity.workspace.name,
            connection=str(number),
            action=_name(pb.Connection.Action, connection.action),
            kind=_name(pb.Connection.Type, connection.type),
            peer=connection.ip[:64],
        )
        await connection_reports.store(self._deployment, self._identity, number, connection)
        return Empty()


def _answer(message: Message) -> Callable[[Any], Awaitable[Message]]:
    async def call(_request: Any) -> Message:
        return message

    return call


def _plain(call: Callable[[Any], Awaitable[Message]]) -> Callable[[Context, Any], Awaitable[Message]]:
    async def with_context(_context: Context, request: Any) -> Message:
        return await call(request)

    return with_context


def _monitoring() -> pb.GetResourcesMonitoringConfigurationResponse:
    config = pb.GetResourcesMonitoringConfigurationResponse.Config(
        num_datapoints=_MONITOR_POINTS, collection_interval_seconds=_MONITOR_SECONDS
    )
    return pb.GetResourcesMonitoringConfigurationResponse(config=config)


def _log_line(source: UUID, line: pb.Log) -> dict[str, Any]:
    return {
        "source_id": source,
        "level": _LEVELS.get(line.level, "info"),
        "output": line.output,
        "created_at": _moment(line.created_at, "logs.created_at"),
    }


def _moment(stamp: Timestamp, where: str) -> datetime:
    try:
        return stamp.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise Malformed("this is no time", where=where) from None


def _duration(value: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(value)
    return duration


def _name(enum: Any, value: int) -> str:
    return str(enum.Name(value)).lower() if value in enum.values() else str(value)
