"""The health of the deployment, and the regions as this browser sees them."""

import re
from urllib.parse import urlsplit

from starlette.responses import Response

from coder.web.page import Page

_HOST = re.compile(r"[A-Za-z0-9.:\[\]_-]+")


async def health(page: Page) -> Response:
    """Show the report with what is wrong and what helps."""
    force = {"force": "true"} if page.asked("again") else {}
    report = await page.ask("GET", "/debug/health", **force)
    return page.render("health.html", report=report)


async def regions(page: Page) -> Response:
    """Show the relays; the page's script measures the way to each."""
    derp_map = (await page.ask("GET", "/workspaceagents/connection"))["derp_map"]
    found = []
    for region in sorted((derp_map.get("Regions") or {}).values(), key=lambda each: each["RegionID"]):
        nodes = [node for node in region.get("Nodes") or () if not node.get("STUNOnly")]
        found.append((region, _url(page, nodes[0]) if nodes else ""))
    foreign = {origin for _region, url in found if (origin := _origin(url))}
    return page.render("regions.html", regions=found, connect=sorted(foreign))


def _url(page: Page, node: dict[str, object]) -> str:
    """Return where a relay says how far it is; empty for a name that may not stand in a page's policy."""
    plain = bool(node.get("ForceHTTP"))
    port = node.get("DERPPort") or 0
    host = str(node["HostName"])
    if not _HOST.fullmatch(host):
        return ""
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    scheme, usual = ("http", 80) if plain else ("https", 443)
    authority = host if port in {0, usual, -1} else f"{host}:{port}"
    where = f"{scheme}://{authority}"
    return "/derp/latency-check" if where == page.dashboard.origin else f"{where}/derp/latency-check"


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower() if parts.netloc else ""
