"""Templates: what workspaces are made of. Everybody sees what is offered; whoever may change the deployment, all."""

from typing import Any, Literal
from uuid import UUID, uuid5

from fastapi import APIRouter, WebSocket
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy.exc import IntegrityError

from coder.access import names
from coder.access import templates as rules
from coder.access.roles import Action, Resource
from coder.access.schedule import ttl_problem
from coder.access.templates import Content, Kind
from coder.db import agents, templates
from coder.db.models import TemplateVersion
from coder.server import audit, template_views, terms, views
from coder.server.asking import AskedFirst
from coder.server.auth import Caller, SignedIn
from coder.server.deployment import Deployed, Deployment
from coder.server.problems import Problem, invalid, not_found
from coder.server.texts import Line, Typed

router = APIRouter(tags=["templates"], route_class=AskedFirst)

Level = Literal["owner", "organization", "authenticated", "public"]
Cors = Literal["simple", "passthru"]
_NAMED = {
    *("name", "display_name", "description", "icon", "default_ttl_ms", "browser_only"),
    *("max_port_share_level", "cors_behavior"),
}
_HELD = {"settings", "agents", "parameters"}


class NewTemplate(BaseModel):
    """A template to offer. What `settings`, `agents` and `parameters` hold, the rules of its kind say."""

    name: Typed
    kind: Kind
    display_name: Line = Field(default="", max_length=64)
    description: Line = Field(default="", max_length=1024)
    icon: Line = Field(default="", max_length=256)
    default_ttl_ms: int = 0
    browser_only: bool = False
    max_port_share_level: Level = "public"
    cors_behavior: Cors = "simple"
    settings: dict[str, Any] = Field(default_factory=dict)
    agents: list[dict[str, Any]] = Field(default_factory=list)
    parameters: list[dict[str, Any]] = Field(default_factory=list)


class Changes(BaseModel):
    """What becomes different of a template; what is not named stays."""

    name: Typed | None = None
    display_name: Line | None = Field(default=None, max_length=64)
    description: Line | None = Field(default=None, max_length=1024)
    icon: Line | None = Field(default=None, max_length=256)
    default_ttl_ms: int | None = None
    browser_only: bool | None = None
    max_port_share_level: Level | None = None
    cors_behavior: Cors | None = None
    settings: dict[str, Any] | None = None
    agents: list[dict[str, Any]] | None = None
    parameters: list[dict[str, Any]] | None = None


def _in_organization(deployment: Deployment, organization: str) -> None:
    if not deployment.site.is_organization(organization):
        raise not_found()


def _view(deployment: Deployment, who: Caller, offer: templates.Offer) -> views.Json:
    manages = who.may(Action.UPDATE, Resource.DEPLOYMENT)
    return template_views.template(offer, deployment.site.organization, content=manages)


async def _offer(deployment: Deployment, template: UUID) -> templates.Offer:
    async with deployment.store.read() as session:
        found = await templates.get(session, template)
    if found is None:
        raise not_found()
    return found


@router.get("/templates")
async def list_templates(who: SignedIn, deployment: Deployed, q: str = "") -> list[views.Json]:
    """List the templates that a search finds."""
    wanted = terms.read(q)
    for key, value in wanted:
        if key not in {"", "name", "exact_name", "organization", "deprecated"}:
            raise Problem(400, f"The search cannot use {key[:40]}:{value[:40]}.", detail="Keys are name, exact_name.")
    async with deployment.store.read() as session:
        offers = await templates.offers(session)
    return [_view(deployment, who, offer) for offer in offers if _matches(deployment, offer.template.name, wanted)]


def _matches(deployment: Deployment, name: str, wanted: list[tuple[str, str]]) -> bool:
    for key, value in wanted:
        match key:
            case "exact_name":
                fits = value.lower() == name.lower()
            case "organization":
                fits = deployment.site.is_organization(value)
            case "deprecated":
                fits = value.lower() == "false"  # none is
            case _:
                fits = value.lower() in name.lower()
        if not fits:
            return False
    return True


@router.get("/organizations/{organization}/templates")
async def list_of_organization(organization: str, who: SignedIn, deployment: Deployed) -> list[views.Json]:
    """List the templates of an organization."""
    _in_organization(deployment, organization)
    return await list_templates(who, deployment)


