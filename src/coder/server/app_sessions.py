"""Sessions on the hosts of apps. They open apps and nothing else, and end with the login they were made with."""

import hashlib
from urllib.parse import quote, urlsplit
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from starlette.requests import HTTPConnection

from coder.access import app_names, cookies, tokens
from coder.access.tickets import Code
from coder.db import keys, users
from coder.server import auth
from coder.server.deployment import Deployment

SCOPE = "application_connect"
SCOPES = frozenset({"all", SCOPE})
"""What a token may be for to open apps."""
PARAMETER = "coder_application_connect_api_key_35e783"
"""In a query: what a browser brings back from signing in."""
TICKET_COOKIE = "coder_signed_app_token"


def cookie_name(wildcard: str) -> str:
    """Return the name of the cookie for all hosts below a wildcard; it differs for nested ones."""
    return f"coder_subdomain_app_session_token_{hashlib.sha256(wildcard.encode()).hexdigest()[:32]}"


async def who_asks(
    connection: HTTPConnection, deployment: Deployment, owner: UUID | None, *, by_path: bool
) -> tuple[auth.Caller | None, bool]:
    """Return who asks, and whether only a cookie says so. What an app's own headers hold is no reason to refuse.

    `Authorization` is the app's to read: a token in it counts as its user's only where the app is theirs (`owner`).
    """
    wildcard = deployment.settings.apps.wildcard_access_url
    own = "" if by_path else connection.cookies.get(cookie_name(wildcard), "")
    session = cookies.session(connection.cookies, connection.headers, deployment.access_url)
    header = connection.headers.get(auth.HEADER, "")
    scheme, _, bearer = connection.headers.get("Authorization", "").partition(" ")
    for text, by_cookie in ((own, True), (session, True), (header, False)):
        if text and (found := await auth.holder(deployment, text, SCOPES)):
            return found, by_cookie
    if scheme.lower() == "bearer" and owner and (found := await auth.holder(deployment, bearer.strip(), SCOPES)):
        return (found, False) if found.user.id == owner else (None, False)
    return None, False


def sign_in_url(deployment: Deployment, host: str, target: str) -> str:
    """Return where somebody is sent who has to sign in for the app on that host."""
    back = quote(f"{urlsplit(deployment.access_url).scheme}://{host}{target}", safe="")
    return f"{deployment.access_url}/api/v2/applications/auth-redirect?redirect_uri={back}"


def login_url(deployment: Deployment, path: str) -> str:
    """Return where somebody signs in who is then led on to a path of the dashboard's host."""
    return f"{deployment.access_url}/login?redirect={quote(path, safe='')}"


def return_url(deployment: Deployment, wanted: str) -> str | None:
    """Return the address of an app that a login may lead back to; None for all others. Its port is never believed."""
    wildcard = deployment.settings.apps.wildcard_access_url
    try:
        parts = urlsplit(wanted)
        host, user = (parts.hostname or "").rstrip("."), parts.username
    except ValueError:
        return None
    label = app_names.label_of(host, wildcard)
    plain = wanted.isprintable() and wanted.isascii() and "\\" not in wanted and " " not in wanted
    if user is not None or not plain or label is None or app_names.parse_label(label) is None:
        return None
    access = urlsplit(deployment.access_url)
    whole = app_names.wildcard_host(wildcard, deployment.access_url).replace("*", label, 1)
    query = f"?{parts.query}" if parts.query else ""
    return f"{access.scheme}://{whole.lower()}{parts.path or '/'}{query}"


def with_code(deployment: Deployment, who: auth.Caller, url: str) -> str:
    """Return an app's address with a code that starts a session there."""
    code = Code(
        id=tokens.new_session_token().id,
        user=who.user.id,
        parent=who.key.id,
        host=(urlsplit(url).hostname or "").lower(),
        end=who.key.expires_at,
    )
    signed = deployment.apps.signer.code(code, deployment.clock.now()).reveal()
    return f"{url}{'&' if urlsplit(url).query else '?'}{PARAMETER}={signed}"


def without_code(target: str) -> tuple[str, str | None]:
    """Take the code out of a path with its query."""
    path, _, query = target.partition("?")
    mark, pairs = f"{PARAMETER}=", query.split("&")
    codes = [pair.removeprefix(mark) for pair in pairs if pair.startswith(mark)]
    if not codes:
        return target, None
    rest = "&".join(pair for pair in pairs if not pair.startswith(mark))
    return f"{path}?{rest}" if rest else path, codes[0]


async def redeem(deployment: Deployment, text: str, host: str) -> str | None:
    """Start the session that a code stands for and return its token; None if the code is not good, or not any more."""
    now = deployment.clock.now()
    code = deployment.apps.signer.read_code(text, host, now)
    if code is None or code.end <= now:
        return None
    fresh = tokens.new_session_token()
    token = tokens.SessionToken(code.id, fresh.secret)
    try:
        async with deployment.store.write() as session:
            parent = await keys.get(session, code.parent)
            if parent is None or parent.user_id != code.user or parent.user.status != users.ACTIVE:
                return None
            await keys.create(
                session,
                token,
                user_id=code.user,
                login_type=keys.APP,
                lifetime=code.end - now,
                now=now,
                scope=SCOPE,
            )
    except IntegrityError:  # used before
        return None
    return token.text


def cookie(deployment: Deployment, name: str, value: str, *, path: str = "/", seconds: int | None = None) -> str:
    """Return a Set-Cookie for the host of an app, or for all of them where nothing else is below their domain."""
    http, wildcard = deployment.settings.http, deployment.settings.apps.wildcard_access_url
    parts = [f"{name}={value}", f"Path={path}", "HttpOnly", f"SameSite={http.samesite_auth_cookie.capitalize()}"]
    if seconds is not None:
        parts.append(f"Max-Age={seconds}")
    elif wildcard.startswith("*."):
        parts.append(f"Domain={wildcard[1:].partition(':')[0]}")
    secure = deployment.access_url.startswith("https:") or http.secure_auth_cookie
    if secure or http.samesite_auth_cookie == "none":
        parts.append("Secure")
    return "; ".join(parts)
