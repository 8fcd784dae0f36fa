"""Pages that people see instead of an app. They stand on its own host, so they hold nothing but words and links."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from starlette.responses import HTMLResponse

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:0;display:grid;min-height:100vh;place-items:center;"
    "background:#fafafa;color:#1a1a1a}main{max-width:34rem;padding:2rem}h1{font-size:1.4rem}"
    "a{display:inline-block;margin:.5rem 1rem 0 0;color:#0b57d0}small{color:#555}"
    "@media(prefers-color-scheme:dark){body{background:#151515;color:#eee}a{color:#8ab4f8}small{color:#aaa}}"
)
_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS: Final = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors *"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

Link = tuple[str, str]
"""Words and where they lead."""


def page(
    status: int, title: str, text: str, *, links: Sequence[Link] = (), headers: Mapping[str, str] | None = None
) -> HTMLResponse:
    """Write a page: what is wrong, and what to do about it."""
    anchors = "".join(f'<a href="{escape(where)}">{escape(words)}</a>' for words, where in links)
    body = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{status} - {escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><main><h1>{escape(title)}</h1><p>{escape(text)}</p>{anchors}<p><small>{status}</small></p></main></body></html>"
    )
    return HTMLResponse(body, status, {**_HEADERS, **(headers or {})})
