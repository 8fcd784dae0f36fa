"""What agents report of the things their manifest lists, and what they print: checked, bounded, stored, announced."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from coder.db import agent_logs, agent_reports
from coder.db.agents import Identity
from coder.errors import Malformed
from coder.ids import uuid_from_bytes
from coder.server.deployment import Deployment
from coder.wire.proto import agent_pb2 as pb

_NIL = UUID(int=0)
_MAX_VALUE = 2048
_MAX_METADATA_KEYS = 6144
_MAX_ITEMS = 256
_LEVELS = {pb.Log.TRACE: "trace", pb.Log.DEBUG: "debug", pb.Log.WARN: "warn", pb.Log.ERROR: "error"}


class AgentReports:
    """The reports of one agent's connection."""

    def __init__(self, deployment: Deployment, identity: Identity) -> None:
        self._deployment = deployment
        self._agent_id = identity.agent.id
        self._workspace_id = identity.workspace.id
        self._keys = {str(each["key"]) for each in identity.agent.metadata_items}

    async def logs(self, request: pb.BatchCreateLogsRequest) -> pb.BatchCreateLogsResponse:
        """Keep lines, unless that would be too many."""
        source = uuid_from_bytes(request.log_source_id, where="log_source_id") if request.log_source_id else _NIL
        if source == _NIL:
            source = agent_logs.EXTERNAL
        # More lines than could ever be kept are not even looked at: they would stall everybody else.
        kept = len(request.logs) <= agent_logs.MAX_LOG_LINES
        lines = [_log_line(source, each) for each in request.logs] if kept else []
        return pb.BatchCreateLogsResponse(log_limit_exceeded=not await self.keep(lines, kept=kept))

    async def keep(self, lines: list[dict[str, Any]], *, kept: bool = True) -> bool:
        """Keep lines given as columns; with `kept` False note only that there were too many. Say whether they are."""
        now = self._deployment.clock.now()
        async with self._deployment.store.write() as session:
            if kept:
                kept = await agent_logs.add(session, self._agent_id, lines, now)
            else:
                await agent_logs.overflow(session, self._agent_id, now)
        self._deployment.changes.announce((agent_logs.LOGS, self._agent_id))
        return kept

    async def metadata(self, request: pb.BatchUpdateMetadataRequest) -> pb.BatchUpdateMetadataResponse:
        """Keep the values of items the manifest lists. The time is ours: agents' clocks differ."""
        if sum(len(each.key) for each in request.metadata) > _MAX_METADATA_KEYS:
            raise Malformed(f"all keys together have at most {_MAX_METADATA_KEYS} characters", where="metadata")
        now = self._deployment.clock.now()
        found = {
            each.key: {"key": each.key, "collected_at": now} | _value(each.result)
            for each in request.metadata
            if each.key in self._keys
        }
        if found:
            async with self._deployment.store.write() as session:
                await agent_reports.set_metadata(session, self._agent_id, list(found.values()))
            self._deployment.changes.announce((agent_reports.METADATA, self._agent_id))
        return pb.BatchUpdateMetadataResponse()

    async def app_healths(self, request: pb.BatchUpdateAppHealthRequest) -> pb.BatchUpdateAppHealthResponse:
        """Note how apps are."""
        known = pb.AppHealth
        if len(request.updates) > _MAX_ITEMS:
            raise Malformed(f"at most {_MAX_ITEMS} apps are told of at a time", where="updates")
        healths = {}
        for each in request.updates:
            if each.health not in known.values() or each.health == pb.APP_HEALTH_UNSPECIFIED:
                raise Malformed(f"there is no health {each.health}", where="updates.health")
            healths[uuid_from_bytes(each.id, where="updates.id")] = known.Name(each.health).lower()
        async with self._deployment.store.write() as session:
            now = self._deployment.clock.now()
            news = await agent_reports.set_app_health(session, self._agent_id, healths, now)
        if news:
            self._deployment.changes.announce(self._workspace_id)
        return pb.BatchUpdateAppHealthResponse()

    async def script(
        self, request: pb.WorkspaceAgentScriptCompletedRequest
    ) -> pb.WorkspaceAgentScriptCompletedResponse:
        """Note how the run of a script went."""
        timing = request.timing
        script = uuid_from_bytes(timing.script_id, where="timing.script_id")
        run = {
            "stage": name_of(pb.Timing.Stage, timing.stage),
            "status": name_of(pb.Timing.Status, timing.status),
            "exit_code": timing.exit_code,
            "started_at": moment(timing.start, "timing.start").isoformat(),
            "ended_at": moment(timing.end, "timing.end").isoformat(),
        }
        async with self._deployment.store.write() as session:
            now = self._deployment.clock.now()
            known = await agent_reports.set_last_run(session, self._agent_id, script, run, now)
        if known:
            self._deployment.changes.announce(self._workspace_id)
        return pb.WorkspaceAgentScriptCompletedResponse()


def _value(result: pb.WorkspaceAgentMetadata.Result) -> dict[str, str]:
    error = result.error[:_MAX_VALUE]
    if len(value := result.value.encode()) > _MAX_VALUE:
        error = f"{error}; " if error else ""
        error += f"the value had {len(value)} bytes and was cut to {_MAX_VALUE}"
    return {"value": value[:_MAX_VALUE].decode(errors="ignore"), "error": error}


def _log_line(source: UUID, line: pb.Log) -> dict[str, Any]:
    return {
        "source_id": source,
        "level": _LEVELS.get(line.level, "info"),
        "output": line.output,
        "created_at": moment(line.created_at, "logs.created_at"),
    }


def moment(stamp: Timestamp, where: str) -> datetime:
    """Read a time. Raises Malformed."""
    try:
        return stamp.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise Malformed("this is no time", where=where) from None


def name_of(enum: Any, value: int) -> str:
    """Return what a value of an enumeration is called; its number when it is of a later version."""
    return str(enum.Name(value)).lower() if value in enum.values() else str(value)
