"""What keeps pages and their forms to their own user: headers, form tokens, and where a login may lead. Pure."""

import hmac
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from urllib.parse import urlsplit

from coder.access import cookies

_LOCAL_PATH = re.compile(r"/(?![/\\])[\x21-\x7e]*")


def headers(origin: str, *, connect: Iterable[str] = ()) -> dict[str, str]:
    """Return the headers of a page of this server. `connect` are further origins its scripts may ask."""
    websocket = "ws" + origin.removeprefix("http")
    sources = " ".join(["'self'", websocket, *connect])
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        f"connect-src {sources}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "Cache-Control": "no-store",
    }


def form_token(held: Mapping[str, str], origin: str) -> str:
    """Return the token that forms carry in a browser that has these cookies; empty without one to make it from."""
    own = (held.get(cookies.name(plain, origin)) for plain in (cookies.SESSION, cookies.FORM))
    source = next((value for value in own if value), "")
    return hmac.new(source.encode(), b"form of the dashboard", sha256).hexdigest() if source else ""


def may_send(request_headers: Mapping[str, str], origin: str) -> bool:
    """Say whether a form comes from a page of ours. A browser tells; what tells nothing is no browser's form."""
    site, given = request_headers.get("sec-fetch-site"), request_headers.get("origin")
    if site is not None and site != "same-origin":
        return False
    return given.lower() == origin if given is not None else site == "same-origin"


def token_fits(held: Mapping[str, str], given: str, origin: str) -> bool:
    """Compare a form's token in constant time."""
    expected = form_token(held, origin)
    return bool(expected) and hmac.compare_digest(expected.encode(), given.encode())


def destination(wanted: str, origin: str) -> str:
    """Return the path a login leads to: one of this server, whatever was asked for."""
    if wanted.lower().startswith(origin + "/"):
        wanted = wanted[len(origin) :]
    if not _LOCAL_PATH.fullmatch(wanted) or "\\" in wanted:
        return "/"
    parts = urlsplit(wanted)
    return "/" if parts.scheme or parts.netloc or parts.path in {"/login", "/logout"} else wanted
