"""The rules of the health report."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from coder.clock import FakeClock
from coder.server import health
from coder.server.health import Findings
from coder.server.kept import Kept

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def node(**changes: Any) -> dict[str, Any]:
    made = {"node": {"HostName": "relay.example", "STUNOnly": False}, "uses_websocket": False, "client_errs": [[]]}
    return made | changes


def derp(*nodes: dict[str, Any], healthy: bool = True, warnings: list[Any] | None = None, udp: bool = True):
    region = {
        "healthy": healthy,
        "severity": "ok",
        "warnings": [],
        "region": {"RegionName": "Here", "RegionCode": "here"},
        "node_reports": list(nodes or (node(),)),
    }
    return {
        "severity": "ok",
        "warnings": warnings or [],
        "dismissed": False,
        "healthy": healthy,
        "regions": {"1": region},
        "netcheck": {"UDP": udp, "GlobalV4": "192.0.2.1:5", "GlobalV6": ""},
    }


WELL = Findings(
    at=NOW,
    version="v1",
    access_url="https://coder.example",
    access_url_status=200,
    access_url_answer="OK",
    database_ms=1.0,
    websocket_opened=True,
    derp=derp(),
    certificate_ends=NOW + timedelta(days=60),
)

CASES = [
    ({"access_url_error": "no route"}, "access_url", "EACS03", "error"),
    ({"access_url_status": 502}, "access_url", "EACS04", "error"),
    ({"access_url_answer": "<html>"}, "access_url", "EACS04", "error"),
    ({"access_url_derived": True}, "access_url", "EACS01", "warning"),
    ({"apps_can_plant": True}, "access_url", "EACS05", "warning"),
    ({"database_error": "gone"}, "database", "EDB01", "error"),
    ({"database_ms": 40.0}, "database", "EDB02", "warning"),
    ({"disk_free": 200 * 2**20}, "database", "EDB03", "warning"),
    ({"disk_free": 2**20}, "database", "EDB03", "error"),
    ({"websocket_error": "403", "websocket_opened": False}, "websocket", "EWS01", "error"),
    ({"websocket_error": "late"}, "websocket", "EWS02", "error"),
    ({"derp": derp(node(uses_websocket=True))}, "derp", "EDERP01", "warning"),
    ({"derp": derp(node(client_errs=[["refused"]]), healthy=False)}, "derp", "EDERP03", "error"),
    ({"derp": None, "derp_error": "no descriptor"}, "derp", "EUNKNOWN", "error"),
    ({"derp": derp(udp=False)}, "stun", "ESTUN01", "warning"),
    ({"derp": derp(warnings=[{"code": "ESTUN02", "message": "hard"}])}, "stun", "ESTUN02", "warning"),
    ({"certificate_ends": NOW + timedelta(days=3)}, "certificate", "ECERT01", "warning"),
    ({"certificate_ends": NOW - timedelta(days=1)}, "certificate", "ECERT01", "error"),
    ({"certificate_unused": "cannot use key.pem"}, "certificate", "ECERT03", "warning"),
    ({"certificate_error": "unknown authority"}, "certificate", "ECERT02", "error"),
]


def test_a_deployment_that_is_well_has_nothing_to_say():
    report = health.report(WELL)
    assert (report["severity"], report["healthy"]) == ("ok", True)
    assert [key for key, each in report.items() if isinstance(each, dict) and each["warnings"]] == []


@pytest.mark.parametrize(("changes", "section", "code", "severity"), CASES)
def test_each_problem_has_its_code_and_what_helps(changes: dict[str, Any], section: str, code: str, severity: str):
    report = health.report(replace(WELL, **changes))
    (warning,) = report[section]["warnings"]
    assert warning["code"] == code
    assert warning["remedy"] == health.REMEDIES[code]
    assert report[section]["severity"] == report["severity"] == severity
    assert report["healthy"] == (severity != "error")


def test_every_code_of_ours_is_tried_or_taken_from_the_relays_own_report():
    assert {code for _, _, code, _ in CASES} >= set(health.REMEDIES) - {"EDERP02"}


def test_what_is_turned_off_is_no_problem():
    report = health.report(replace(WELL, derp=None, relays_wanted=False, stun_wanted=False))
    assert report["severity"] == "ok"


def test_a_server_without_tls_has_no_section_on_certificates():
    assert "certificate" not in health.report(replace(WELL, access_url="http://coder.example"))


async def test_what_was_found_is_kept_for_a_while():
    clock, found = FakeClock(), []

    async def find() -> int:
        found.append(clock.monotonic())
        return len(found)

    kept = Kept[int](60)
    assert await kept.get(find, clock.monotonic) == 1
    await clock.advance(59)
    assert await kept.get(find, clock.monotonic) == 1
    assert await kept.get(find, clock.monotonic, anew=True) == 2
    await clock.advance(60)
    assert await kept.get(find, clock.monotonic) == 3
