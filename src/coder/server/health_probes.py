"""Looks a deployment over: what its health report is made from."""

import asyncio
import contextlib
import shutil
import ssl
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from coder import BUILD_VERSION
from coder.access import cookies
from coder.dataplane.engine import Engine
from coder.errors import CoderError
from coder.outbound import Outbound
from coder.peering.derp_report import derp_report
from coder.peering.relaycheck import Rules
from coder.rpc.websocket import by_proxy
from coder.server.deployment import Deployment
from coder.server.health import Findings, Json

PATIENCE = 5.0
"""Seconds for each look; all are taken at once."""
_MOST = 4096
_MESSAGES = 3


async def probe(deployment: Deployment, *, force: bool = False) -> Findings:
    """Return what was found within the last ten minutes, or now."""
    return await deployment.health.get(lambda: _look(deployment), deployment.clock.monotonic, anew=force)


async def _look(deployment: Deployment) -> Findings:
    outbound = deployment.map_recipe.outbound
    parts = await asyncio.gather(
        _database(deployment),
        asyncio.to_thread(_access_url, outbound, deployment.access_url),
        _websocket(outbound, deployment.access_url),
        _relays(deployment, outbound),
        asyncio.to_thread(_certificate, outbound, deployment.access_url),
    )
    return Findings(
        at=deployment.clock.now(),
        version=BUILD_VERSION,
        access_url=deployment.access_url,
        access_url_derived=not deployment.settings.http.access_url,
        apps_can_plant=cookies.can_be_planted(deployment.access_url, deployment.settings.apps.wildcard_access_url),
        certificate_unused=deployment.certificate_problem() or "",
        stun_wanted=not deployment.settings.derp.block_direct,
        **{key: value for part in parts for key, value in part.items()},
    )


async def _database(deployment: Deployment) -> Json:
    begin = time.perf_counter()
    try:
        async with asyncio.timeout(PATIENCE):
            await deployment.store.ping()
    except Exception as fault:  # noqa: BLE001 - whatever it is, it is the finding
        return {"database_error": _words(fault)}
    took = (time.perf_counter() - begin) * 1e3
    with contextlib.suppress(OSError):
        free = (await asyncio.to_thread(shutil.disk_usage, deployment.settings.state_path)).free
        return {"database_ms": took, "disk_free": free}
    return {"database_ms": took}


def _access_url(outbound: Outbound, url: str) -> Json:
    try:
        connection = outbound.connection(url, PATIENCE)
        try:
            connection.request("GET", f"{urlsplit(url).path}/healthz", headers={"User-Agent": "coder"})
            answer = connection.getresponse()
            body = answer.read(_MOST).decode("utf-8", "replace")
            return {"access_url_status": answer.status, "access_url_answer": body[:100]}
        finally:
            connection.close()
    except (OSError, ValueError, CoderError) as fault:
        return {"access_url_error": _words(fault)}


async def _websocket(outbound: Outbound, url: str) -> Json:
    opened = False
    try:
        context = await asyncio.to_thread(outbound.context) if url.startswith("https:") else None
        proxy = outbound.proxy(url)
        where = f"ws{url.removeprefix('http')}/api/v2/debug/ws"
        async with (
            asyncio.timeout(PATIENCE),
            connect(where, ssl=context, open_timeout=None, compression=None, **by_proxy(outbound, proxy)) as socket,
        ):
            opened = True
            for number in range(_MESSAGES):
                await socket.send(str(number))
                if await socket.recv() != str(number):
                    return {"websocket_opened": True, "websocket_error": "another message came back"}
    except (OSError, WebSocketException, CoderError, TimeoutError) as fault:
        return {"websocket_opened": opened, "websocket_error": _words(fault)}
    return {"websocket_opened": True}


async def _relays(deployment: Deployment, outbound: Outbound) -> Json:
    current = deployment.maps.current
    if not current.regions:
        return {"relays_wanted": False}
    derp = deployment.settings.derp
    rules = Rules(force_websockets=derp.force_websockets, map_ports=False, outbound=outbound)
    try:
        async with Engine() as engine:
            found, _router = await derp_report(engine, current, rules, PATIENCE)
    except (OSError, CoderError) as fault:
        return {"derp_error": _words(fault)}
    return {"derp": found}


def _certificate(outbound: Outbound, url: str) -> Json:
    if not url.startswith("https:"):
        return {}
    try:
        connection = outbound.connection(url, PATIENCE)
        try:
            connection.connect()
            tls: Any = connection.sock
            held = tls.getpeercert()
        finally:
            connection.close()
    except (ssl.SSLError, CoderError) as fault:
        return {"certificate_error": f"Clients would refuse it: {_words(fault)}"}
    except (OSError, ValueError):
        return {}  # the access URL's own section says so
    if not held or "notAfter" not in held:
        return {}
    return {"certificate_ends": datetime.fromtimestamp(ssl.cert_time_to_seconds(held["notAfter"]), UTC)}


def _words(fault: BaseException) -> str:
    return str(fault).strip()[:200] or (
        "no answer in time" if isinstance(fault, TimeoutError) else type(fault).__name__
    )
