"""Users: who there is, what they may do, and how an account ends."""

from starlette.responses import Response

from coder.web import api
from coder.web.page import Page, refusal

PER_PAGE = 25


async def show(page: Page) -> Response:
    """List the users."""
    return await _list(page)


async def create(page: Page) -> Response:
    """Create a user."""
    wanted = {name: page.form.get(name, "").strip() for name in ("email", "username", "name")}
    wanted["password"] = page.form.get("password", "")
    try:
        await page.ask("POST", "/users", wanted)
    except api.Refused as refused:
        return await _list(page, form=wanted, problem=refused, status=refused.status)
    return page.go("/users", "user-created")


async def _list(
    page: Page, *, form: dict[str, str] | None = None, problem: api.Refused | None = None, status: int = 200
) -> Response:
    query, number = page.asked("q"), page_number(page)
    offset = (number - 1) * PER_PAGE
    try:
        found = await page.ask("GET", "/users", q=query, limit=PER_PAGE, offset=offset)
    except api.Refused as refused:
        if refused.status != 400:
            raise
        found, problem, status = {"users": [], "count": 0}, refused, 400
    return page.render(
        "users.html",
        status,
        users=found["users"],
        count=found["count"],
        number=number,
        pages=pages(found["count"]),
        q=query,
        form=form or {},
        problem=problem,
    )


def page_number(page: Page) -> int:
    """Return the number of the page of a list that was asked for, from 1."""
    asked = page.asked("page")
    return max(int(asked), 1) if asked.isdecimal() and len(asked) < 7 else 1


def pages(count: int, per_page: int = PER_PAGE) -> int:
    """Return how many pages a list has."""
    return max(-(-count // per_page), 1)


async def show_one(page: Page) -> Response:
    """Show a user with what can be changed."""
    return await _one(page)


async def _one(page: Page, problem: api.Refused | None = None) -> Response:
    user = await page.ask("GET", _route(page))
    roles = await page.ask("GET", "/users/roles")
    found = await page.ask("GET", "/workspaces", q=f"owner:{user['username']}")
    return page.render(
        "user.html",
        problem.status if problem else 200,
        user=user,
        roles=roles,
        held={role["name"] for role in user["roles"]},
        workspaces=found["workspaces"],
        problem=problem,
    )


def _route(page: Page) -> str:
    return "/users" + api.path(page.request.path_params["user"])


async def change(page: Page) -> Response:
    """Change a user: status, roles, password; or delete them."""
    what, route = page.form.get("what"), _route(page)
    try:
        if what in {"suspend", "activate"}:
            await page.ask("PUT", f"{route}/status/{what}")
        elif what == "roles":
            await page.ask("PUT", f"{route}/roles", {"roles": page.many.get("role", [])})
        elif what == "browser-only":
            await page.ask("PUT", f"{route}/browser-only", {"browser_only": page.form.get("on") == "yes"})
        elif what == "password":
            await page.ask("PUT", f"{route}/password", {"password": page.form.get("password", "")})
        elif what == "delete":
            if page.form.get("confirm", "").strip() != page.request.path_params["user"]:
                raise refusal(400, "To delete the user, type their name into the field.")
            await page.ask("DELETE", route)
            return page.go("/users", "user-deleted")
        else:
            raise refusal(400, "The form does not say what to do.")
    except api.Refused as refused:
        return await _one(page, refused)
    return page.go(page.request.url.path, "user-changed")
