"""The calls an agent makes, each by its name on the wire. Unless it says otherwise each is of version 2.0."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp

from coder.rpc.client import RpcClient
from coder.wire.proto import agent_pb2 as pb

VERSION = "2.0"
"""API version to dial with: the lowest that has the calls below, so that no server is too old for us."""

State = pb.Lifecycle.State
Subsystem = pb.Startup.Subsystem

_SERVICE = "/coder.agent.v2.Agent/"


def timestamp(at: datetime) -> Timestamp:
    """Write a time as calls carry it."""
    made = Timestamp()
    made.FromDatetime(at)
    return made


async def manifest(rpc: RpcClient) -> pb.Manifest:
    """Ask who we are and how to connect."""
    return await rpc.unary(_SERVICE + "GetManifest", pb.GetManifestRequest(), pb.Manifest)


async def startup(
    rpc: RpcClient, version: str, directory: str, subsystems: "Sequence[Subsystem.ValueType]" = ()
) -> None:
    """Say what runs here."""
    told = pb.Startup(version=version, expanded_directory=directory, subsystems=subsystems)
    request = pb.UpdateStartupRequest(startup=told)
    await rpc.unary(_SERVICE + "UpdateStartup", request, pb.Startup)


async def lifecycle(rpc: RpcClient, state: "State.ValueType", changed_at: Timestamp) -> None:
    """Say how far this agent has come."""
    request = pb.UpdateLifecycleRequest(lifecycle=pb.Lifecycle(state=state, changed_at=changed_at))
    await rpc.unary(_SERVICE + "UpdateLifecycle", request, pb.Lifecycle)


async def stats(rpc: RpcClient, figures: pb.Stats | None) -> timedelta:
    """Report traffic, or nothing yet; return the time until the next report is wanted."""
    request = pb.UpdateStatsRequest(stats=figures)
    answer = await rpc.unary(_SERVICE + "UpdateStats", request, pb.UpdateStatsResponse)
    return answer.report_interval.ToTimedelta()


async def report_connection(rpc: RpcClient, connection: pb.Connection) -> None:
    """Say that somebody connected to a service of ours, or left it. Of version 2.4: older servers refuse it."""
    await rpc.unary(_SERVICE + "ReportConnection", pb.ReportConnectionRequest(connection=connection), Empty)


async def banners(rpc: RpcClient) -> tuple[str, ...]:
    """Ask what users are to read before they work. Of version 2.2: older servers refuse it."""
    answer = await rpc.unary(
        _SERVICE + "GetAnnouncementBanners", pb.GetAnnouncementBannersRequest(), pb.GetAnnouncementBannersResponse
    )
    return tuple(banner.message for banner in answer.announcement_banners if banner.enabled and banner.message.strip())


async def logs(rpc: RpcClient, source: UUID, lines: Sequence[pb.Log]) -> bool:
    """Hand lines of a log source over; return whether the server wants no more, ever."""
    request = pb.BatchCreateLogsRequest(log_source_id=source.bytes, logs=lines)
    answer = await rpc.unary(_SERVICE + "BatchCreateLogs", request, pb.BatchCreateLogsResponse)
    return answer.log_limit_exceeded


async def script_completed(rpc: RpcClient, timing: pb.Timing) -> None:
    """Say how a run of a script went. Of version 2.3: older servers refuse it."""
    request = pb.WorkspaceAgentScriptCompletedRequest(timing=timing)
    await rpc.unary(_SERVICE + "ScriptCompleted", request, pb.WorkspaceAgentScriptCompletedResponse)


async def metadata(rpc: RpcClient, found: Mapping[str, pb.WorkspaceAgentMetadata.Result]) -> None:
    """Report values by key."""
    request = pb.BatchUpdateMetadataRequest(
        metadata=[pb.Metadata(key=key, result=result) for key, result in found.items()]
    )
    await rpc.unary(_SERVICE + "BatchUpdateMetadata", request, pb.BatchUpdateMetadataResponse)


async def app_healths(rpc: RpcClient, healths: "Mapping[UUID, pb.AppHealth.ValueType]") -> None:
    """Report how apps are, by id."""
    kinds = pb.BatchUpdateAppHealthRequest.HealthUpdate
    request = pb.BatchUpdateAppHealthRequest(
        updates=[kinds(id=app.bytes, health=health) for app, health in healths.items()]
    )
    await rpc.unary(_SERVICE + "BatchUpdateAppHealths", request, pb.BatchUpdateAppHealthResponse)
