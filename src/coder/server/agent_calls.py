"""The calls of the Agent service: what an agent asks for at its start, and what it reports."""

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from coder.db import agents
from coder.errors import Malformed
from coder.ids import uuid_from_bytes
from coder.rpc.handlers import Context, Handler, Unary
from coder.server import agent_manifest, connection_reports, keeping_hours
from coder.server.agent_reports import AgentReports, moment, name_of
from coder.server.deployment import Deployment
from coder.wire.proto import agent_pb2 as pb

log = structlog.get_logger(__name__)

_SERVICE = "/coder.agent.v2.Agent/"
_NIL = UUID(int=0)
_SEMVER = re.compile(r"v\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?", re.ASCII)
_MAX_VERSION, _MAX_PATH = 128, 4096
_MONITOR_POINTS, _MONITOR_SECONDS = 20, 10  # a released agent fails without both
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
        reports = AgentReports(self._deployment, self._identity)
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
            "BatchUpdateAppHealths": (pb.BatchUpdateAppHealthRequest, reports.app_healths),
            "BatchUpdateMetadata": (pb.BatchUpdateMetadataRequest, reports.metadata),
            "BatchCreateLogs": (pb.BatchCreateLogsRequest, reports.logs),
            "ScriptCompleted": (pb.WorkspaceAgentScriptCompletedRequest, reports.script),
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
        async with self._deployment.store.read() as session:
            known = await agents.get(session, self._agent_id)  # a workspace may be renamed, a template changed
        return agent_manifest.manifest(self._deployment, known or self._identity)

    async def _stats(self, request: pb.UpdateStatsRequest) -> pb.UpdateStatsResponse:
        if _in_use(request.stats):
            await keeping_hours.used(self._deployment, self._workspace_id)
        return pb.UpdateStatsResponse(report_interval=_duration(self._deployment.settings.client.stats_interval))

    async def _lifecycle(self, request: pb.UpdateLifecycleRequest) -> pb.Lifecycle:
        reported = request.lifecycle
        if reported.state not in pb.Lifecycle.State.values() or reported.state == pb.Lifecycle.STATE_UNSPECIFIED:
            raise Malformed(f"there is no lifecycle state {reported.state}", where="lifecycle.state")
        state = pb.Lifecycle.State.Name(reported.state).lower()
        changed_at = moment(reported.changed_at, "lifecycle.changed_at")
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

    async def _connection(self, request: pb.ReportConnectionRequest) -> Empty:
        connection = request.connection
        if (number := uuid_from_bytes(connection.id, where="connection.id")) == _NIL:
            raise Malformed("must not be the nil UUID", where="connection.id")
        log.info(
            "agent.connection",
            workspace=self._identity.workspace.name,
            connection=str(number),
            action=name_of(pb.Connection.Action, connection.action),
            kind=name_of(pb.Connection.Type, connection.type),
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


def _in_use(stats: pb.Stats) -> bool:
    """Say whether anybody is connected, by what the agent counts."""
    kinds = (stats.session_count_vscode, stats.session_count_jetbrains, stats.session_count_reconnecting_pty)
    return any(count > 0 for count in (*kinds, stats.session_count_ssh, stats.connection_count))


def _monitoring() -> pb.GetResourcesMonitoringConfigurationResponse:
    config = pb.GetResourcesMonitoringConfigurationResponse.Config(
        num_datapoints=_MONITOR_POINTS, collection_interval_seconds=_MONITOR_SECONDS
    )
    return pb.GetResourcesMonitoringConfigurationResponse(config=config)


def _duration(value: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(value)
    return duration
