"""Finds what the name of an app stands for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy.ext.asyncio import AsyncSession

from coder.access import app_names
from coder.access.app_names import Named, Short
from coder.access.sharing import Level, capped
from coder.config import AppsSettings
from coder.db import port_shares, users, workspaces
from coder.db.models import User, Workspace, WorkspaceAgent


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a workspace an app answers."""

    tls: bool
    port: int
    path: str = "/"
    query: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An app or port that exists."""

    owner: User
    workspace: Workspace
    agent: WorkspaceAgent
    level: Level
    """With whom it is shared, ceilings applied."""
    place: Place


async def find(session: AsyncSession, name: Named | Short, settings: AppsSettings, *, by_path: bool) -> Target | None:
    """Return what a name stands for; None if there is no such thing. Only names of the named user's things count."""
    workspace = await _workspace(session, name)
    if workspace is None or workspace.deleted_at or workspace.owner.status != users.ACTIVE or not workspace.builds:
        return None
    for agent in workspace.latest_build.agents:
        if not _is(name, agent.name):
            continue
        if port := name.port:
            shared = await port_shares.level(session, workspace.id, agent.name, port.number)
            level = _level(shared or Level.OWNER, workspace, settings)
            place = Place(port.tls, port.number)
        elif app := _app(name, agent):
            level = _level(app.get("sharing_level") or Level.OWNER, workspace, settings)
            place = _place(app["url"])
        else:
            continue
        if by_path and not settings.allow_path_app_sharing:
            level = Level.OWNER
        return Target(owner=workspace.owner, workspace=workspace, agent=agent, level=level, place=place)
    return None


async def _workspace(session: AsyncSession, name: Named | Short) -> Workspace | None:
    if isinstance(name, Short):
        return await workspaces.get(session, name.workspace)
    owner = await users.by_name(session, name.owner)
    return await workspaces.by_name(session, owner.id, name.workspace) if owner else None


def _is(name: Named | Short, agent: str) -> bool:
    if isinstance(name, Short):
        return name.agent == app_names.digest(agent)
    return name.agent.lower() in {"", agent.lower()}


def _app(name: Named | Short, agent: WorkspaceAgent) -> Mapping[str, Any] | None:
    """Return the app of that slug, if it is one that is reached through the server."""
    for app in agent.apps:
        slug = app["slug"] if isinstance(name, Named) else app_names.short_slug(app["slug"])
        if slug.lower() == name.app.lower() and app.get("url") and not app.get("external") and not app.get("command"):
            return app
    return None


def _level(level: str, workspace: Workspace, settings: AppsSettings) -> Level:
    ceilings = Level(settings.max_sharing_level), Level(workspace.template.max_port_share_level)
    return capped(Level(level), *ceilings)


def _place(url: str) -> Place:
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return Place(tls, parts.port or (443 if tls else 80), parts.path or "/", parts.query)
