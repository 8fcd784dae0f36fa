"""What is wrong with a deployment and what helps, from what was found when it was looked over. Pure.

The shape and most codes are the protocol's, so that its clients can read the report; the remedies are ours.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

Json = dict[str, Any]

SLOW_DATABASE_MS = 15.0
LITTLE_DISK = 256 * 2**20
NO_DISK = 16 * 2**20
"""Bytes that a change of the database may need at once."""
CERTIFICATE_ENDS_SOON = timedelta(days=14)
_RANKS = ("ok", "warning", "error")

REMEDIES = {
    "EACS01": "Start the server with --access-url set to the address that users and workspaces reach it at.",
    "EACS03": "See that the name resolves on this machine, that the port is open, and that a proxy in front forwards "
    "to this server. The authority of a certificate of your own is named with --ca-file.",
    "EACS04": "Something else answers at the access URL, or a proxy in front refuses /healthz. Point it here.",
    "EACS05": "Serve the dashboard over HTTPS: its cookies then have names that no other host can set. Or give apps a "
    "domain that shares no part with the access URL.",
    "EDB01": "See that the state directory can be written and its disk is not full, then restart the server.",
    "EDB02": "Put the state directory on a faster or less busy disk.",
    "EDB03": "Make room on the disk of the state directory; the server goes on by itself then.",
    "EDERP01": "A proxy in front drops `Upgrade: derp`, so WebSocket is used. To save its overhead, let it pass the "
    "headers Upgrade and Connection unchanged on /derp.",
    "EDERP02": "Restart the relay that does not answer, or take it out of the DERP map.",
    "EDERP03": "See that the relay runs and that its host and port in the DERP map can be reached from here; a proxy "
    "in front of it must pass the headers Upgrade and Connection on.",
    "ESTUN01": "Open the STUN ports (UDP 3478 and 3479 by default) to this server, or name a STUN server that can be "
    "reached. Without one nodes behind NATs stay on the relay.",
    "ESTUN02": "This machine's NAT gives each destination another port. Nodes on this network connect directly only to "
    "those that can be reached; others go through the relay.",
    "EWS01": "Let the proxy in front pass `Connection: Upgrade` and `Upgrade: websocket`, and speak HTTP/1.1 to us.",
    "EWS02": "The connection opens but nothing comes back: raise the proxy's idle limit and turn off its buffering.",
    "ECERT01": "Renew the certificate; the server reads its files again by itself.",
    "ECERT02": "Use a certificate for the host of the access URL from an authority that clients trust, or give clients "
    "--ca-file.",
    "ECERT03": "Correct the file; the server reads it again by itself, and uses the last good certificate until then.",
    "EUNKNOWN": "The server's log says more.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was found. An error is empty where there was none; None: not tried."""

    at: datetime
    version: str
    access_url: str
    access_url_derived: bool = False
    """Nobody gave one, so only this machine can use it."""
    access_url_error: str = ""
    access_url_status: int = 0
    access_url_answer: str = ""
    apps_can_plant: bool = False
    """Pages of apps can set cookies for the dashboard, and it cannot tell."""
    database_ms: float | None = None
    database_error: str = ""
    disk_free: int | None = None
    """Bytes that are left for the state directory."""
    websocket_error: str = ""
    websocket_opened: bool = False
    derp: Json | None = None
    """The relays' own report, in the protocol's shape."""
    derp_error: str = ""
    relays_wanted: bool = True
    stun_wanted: bool = True
    certificate_ends: datetime | None = None
    certificate_error: str = ""
    certificate_unused: str = ""
    """Why changed files are not in use."""
    details: Json = field(default_factory=dict)


def warning(code: str, message: str) -> Json:
    """Write one problem with what helps."""
    return {"code": code, "message": message, "remedy": REMEDIES.get(code, REMEDIES["EUNKNOWN"])}


def report(found: Findings) -> Json:
    """Write the report."""
    sections = {
        "access_url": _access_url(found),
        "database": _database(found),
        "derp": _derp(found),
        "stun": _stun(found),
        "websocket": _websocket(found),
        "workspace_proxy": {**_section("ok"), "workspace_proxies": {"regions": []}},
        "provisioner_daemons": {**_section("ok"), "items": []},
    }
    if found.access_url.startswith("https:"):
        sections["certificate"] = _certificate(found)
    worst = _worst(each["severity"] for each in sections.values())
    return {
        "time": found.at.isoformat().replace("+00:00", "Z"),
        "healthy": worst != "error",
        "severity": worst,
        "coder_version": found.version,
        **sections,
    }


def _worst(severities: Any) -> str:
    return max(severities, key=_RANKS.index, default="ok")


def _section(severity: str, *warnings: Json, summary: str = "") -> Json:
    return {
        "severity": severity,
        "warnings": list(warnings),
        "dismissed": False,
        "healthy": severity != "error",
        "summary": summary,
    }