@router.get("/organizations/{organization}/templates/{name}")
async def by_name(organization: str, name: str, who: SignedIn, deployment: Deployed) -> views.Json:
    """Show a template by its name."""
    _in_organization(deployment, organization)
    async with deployment.store.read() as session:
        found = await templates.by_name(session, name)
    if found is None:
        raise not_found()
    return _view(deployment, who, found)


@router.get("/templates/{template}")
async def show(template: UUID, who: SignedIn, deployment: Deployed) -> views.Json:
    """Show a template."""
    return _view(deployment, who, await _offer(deployment, template))


@router.get("/templates/{template}/versions")
async def versions(template: UUID, _who: SignedIn, deployment: Deployed) -> list[views.Json]:
    """List the versions of a template, the oldest first."""
    offer = await _offer(deployment, template)
    async with deployment.store.read() as session:
        rows = await templates.versions(session, offer.template.id)
    return [views.template_version(row, offer.template.organization_id) for row in rows]


@router.post("/organizations/{organization}/templates", status_code=201)
async def create(organization: str, wanted: NewTemplate, who: SignedIn, deployment: Deployed) -> views.Json:
    """Offer a template."""
    _in_organization(deployment, organization)
    who.require(Action.UPDATE, Resource.DEPLOYMENT)
    audit.about(None, wanted.name)
    given = wanted.model_dump(include=_NAMED)
    _check(given)
    content = _content(wanted.kind, wanted.model_dump(include=_HELD))
    del given["name"]
    try:
        async with deployment.store.write() as session:
            made = await templates.create(
                session,
                organization_id=deployment.site.organization.id,
                name=wanted.name,
                kind=wanted.kind,
                content=content,
                now=deployment.clock.now(),
                **given,
            )
    except IntegrityError:
        raise _taken(wanted.name) from None
    audit.about(made, wanted.name)
    return _view(deployment, who, await _offer(deployment, made))


@router.patch("/templates/{template}")
async def change(template: UUID, wanted: Changes, who: SignedIn, deployment: Deployed) -> views.Json:
    """Change a template. Workspaces get what is built from now on when they are started with its new version."""
    who.require(Action.UPDATE, Resource.DEPLOYMENT)
    offer = await _offer(deployment, template)
    row, version = offer.template, offer.version
    audit.about(row.id, row.name)
    given = {name: value for name, value in wanted.model_dump(include=_NAMED).items() if value is not None}
    if row.name in templates.BUILT_IN and given.get("name", row.name) != row.name:
        raise Problem(409, f"The template {row.name} is always there; it keeps its name.")
    _check(given)
    held = {name: value for name, value in wanted.model_dump(include=_HELD).items() if value is not None}
    before = {"settings": version.settings, "agents": version.agents, "parameters": version.parameters}
    content = _content(Kind(row.kind), before | held)
    audit.detail(", ".join(sorted(given.keys() | held.keys())))
    try:
        async with deployment.store.write() as session:
            await templates.change(session, row.id, deployment.clock.now(), **given)
            if held:
                await templates.add_version(session, row.id, content, deployment.clock.now())
    except IntegrityError:
        raise _taken(str(given.get("name"))) from None
    if given.get("browser_only") and not row.browser_only:
        await _end_tunnels(deployment, row.id)
    return _view(deployment, who, await _offer(deployment, template))


async def _end_tunnels(deployment: Deployment, template: UUID) -> None:
    """Part the agents of a template from whom they were introduced to. They come back, for the server itself.

    So clients of all their user's agents have to come back too: else the tunnel they asked for would still be there.
    """
    async with deployment.store.read() as session:
        found = await agents.of_template(session, template)
    users = {user for agent in found for user in deployment.introductions.users(agent)}
    for owner in (*users, *found):
        deployment.sockets.end(owner, "browser-only")


@router.delete("/templates/{template}")
async def delete(template: UUID, who: SignedIn, deployment: Deployed) -> views.Json:
    """Offer a template no more. It has to have no workspaces."""
    who.require(Action.UPDATE, Resource.DEPLOYMENT)
    offer = await _offer(deployment, template)
    audit.about(offer.template.id, offer.template.name)
    if offer.template.name in templates.BUILT_IN:
        raise Problem(409, f"The template {offer.template.name} is always there.")
    if offer.workspaces:
        detail = "Delete them first: `coder list --all --search template:NAME` finds them."
        raise Problem(409, f"The template has {offer.workspaces} workspaces.", detail=detail)
    async with deployment.store.write() as session:
        await templates.delete(session, offer.template, deployment.clock.now())
    return {"message": "The template has been deleted."}


