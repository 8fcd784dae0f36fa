"""Templates: what workspaces are made of, for those who may change them."""

from typing import Any

import yaml
from starlette.responses import Response

from coder.access.templates import Kind, settings_schema
from coder.web import api, settings_form, text
from coder.web.page import Page, refusal

ROUTE = "/organizations/default/templates"
_TEXTS = ("display_name", "description", "icon", "max_port_share_level", "cors_behavior")
_LISTS = ("agents", "parameters")
"""Parts of a template that are written as YAML."""
KINDS = {
    Kind.MACHINE: ("Machine", "One that its user brings, and starts the agent on."),
    Kind.DOCKER: ("Container", "The server runs a container for each workspace."),
    Kind.SSH: ("Host", "The server starts the agent on a host that it reaches by SSH."),
    Kind.PROCESS: ("Process", "A process of the server itself, for administrators only."),
}


async def show(page: Page) -> Response:
    """List the templates."""
    return page.render("templates.html", templates=await page.ask("GET", "/templates"), kinds=KINDS)


async def show_new(page: Page) -> Response:
    """Show the form for a new template of a kind."""
    return _form(page, {"kind": _kind(page.asked("kind"))})


async def create(page: Page) -> Response:
    """Offer a template."""
    kind = _kind(page.form.get("kind", ""))
    try:
        await page.ask("POST", ROUTE, {"kind": kind, **_wanted(page, kind)})
    except api.Refused as refused:
        return _form(page, {"kind": kind}, refused)
    return page.go("/templates", "template-created")


async def show_one(page: Page) -> Response:
    """Show a template with what can be changed."""
    return _form(page, await _template(page))


async def change(page: Page) -> Response:
    """Change or delete a template."""
    template = await _template(page)
    route = "/templates" + api.path(template["id"])
    try:
        if page.form.get("what") == "delete":
            if page.form.get("confirm", "").strip() != template["name"]:
                raise refusal(400, f"To delete the template, type its name, {template['name']}, into the field.")
            await page.ask("DELETE", route)
            return page.go("/templates", "template-deleted")
        changed = await page.ask("PATCH", route, _wanted(page, template["kind"]))
    except api.Refused as refused:
        return _form(page, template, refused)
    return page.go("/templates" + api.path(changed["name"]), "template-changed")


async def _template(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = await page.ask("GET", ROUTE + api.path(page.request.path_params["name"]))
    return found


def _kind(asked: str) -> str:
    return asked if asked in {each.value for each in Kind} else Kind.DOCKER.value


def _wanted(page: Page, kind: str) -> dict[str, Any]:
    form = page.form
    wanted: dict[str, Any] = {name: form.get(name, "").strip() for name in ("name", *_TEXTS)}
    wanted["default_ttl_ms"] = text.from_hours(form.get("stop_after", ""))
    if wanted["default_ttl_ms"] is None:
        raise fault("stop_after", "Expected a number of hours.")
    wanted["browser_only"] = form.get("browser_only") == "yes"
    wanted["settings"] = settings_form.read(settings_form.fields(settings_schema(Kind(kind)), {}), form)
    return wanted | {name: _listed(form.get(name, ""), name) for name in _LISTS}


def _listed(written: str, field: str) -> Any:
    try:
        return yaml.safe_load(written) or []
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise fault(field, "This is not YAML." + (f" Look at line {mark.line + 1}." if mark else "")) from None


def fault(field: str, detail: str) -> api.Refused:
    """Return a refusal for one field of a form."""
    fault = {"field": field, "detail": detail}
    return api.Refused(400, {"message": "A field cannot be used.", "validations": [fault]}, {})


def _form(page: Page, template: dict[str, Any], problem: api.Refused | None = None) -> Response:
    if "templates" not in page.me.places:
        raise refusal(403, "Templates are changed by the owners of the deployment.")
    shown, sent = dict(template), page.form if problem and page.form.get("what") != "delete" else None
    shown["stop_after"] = text.in_hours(template.get("default_ttl_ms"))
    for name in _LISTS:
        listed = template.get(name)
        shown[name] = yaml.safe_dump(listed, sort_keys=False, allow_unicode=True) if listed else ""
    if sent is not None:
        shown |= {name: sent.get(name, "") for name in ("name", "stop_after", *_TEXTS, *_LISTS)}
        shown["browser_only"] = sent.get("browser_only") == "yes"
    kind = Kind(template["kind"])
    if problem and "default_ttl_ms" in problem.faults:
        problem.faults["stop_after"] = problem.faults.pop("default_ttl_ms")
    return page.render(
        "template.html",
        problem.status if problem else 200,
        template=shown,
        original=template,
        kinds=KINDS,
        kind=kind,
        settings=settings_form.fields(settings_schema(kind), template.get("settings") or {}, sent),
        problem=problem,
    )
