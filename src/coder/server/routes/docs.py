"""The page that lists the API, made from its own description. It loads nothing, so it works without the internet."""

from html import escape
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

DESCRIPTION = "/api/openapi.json"
_METHODS = ("get", "post", "put", "patch", "delete")
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<h1>{title}</h1>
<p>Machine-readable: <a href="{description}">{description}</a>. Send the token in the header
<code>Coder-Session-Token</code>.</p>
{sections}
</html>
"""


@router.get("/api/docs", response_class=HTMLResponse)
async def page(request: Request) -> HTMLResponse:
    """List all routes by topic."""
    described = request.app.openapi()
    topics: dict[str, list[str]] = {}
    for path, operations in described["paths"].items():
        for method in (each for each in _METHODS if each in operations):
            topic = operations[method].get("tags", ["other"])[0]
            topics.setdefault(topic, []).append(_row(method, path, operations[method]))
    sections = "\n".join(f"<h2>{escape(topic)}</h2>\n<dl>\n{''.join(rows)}</dl>" for topic, rows in topics.items())
    title = escape(f"{described['info']['title']} API")
    headers = {"Content-Security-Policy": "default-src 'none'"}
    return HTMLResponse(_PAGE.format(title=title, description=DESCRIPTION, sections=sections), headers=headers)


def _row(method: str, path: str, operation: dict[str, Any]) -> str:
    about = escape(operation.get("description", ""))
    return f"<dt><code>{method.upper()} {escape(path)}</code></dt><dd>{about}</dd>\n"
