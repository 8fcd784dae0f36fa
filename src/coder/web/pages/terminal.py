"""The terminal of a workspace: a page that is one, and the words around it."""

from starlette.responses import Response

from coder.web import api
from coder.web.page import Page, refusal
from coder.web.pages.workspaces import agents


async def show(page: Page) -> Response:
    """Show a terminal of the agent that is named behind a dot, or of the first."""
    params = page.request.path_params
    name, _, wanted = params["name"].partition(".")
    workspace = await page.ask("GET", f"/users{api.path(params['owner'])}/workspace{api.path(name)}")
    found = [agent for agent in agents(workspace) if wanted in {"", agent["name"]}]
    if not found:
        status = workspace["latest_build"]["status"]
        detail = f"It is {status}." if status != "running" else ""
        raise refusal(404, "This workspace has no such agent." if wanted else "This workspace has no agent.", detail)
    return page.render("terminal.html", workspace=workspace, agent=found[0], several=len(agents(workspace)) > 1)
