from datetime import UTC, datetime

import pytest
from fakes.server import agent

from coder.cli.agent_facts import facts

NOW = datetime(2026, 1, 2, 4, 4, 5, tzinfo=UTC)
RUN = {"started_at": "2026-01-02T04:03:00Z", "ended_at": "2026-01-02T04:03:01.5Z", "exit_code": 0, "status": "ok"}


def told(ports=(), **changes):
    return dict(facts(agent(**changes), list(ports), NOW))


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"started_at": "2026-01-02T03:04:05Z"}, ["connected, started 1h ago, v0.1.0"]),
        ({"lifecycle_state": "start_error"}, ["connected, v0.1.0", "a start script failed"]),
        (
            {"status": "disconnected", "disconnected_at": "2026-01-02T04:03:05Z", "lifecycle_state": "off",
             "health": {"healthy": False, "reason": "The agent has lost its connection."}},
            ["disconnected, last there 1m ago", "The agent has lost its connection."],
        ),
        (
            {"status": "disconnected", "disconnected_at": "2026-01-02T04:03:05Z", "disconnect_reason": "no pings",
             "health": {"healthy": False, "reason": "lost"}},
            ["disconnected, last there 1m ago", "no pings"],
        ),
        (
            {"status": "timeout", "last_connected_at": None, "lifecycle_state": "created",
             "health": {"healthy": False, "reason": "It takes too long."}, "troubleshooting_url": "https://help"},
            ["timeout, has never connected", "It takes too long.", "see https://help"],
        ),
    ],
)  # fmt: skip
def test_the_state_says_since_when_and_why(changes, lines):
    assert told(**changes) == {"state": lines}


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (None, "has not run"),
        (RUN, "done in 1.5s, 1m ago"),
        (RUN | {"status": "exit_failure", "exit_code": 3}, "failed with exit code 3 in 1.5s, 1m ago"),
        (RUN | {"status": "timed_out"}, "took too long in 1.5s, 1m ago"),
        ({"status": "ok"}, "done"),
    ],
)
def test_scripts_say_when_they_run_and_how_the_last_run_went(run, text):
    script = {"display_name": "Tools", "run_on_start": True, "cron": "0 2 * * *", "last_run": run}
    assert told(scripts=[script])["scripts"] == [f"Tools (on start, at 0 2 * * *): {text}"]


def test_apps_say_their_health_where_it_is_watched():
    apps = [
        {"slug": "a", "display_name": "Page", "health": "healthy"},
        {"slug": "b", "health": "disabled"},
        {"slug": "c", "health": "initializing"},
        {"slug": "d", "hidden": True},
    ]
    assert told(apps=apps)["apps"] == ["Page: healthy", "b", "c: not checked yet"]


def test_home_and_ports():
    latency = {"Far": {"preferred": False, "latency_ms": 80.0}, "Near": {"preferred": True, "latency_ms": 1.25}}
    ports = [{"port": 3000, "network": "tcp", "process_name": "node"}, {"port": 5353, "network": "udp"}]
    found = told(ports, latency=latency)
    assert found["home"] == ["Near, 1.2ms from it"]
    assert found["ports"] == ["3000/tcp node, 5353/udp"]