def _access_url(found: Findings) -> Json:
    facts: Json = {
        "access_url": found.access_url,
        "reachable": not found.access_url_error,
        "status_code": found.access_url_status,
        "healthz_response": found.access_url_answer,
    }
    if found.access_url_error:
        section = _section("error", warning("EACS03", f"The server cannot reach itself: {found.access_url_error}"))
    elif (found.access_url_status, found.access_url_answer) != (200, "OK"):
        told = f"/healthz at the access URL answered {found.access_url_status}, but not as this server does."
        section = _section("error", warning("EACS04", told))
    elif found.access_url_derived:
        section = _section(
            "warning", warning("EACS01", "No access URL is set, so only this machine can use the server.")
        )
    elif found.apps_can_plant:
        told = (
            "Over plain HTTP a page of an app can set cookies for the dashboard, and so sign its visitors in as others."
        )
        section = _section("warning", warning("EACS05", told))
    else:
        section = _section("ok", summary=f"{found.access_url} leads here.")
    return {**section, **facts}


def _database(found: Findings) -> Json:
    took = found.database_ms or 0.0
    facts: Json = {
        "reachable": not found.database_error,
        "latency": f"{took:.1f}ms",
        "latency_ms": round(took),
        "threshold_ms": int(SLOW_DATABASE_MS),
    }
    if found.database_error:
        section = _section("error", warning("EDB01", f"The database does not answer: {found.database_error}"))
    elif found.disk_free is not None and found.disk_free < LITTLE_DISK:
        severity = "error" if found.disk_free < NO_DISK else "warning"
        left = f"The disk of the state directory has {found.disk_free / 2**20:.0f} MiB left."
        section = _section(severity, warning("EDB03", left))
    elif took > SLOW_DATABASE_MS:
        section = _section("warning", warning("EDB02", f"The database takes {took:.0f} ms for the simplest question."))
    else:
        section = _section("ok", summary=f"Answers in {took:.1f} ms.")
    return {**section, **facts}


def _derp(found: Findings) -> Json:
    if not found.relays_wanted:
        return {**_section("ok", summary="No relay is configured: only direct connections work."), "regions": {}}
    if found.derp is None:
        return {
            **_section("error", warning("EUNKNOWN", f"The relays were not checked: {found.derp_error}")),
            "regions": {},
        }
    regions: Json = found.derp["regions"]
    own = (each for each in found.derp["warnings"] if not each["code"].startswith("ESTUN"))
    warnings = [warning(each["code"], each["message"]) for each in own]
    for region in regions.values():
        name = region["region"].get("RegionName") or region["region"].get("RegionCode")
        warnings += [warning(each["code"], f"{name}: {each['message']}") for each in region["warnings"]]
        warnings += [
            warning("EDERP01", f"{node['node']['HostName']} is reached by WebSocket only.")
            for node in region["node_reports"]
            if node["uses_websocket"]
        ]
        if not region["healthy"]:
            warnings.append(warning("EDERP03", f"The relay of {name} passes no messages on: {_why(region)}"))
    severity = _worst(_of_relays(region) for region in regions.values())
    count = sum(any(not node["node"].get("STUNOnly") for node in each["node_reports"]) for each in regions.values())
    summary = "" if warnings else f"{count} region{'' if count == 1 else 's'}, each passes messages on."
    return {**found.derp, **_section(severity, *warnings, summary=summary)}


def _of_relays(region: Json) -> str:
    if not region["healthy"]:
        return "error"
    return "warning" if any(node["uses_websocket"] for node in region["node_reports"]) or region["warnings"] else "ok"


def _why(region: Json) -> str:
    told = (line for node in region["node_reports"] for lines in node.get("client_errs") or () for line in lines)
    return str(next(told, "no answer"))[:200]


def _stun(found: Findings) -> Json:
    if not found.stun_wanted:
        return _section("ok", summary="Direct connections are turned off, so STUN is not needed.")
    if found.derp is None:
        return _section("ok", summary="Not checked, since the relays were not.")
    codes = [each for each in found.derp["warnings"] if each["code"].startswith("ESTUN")]
    if codes:
        return _section("warning", *(warning(each["code"], each["message"]) for each in codes))
    net = found.derp.get("netcheck") or {}
    if not net.get("UDP"):
        return _section("warning", warning("ESTUN01", "No STUN server of the map answered."))
    return _section("ok", summary=f"This machine is seen as {net.get('GlobalV4') or net.get('GlobalV6') or 'itself'}.")


def _websocket(found: Findings) -> Json:
    facts: Json = {"body": "", "code": 101 if found.websocket_opened else 0}
    if not found.websocket_error:
        return {**_section("ok", summary="Opens through the access URL, and messages come back."), **facts}
    code = "EWS02" if found.websocket_opened else "EWS01"
    told = "A WebSocket opens, but messages do not come back" if found.websocket_opened else "No WebSocket opens"
    return {**_section("error", warning(code, f"{told}: {found.websocket_error}")), **facts}


def _certificate(found: Findings) -> Json:
    if found.certificate_error:
        return _section("error", warning("ECERT02", found.certificate_error))
    if found.certificate_unused:
        return _section("warning", warning("ECERT03", found.certificate_unused))
    if found.certificate_ends is None:
        return _section("ok", summary="Accepted.")
    left = found.certificate_ends - found.at
    if left <= CERTIFICATE_ENDS_SOON:
        severity = "error" if left <= timedelta() else "warning"
        return _section(severity, warning("ECERT01", f"The certificate ends on {found.certificate_ends:%Y-%m-%d}."))
    return _section("ok", summary=f"Good until {found.certificate_ends:%Y-%m-%d}.")