def _check(given: dict[str, Any]) -> None:
    faults = []
    if "name" in given and (fault := names.name_problem(given["name"])):
        faults.append(("name", fault))
    if fault := ttl_problem(given.get("default_ttl_ms") or 0):
        faults.append(("default_ttl_ms", fault))
    if faults:
        raise invalid(*faults)


def _content(kind: Kind, held: dict[str, Any]) -> Content:
    """Return what a version holds. Raises Problem (400) naming each field that cannot be used."""
    faults = []
    try:
        held["settings"] = rules.settings_of(kind, held["settings"]).model_dump(mode="json")
    except ValidationError as error:
        faults += rules.problems(error, "settings")
    try:
        content = Content.model_validate(held)
    except ValidationError as error:
        faults += rules.problems(error)
    if faults:
        raise invalid(*faults)
    return content


def _taken(name: str) -> Problem:
    return Problem(409, f"A template named {name!r} exists already.", validations=[("name", "Taken.")])


async def _version(deployment: Deployment, version: UUID) -> TemplateVersion:
    async with deployment.store.read() as session:
        found = await templates.version(session, version)
    if found is None:
        raise not_found()
    return found


@router.get("/templateversions/{version}")
async def show_version(version: UUID, _who: SignedIn, deployment: Deployed) -> views.Json:
    """Show a version of a template."""
    return views.template_version(await _version(deployment, version), deployment.site.organization.id)


@router.get("/templateversions/{version}/rich-parameters")
async def parameters(version: UUID, _who: SignedIn, deployment: Deployed) -> list[views.Json]:
    """List what may be chosen for workspaces of this version."""
    return template_views.parameters(await _version(deployment, version))


@router.get("/templateversions/{version}/external-auth")
@router.get("/templateversions/{version}/presets")
@router.get("/templateversions/{version}/resources")
async def nothing(version: UUID, _who: SignedIn, deployment: Deployed) -> list[views.Json]:
    """List logins at other places, sets of parameters and resources that a version brings along: none."""
    await _version(deployment, version)
    return []


@router.post("/templateversions/{version}/dry-run", status_code=201)
async def dry_run(version: UUID, _who: SignedIn, deployment: Deployed) -> views.Json:
    """Try a version out: there is nothing that could be known before a build, so the trial has succeeded already."""
    return await _trial(deployment, version)


@router.get("/templateversions/{version}/dry-run/{job}")
async def show_dry_run(version: UUID, job: UUID, _who: SignedIn, deployment: Deployed) -> views.Json:
    """Show a trial."""
    return await _trial(deployment, version, job)


@router.get("/templateversions/{version}/dry-run/{job}/matched-provisioners")
async def provisioners(version: UUID, job: UUID, _who: SignedIn, deployment: Deployed) -> views.Json:
    """Count who carries a trial out: the server itself."""
    await _trial(deployment, version, job)
    return {"count": 1, "available": 1, "most_recently_seen": views.when(deployment.clock.now())}


@router.get("/templateversions/{version}/dry-run/{job}/resources")
@router.get("/templateversions/{version}/dry-run/{job}/logs")
async def no_findings(version: UUID, job: UUID, _who: SignedIn, deployment: Deployed) -> list[views.Json]:
    """List what a trial found, or printed: nothing."""
    await _trial(deployment, version, job)
    return []


@router.websocket("/templateversions/{version}/dry-run/{job}/logs")
async def follow_dry_run(websocket: WebSocket, version: UUID, job: UUID, _who: SignedIn, deployment: Deployed) -> None:
    """Send what a trial prints: nothing."""
    await _trial(deployment, version, job)
    await websocket.accept()
    await websocket.close()


async def _trial(deployment: Deployment, version: UUID, job: UUID | None = None) -> views.Json:
    row = await _version(deployment, version)
    trial = uuid5(row.id, "dry-run")
    if job not in {None, trial}:
        raise not_found()
    shown: views.Json = views.template_version(row, deployment.site.organization.id)["job"]
    return shown | {"id": str(trial), "type": "template_version_dry_run"}
