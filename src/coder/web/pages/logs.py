"""The audit log and the connection log."""

from typing import Any

from starlette.responses import Response

from coder.web import api
from coder.web.page import Page
from coder.web.pages.people import page_number, pages

PER_PAGE = 50

_AUDIT_FIELDS = ("username", "action", "resource_type", "date_from", "date_to")
_CONNECTION_FIELDS = ("workspace_owner", "username", "type", "status", "connected_after", "connected_before")


async def audit(page: Page) -> Response:
    """Show who did what."""
    return await _log(page, "/audit", "audit_logs", "audit.html", _AUDIT_FIELDS)


async def connections(page: Page) -> Response:
    """Show who was connected."""
    return await _log(page, "/connectionlog", "connection_logs", "connections.html", _CONNECTION_FIELDS)


async def _log(page: Page, route: str, key: str, template: str, fields: tuple[str, ...]) -> Response:
    given = {name: value.strip() for name in fields if (value := page.asked(name)).strip()}
    number = page_number(page)
    terms = [f'{name}:"{value.replace(chr(34), "")}"' for name, value in given.items()]
    problem: api.Refused | None = None
    found: dict[str, Any] = {key: [], "count": 0}
    try:
        query = " ".join([page.asked("q"), *terms]).strip()
        found = await page.ask("GET", route, q=query, limit=PER_PAGE, offset=(number - 1) * PER_PAGE)
    except api.Refused as refused:
        if refused.status != 400:
            raise
        problem = refused
    return page.render(
        template,
        problem.status if problem else 200,
        rows=found[key],
        count=found["count"],
        number=number,
        pages=pages(found["count"], PER_PAGE),
        given=given,
        q=page.asked("q"),
        problem=problem,
    )
