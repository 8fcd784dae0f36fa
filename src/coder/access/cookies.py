"""Names of the dashboard's cookies, and when a session's is believed. Pure.

Every host below a domain may set cookies for all of them, and a cookie does not say who set it. So a page of an app, or
of anything else under the dashboard's domain, could sign a browser in as somebody else. Over HTTPS browsers are given
names that they let only the dashboard's own host set (`__Host-`, RFC 6265bis, section 4.1.3.2), and from them no other
counts. Clients that are no browsers hold no cookies of others: from them the protocol's own name goes on to count.
"""

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

SESSION = "coder_session_token"
"""The session, in the protocol's words. Its clients send it, and agents their token, as a cookie of this name."""
FORM = "coder_form"
"""What the forms of a browser without a session are bound to it by."""
OIDC = "coder_oidc"
"""The secrets of a login that is under way."""


def name(plain: str, url: str) -> str:
    """Return the name under which browsers keep a cookie of the dashboard at this URL. Its path must be `/`."""
    return f"__Host-{plain}" if url.startswith("https:") else plain


def session(cookies: Mapping[str, str], headers: Mapping[str, str], url: str) -> str:
    """Return the token that a request's cookies hold for the dashboard at this URL; empty where none is believed."""
    if held := cookies.get(name(SESSION, url)):
        return held
    return "" if url.startswith("https:") and _is_browsers(headers) else cookies.get(SESSION, "")


def can_be_planted(url: str, wildcard: str) -> bool:
    """Say whether pages on hosts of apps can set cookies for the dashboard at this URL, and nothing keeps them out.

    They can where the names end in a domain that both are below, taken to be two labels or more.
    """
    host = (urlsplit(url).hostname or "").lower()
    if url.startswith("https:") or not wildcard or _is_address(host):
        return False
    apps = wildcard.partition(":")[0].lower().split(".")[1:]
    shared = 0
    for ours, theirs in zip(reversed(host.split(".")), reversed(apps), strict=False):
        if ours != theirs:
            break
        shared += 1
    return shared >= 2


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_browsers(headers: Mapping[str, str]) -> bool:
    """Say whether a request may be a browser's. Each sign is enough; pages cannot take all of them away."""
    agent = headers.get("user-agent", "")
    return "sec-fetch-site" in headers or "origin" in headers or agent.lower().startswith("mozilla/")
