"""Coming in and going out: the first user, login, logout."""

from starlette.responses import Response

from coder.access import cookies
from coder.web import api, security
from coder.web.page import Page


async def _has_users(page: Page) -> bool:
    try:
        await page.ask("GET", "/users/first")
    except api.Refused as refused:
        if refused.status == 404:
            return False
        raise
    return True


async def root(page: Page) -> Response:
    """Lead to what comes first: the set-up, or the workspaces, which ask for a login."""
    return page.go("/workspaces" if await _has_users(page) else "/setup")


async def show_setup(page: Page) -> Response:
    """Show the form for the first user, while there is none."""
    return page.go("/login") if await _has_users(page) else page.render("setup.html", form={})


async def set_up(page: Page) -> Response:
    """Create the first user and sign them in."""
    form = page.form
    wanted = {name: form.get(name, "").strip() for name in ("email", "username", "name")}
    wanted["password"] = form.get("password", "")
    try:
        if wanted["password"] != form.get("again", ""):
            raise differ()
        await page.ask("POST", "/users/first", wanted)
    except api.Refused as refused:
        return page.render("setup.html", refused.status, form=wanted, problem=refused)
    return await _sign_in(page, wanted["email"], wanted["password"], "/workspaces")


def differ() -> api.Refused:
    """Return the refusal of a password that was not typed twice the same."""
    fault = {"field": "again", "detail": "This is not the same password."}
    return api.Refused(400, {"message": "The two passwords differ.", "validations": [fault]}, {})


async def show_login(page: Page) -> Response:
    """Show the ways to sign in; whoever is signed in already is led on."""
    if not await _has_users(page):
        return page.go("/setup")
    if cookies.name(cookies.SESSION, page.dashboard.origin) in page.request.cookies:
        try:
            await page.know_viewer()
            return page.go(_destination(page, page.asked("redirect")))
        except api.Refused as refused:
            if refused.status != 401:
                raise
    return await _login_form(page, page.asked("redirect"))


async def log_in(page: Page) -> Response:
    """Sign in with a password."""
    wanted = page.form.get("redirect", "")
    try:
        return await _sign_in(page, page.form.get("email", "").strip(), page.form.get("password", ""), wanted)
    except api.Refused as refused:
        return await _login_form(page, wanted, refused)


async def _sign_in(page: Page, email: str, password: str, wanted: str) -> Response:
    answer = await api.call(page.request, "POST", "/users/login", {"email": email, "password": password})
    where = _destination(page, wanted)
    if not where.startswith(api.PREFIX):
        return page.go(where, set_cookies=answer.cookies)
    # A login for an app leads on to another host. A form may not be redirected there, a page may go there.
    onward = page.render("onward.html", where=where)
    for each in answer.cookies:
        onward.headers.append("Set-Cookie", each)
    return onward


def _destination(page: Page, wanted: str) -> str:
    return security.destination(wanted, page.dashboard.origin)


async def _login_form(page: Page, wanted: str, problem: api.Refused | None = None) -> Response:
    methods = await page.ask_or({}, "/users/authmethods")
    answer = page.render(
        "login.html",
        problem.status if problem else 200,
        methods=methods,
        redirect=_destination(page, wanted),
        email=page.form.get("email", ""),
        problem=problem,
    )
    if problem and problem.retry_after:
        answer.headers["Retry-After"] = problem.retry_after
    return answer


async def log_out(page: Page) -> Response:
    """End the session."""
    answer = await api.call(page.request, "POST", "/users/logout")
    return page.go("/login", "signed-out", answer.cookies)
