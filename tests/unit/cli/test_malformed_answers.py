"""Whatever a server or an agent answers: one clear line and exit code 1, never a traceback."""

import json
import socket
from copy import deepcopy

import pytest
from fakes.network import AGENT, BY_NAME, PATHS, netcheck, with_node
from fakes.server import MAP, USER, JsonText, agent, workspace

from coder.cli.commands import list as listing

WORKSPACES = "GET /api/v2/workspaces"
ME = "GET /api/v2/users/me"
SSH = "GET /api/v2/deployment/ssh"
ANY_INFO = "GET /api/v2/workspaceagents/connection"
TOKENS = "GET /api/v2/users/me/keys/tokens"
CREATE = "POST /api/v2/users/me/workspaces"

BUSY = agent(
    latency={"Near": {"preferred": True, "latency_ms": 1.0}},
    apps=[{"slug": "web", "display_name": "Web", "health": "healthy", "hidden": False}],
    scripts=[
        {
            "display_name": "Tools", "script": "make", "run_on_start": True, "run_on_stop": False, "cron": "",
            "last_run": {"status": "ok", "exit_code": 0, "started_at": "2026-01-02T03:04:05Z",
                         "ended_at": "2026-01-02T03:04:06Z"},
        }
    ],
    disconnect_reason="",
)  # fmt: skip
GOOD = {
    WORKSPACES: {"workspaces": [workspace(agent())], "count": 1},
    ME: USER,
    BY_NAME: workspace(BUSY),
    SSH: {"hostname_prefix": "coder.", "hostname_suffix": "coder", "ssh_config_options": {}},
    ANY_INFO: {"derp_map": MAP},
    f"{AGENT}/connection": {"derp_map": MAP},
}

LOGS = f"{AGENT}/logs"
ASKED = [
    (("list",), WORKSPACES),
    (("list", "-c", "agent,healthy,last built,template"), WORKSPACES),
    (("show", "dev"), BY_NAME),
    (("whoami",), ME),
    (("whoami", "-o", "json"), ME),
    (("config-ssh", "--yes", "--ssh-config-file", "{tmp}/ssh"), SSH),
    (("ping", "dev", "-n", "1"), BY_NAME),
    (("ping", "dev", "-n", "1"), ANY_INFO),
    (("speedtest", "dev"), BY_NAME),
    (("ssh", "--stdio", "dev"), BY_NAME),
    (("port-forward", "dev", "--tcp", "{port}:80"), BY_NAME),
    (("doctor", "dev"), BY_NAME),
    (("doctor",), ANY_INFO),
    (("netcheck",), ANY_INFO),
    (("derpmap", "show"), ANY_INFO),
    (("create", "dev"), CREATE),
    (("delete", "dev", "--yes"), BY_NAME),
    (("users", "list"), "GET /api/v2/users"),
    (("users", "show"), ME),
    (("tokens", "list"), TOKENS),
    (("tokens", "remove", "ci"), f"{TOKENS}/ci"),
    (("logs", "dev"), LOGS),
    (("agents", "token", "dev", "--renew"), f"{AGENT}/token".replace("GET", "POST")),
    (("audit",), "GET /api/v2/audit"),
    (("connections",), "GET /api/v2/connectionlog"),
    (("--token", "x-y", "login", "{url}"), "POST /api/v2/users/me/keys"),
]
BODIES = [None, [None], "text", 7, True, {"workspaces": None}, {"workspaces": [None]}, {"derp_map": [1]}]
TEXTS = [b"NaN", b'{"a": -Infinity}', b"[" * 100_000 + b"]" * 100_000, b'{"a":', b'"\xff"', b"9" * 5000]
WRONG = [None, [], {}, "\ud800\x1b[2J\n", 7, [[]]]


@pytest.fixture
def run(coder, network, tmp_path):
    """Run a command at a server that answers rightly, but for one question."""

    def run(words, route, body):
        network.answers |= {name: (200, good) for name, good in GOOD.items()} | {route: (200, body)}
        return coder(*(word.format(tmp=tmp_path, url=network.url, port=free_port()) for word in words))

    return run


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def one_clear_line(result):
    """`ssh` exits as OpenSSH does, `doctor` lists what it has tried, and some say what they are about to do."""
    said = [text for text in (result.out + result.err).splitlines() if "does not answer like" in text]
    assert result.code in {1, 255}, (result.code, result.out, result.err)
    assert len(said) == 1, (result.out, result.err)


@pytest.mark.parametrize("body", BODIES, ids=json.dumps)
@pytest.mark.parametrize(("words", "route"), ASKED, ids=str)
def test_answers_of_another_shape(run, words, route, body):
    if route in {TOKENS, LOGS} and body is None:
        pytest.skip("some servers say null for an empty list")
    one_clear_line(run(words, route, body))


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:8]))
def test_what_is_no_json_or_none_that_can_be_read(run, text):
    one_clear_line(run(("whoami",), ME, JsonText(text)))


def places(value, path=()):
    """List the ways to everything inside of a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield (*path, key)
        yield from places(one, (*path, key))


def changed(value, path, wrong):
    """Return the value with something else in one place."""
    value = deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = wrong
    return value


@pytest.mark.parametrize(
    ("words", "route"),
    [
        (("list", "-c", ",".join(listing.LISTING.columns)), WORKSPACES),
        (("list", "-o", "json"), WORKSPACES),
        (("show", "dev"), BY_NAME),
        (("delete", "dev", "--yes"), BY_NAME),
        (("whoami",), ME),
        (("users", "show"), ME),
        (("config-ssh", "--dry-run", "--ssh-config-file", "{tmp}/ssh"), SSH),
        (("derpmap", "show"), ANY_INFO),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_value_in_any_place(run, network, words, route):
    network.answers["POST /api/v2/workspaces/22222222-2222-4222-8222-222222222222/builds"] = (201, {})
    for path in places(GOOD[route]):
        for wrong in WRONG:
            result = run(words, route, changed(GOOD[route], path, wrong))
            assert result.code in {0, 1, 2}, (path, wrong)
            assert "\x1b" not in result.out + result.err
            if result.code:
                assert len(result.err.splitlines()) == 1, (path, wrong, result.err)


@pytest.mark.parametrize("answer", [*BODIES, *WRONG, {"net_info": {"DERPLatency": {"1-v4": 10**400}}}], ids=repr)
@pytest.mark.parametrize("path", ["/api/v0/netcheck", "/api/v0/paths"])
def test_an_agent_that_answers_anything(run, network, path, answer):
    served = {"/api/v0/netcheck": netcheck(), "/api/v0/paths": PATHS} | {path: answer}
    with_node(network, lambda node: setattr(node, "served", served))
    result = run(("ping", "dev", "-n", "1"), BY_NAME, GOOD[BY_NAME])
    assert result.code == 0, result.err
    assert "\x1b" not in result.out + result.err


@pytest.mark.parametrize(
    "body",
    [{"message": "a\nb\x1b[2J\u202e"}, {"message": {}, "validations": 7}, {"message": "No", "validations": [None]}],
    ids=repr,
)
def test_a_refusal_of_any_shape(coder, signed_in, body):
    signed_in.answers[ME] = (403, body)
    result = coder("whoami")
    [line] = result.err.splitlines()
    assert result.code == 1
    assert line.isprintable()
