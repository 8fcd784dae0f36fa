"""The list of workspaces, and the form for a new one."""

from typing import Any

from starlette.responses import Response

from coder.web import api
from coder.web.page import Page
from coder.web.pages.people import page_number, pages

PER_PAGE = 25


def condition(workspace: dict[str, Any]) -> str:
    """Say in a word how a workspace is: what its build does, or else how its agents are."""
    status = str(workspace["latest_build"]["status"])
    if status != "running":
        return status
    states = {agent["status"] for agent in agents(workspace)}
    if "connected" in states:
        return "connected" if workspace["health"]["healthy"] else "unhealthy"
    return next((each for each in ("connecting", "timeout", "disconnected") if each in states), "running")


def agents(workspace: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the agents of a workspace's latest build."""
    return [agent for resource in workspace["latest_build"]["resources"] for agent in resource.get("agents") or ()]


async def show(page: Page) -> Response:
    """List the workspaces that a search finds; only the list itself when the page asks for news."""
    query, number = page.asked("q", "owner:me"), page_number(page)
    problem: api.Refused | None = None
    found: dict[str, Any] = {"workspaces": [], "count": 0}
    try:
        found = await page.ask("GET", "/workspaces", q=query, limit=PER_PAGE, offset=(number - 1) * PER_PAGE)
    except api.Refused as refused:
        if refused.status != 400:
            raise
        problem = refused
    values = {
        "rows": [(each, condition(each), agents(each)) for each in found["workspaces"]],
        "count": found["count"],
        "number": number,
        "pages": pages(found["count"], PER_PAGE),
        "q": query,
    }
    if "HX-Request" in page.request.headers:
        return page.part("parts/workspaces.html", **values)
    return page.render("workspaces.html", problem.status if problem else 200, problem=problem, **values)


async def show_new(page: Page) -> Response:
    """Show the templates and the form."""
    return await _form(page)


async def _form(page: Page, problem: api.Refused | None = None) -> Response:
    templates = await page.ask_or([], "/templates")
    chosen = page.form.get("template_id") or page.asked("template")
    template = next((each for each in templates if chosen in {each["id"], each["name"]}), None)
    if template is None and templates:
        template = templates[0]
    parameters = []
    if template:
        parameters = await page.ask_or(
            [], f"/templateversions{api.path(template['active_version_id'])}/rich-parameters"
        )
    return page.render(
        "workspace_new.html",
        problem.status if problem else 200,
        templates=templates,
        template=template,
        parameters=parameters,
        form=page.form,
        problem=problem,
    )


async def create(page: Page) -> Response:
    """Create a workspace. Where its machine is the user's own, show how the agent is started there, this once."""
    form = page.form
    wanted: dict[str, Any] = {"name": form.get("name", "").strip()}
    if template := form.get("template_id"):
        wanted["template_id"] = template
    given = [
        {"name": name.removeprefix("parameter-"), "value": value}
        for name, value in form.items()
        if name.startswith("parameter-")
    ]
    if given:
        wanted["rich_parameter_values"] = given
    try:
        made = await page.ask("POST", "/users/me/workspaces", wanted)
    except api.Refused as refused:
        refused.faults |= {f"parameter-{name}": fault for name, fault in refused.faults.items()}
        return await _form(page, refused)
    where = api.path(f"@{made['owner_name']}", made["name"]).replace("%40", "@", 1)
    if tokens := made.get("agent_tokens"):
        return page.render("workspace_created.html", workspace=made, where=where, tokens=tokens, renewed=False)
    return page.go(where, "created")
