"""One's own account: name, password, tokens, a session for a command line."""

from starlette.responses import Response

from coder.web import api
from coder.web.page import Page
from coder.web.pages.entry import differ

_DAY = 24 * 3600 * 1_000_000_000
"""Nanoseconds, in which the API counts lifetimes."""


async def show(page: Page) -> Response:
    """Show the account."""
    return page.render("account.html")


async def change(page: Page) -> Response:
    """Change name or password, whichever form was sent."""
    form = page.form
    try:
        if form.get("what") == "profile":
            wanted = {"username": form.get("username", "").strip(), "name": form.get("name", "").strip()}
            await page.ask("PUT", "/users/me/profile", wanted)
            return page.go("/settings/account", "profile")
        if form.get("password", "") != form.get("again", ""):
            raise differ()
        wanted = {"password": form.get("password", ""), "old_password": form.get("old_password", "")}
        await page.ask("PUT", "/users/me/password", wanted)
    except api.Refused as refused:
        return page.render("account.html", refused.status, problem=refused)
    return page.go("/settings/account", "password")


async def show_tokens(page: Page) -> Response:
    """List the tokens."""
    return await _tokens(page)


async def create_token(page: Page) -> Response:
    """Make a token and show it this once."""
    form = page.form
    days = form.get("days", "")
    lifetime = int(days) * _DAY if days.isdecimal() and len(days) < 6 else 0
    wanted = {"token_name": form.get("token_name", "").strip(), "lifetime": lifetime, "scope": form.get("scope", "")}
    try:
        made = await page.ask("POST", "/users/me/keys/tokens", wanted)
    except api.Refused as refused:
        return await _tokens(page, problem=refused, status=refused.status)
    return await _tokens(page, made=made["key"])


async def _tokens(page: Page, *, made: str = "", problem: api.Refused | None = None, status: int = 200) -> Response:
    tokens = await page.ask("GET", "/users/me/keys/tokens")
    limit = await page.ask("GET", "/users/me/keys/tokens/tokenconfig")
    longest = limit["max_token_lifetime"] // _DAY
    days = [count for count in (1, 7, 30, 90, 365) if count <= longest]
    return page.render("tokens.html", status, tokens=tokens, made=made, days=days, problem=problem, form=page.form)


async def delete_token(page: Page) -> Response:
    """End a token."""
    await page.ask("DELETE", "/users/me/keys" + api.path(page.form.get("id", "")))
    return page.go("/settings/tokens", "token-deleted")


async def show_cli_auth(page: Page) -> Response:
    """Offer a session for a command line."""
    return page.render("cli_auth.html", key="")


async def cli_auth(page: Page) -> Response:
    """Start a session for a command line and show its token."""
    made = await page.ask("POST", "/users/me/keys")
    return page.render("cli_auth.html", key=made["key"])
