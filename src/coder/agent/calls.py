"""The calls an agent makes, each by its name on the wire. Unless it says otherwise each is of version 2.0."""

from datetime import timedelta

from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp

from coder.rpc.client import RpcClient
from coder.wire.proto import agent_pb2 as pb

VERSION = "2.0"
"""API version to dial with: the lowest that has the calls below, so that no server is too old for us."""

State = pb.Lifecycle.State

_SERVICE = "/coder.agent.v2.Agent/"


async def manifest(rpc: RpcClient) -> pb.Manifest:
    """Ask who we are and how to connect."""
    return await rpc.unary(_SERVICE + "GetManifest", pb.GetManifestRequest(), pb.Manifest)


async def startup(rpc: RpcClient, version: str, directory: str) -> None:
    """Say what runs here."""
    request = pb.UpdateStartupRequest(startup=pb.Startup(version=version, expanded_directory=directory))
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
