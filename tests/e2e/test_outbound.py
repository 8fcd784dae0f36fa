"""One contract for everything that leaves this process: API, coordination, relay and DERP map obey the same rules."""

import asyncio
import json
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from coder.cli.api import Api
from coder.dataplane.edge import Edge, EdgeSettings, certificate_pin
from coder.dataplane.engine import Engine, NodeSettings, RelayProblem, SelfChanged
from coder.errors import CoderError, Unreachable
from coder.outbound import Outbound, Proxies
from coder.rpc.websocket import connect
from coder.server import maps
from e2e.deployment import wait_until
from e2e.outside import MESH_KEY, NAME, Authority, Between, backend

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its authorities with openssl"),
]


def api(url: str, outbound: Outbound, headers: Mapping[str, str]) -> None:
    with Api(url, outbound=outbound, headers=headers) as server:
        assert server.build_info() == {"version": "v1"}


def coordination(url: str, outbound: Outbound, headers: Mapping[str, str]) -> None:
    async def opened() -> None:
        channel = await connect(f"{url}/coordinate", headers, outbound=outbound)
        await channel.close()

    asyncio.run(opened())


def relay(url: str, outbound: Outbound, headers: Mapping[str, str], *, pin: str = "") -> None:
    parts = urlsplit(url)
    node = {"Name": "1a", "RegionID": 1, "HostName": parts.hostname, "DERPPort": parts.port, "STUNPort": -1}
    region = {"RegionID": 1, "RegionCode": "x", "RegionName": "x", "Nodes": [node | {"CertName": pin}]}

    async def homed() -> None:
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_event(event: object) -> None:
            if told.done():
                return
            if isinstance(event, RelayProblem):
                told.set_exception(Unreachable(event.text, remedy=""))
            elif isinstance(event, SelfChanged) and event.latencies:
                told.set_result(None)

        settings = NodeSettings(addresses=("fd7a:115c:a1e0::1",), block_direct=True, outbound=outbound, headers=headers)
        async with Engine() as engine, asyncio.timeout(30):
            made = engine.node(settings, on_event)
            made.set_map(json.dumps({"Regions": {"1": region}}))
            try:
                await told
            finally:
                made.close()

    asyncio.run(homed())


def derp_map(url: str, outbound: Outbound, _headers: Mapping[str, str]) -> None:
    settings = maps.DerpSettings(enable=False, config_url=f"{url}/map")
    recipe = maps.Recipe(settings=settings, access_url="http://x", stun_ports=(), outbound=outbound)
    assert list(asyncio.run(recipe.build()).regions) == [1]


Reach = Callable[[str, Outbound, Mapping[str, str]], None]
all_kinds = pytest.mark.parametrize("reach", [api, coordination, relay, derp_map])


@dataclass
class Outside:
    """The backend, and two authorities."""

    server: tuple[str, int]
    ours: Authority
    others: Authority


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    place: Path = tmp_path_factory.mktemp("outside")
    with backend(place) as server:
        yield Outside(server, Authority(place, "ours"), Authority(place, "others"))


def rules(authority: Authority | None, proxies: Proxies | None = None, identity: Path | None = None) -> Outbound:
    pair = (str(identity), str(identity.with_suffix(".key"))) if identity else None
    return Outbound(proxies=proxies or Proxies(), ca_file=str(authority.pem) if authority else None, identity=pair)


def through(
    monkeypatch: pytest.MonkeyPatch, proxy: Between, login: str = "", spared: str = "", scheme: str = "http"
) -> Proxies:
    """What the environment of somebody behind that proxy says."""
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"{scheme}://{login}127.0.0.1:{proxy.port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, spared)
    return Proxies.of_system()


@contextmanager
def tls(outside: Outside, **options: object) -> Iterator[Between]:
    with Between(outside.server, **{"tls": outside.ours.server} | options) as front:
        yield front


def refusal(reach: Reach, url: str, outbound: Outbound) -> str:
    """The one line in which it is told that a server was not reached."""
    with pytest.raises(CoderError) as refused:
        reach(url, outbound, {})
    text = f"{refused.value} {refused.value.remedy}"
    assert "\n" not in text
    return text


@all_kinds
def test_a_server_with_an_authority_of_its_own(outside: Outside, reach: Reach):
    with tls(outside) as front:
        reach(f"https://localhost:{front.port}", rules(outside.ours), {})


@all_kinds
def test_an_unknown_authority_is_told_with_what_to_do(outside: Outside, reach: Reach):
    with tls(outside) as front:
        for outbound in (rules(outside.others), rules(None)):
            assert "--ca-file (CODER_CA_FILE)" in refusal(reach, f"https://localhost:{front.port}", outbound)


@all_kinds
@pytest.mark.parametrize(("wanted", "given"), [(None, ""), ("user:p@ss word", "user:p%40ss%20word@")])
def test_only_a_proxy_leads_out(outside, monkeypatch, reach, wanted, given):
    with tls(outside) as front, Between(front.server_address[:2], proxy=True, login=wanted) as proxy:
        reach(f"https://{NAME}:8443", rules(outside.ours, through(monkeypatch, proxy, given)), {})
        assert set(proxy.targets) == {f"{NAME}:8443"}


@all_kinds
def test_a_proxy_that_speaks_tls_itself(outside, monkeypatch, reach):
    secure = {"proxy": True, "outer": outside.ours.server}
    with tls(outside) as front, Between(front.server_address[:2], login="user:p@ss", **secure) as proxy:
        proxies = through(monkeypatch, proxy, "user:p%40ss@", scheme="https")
        reach(f"https://{NAME}:8443", rules(outside.ours, proxies), {})
        assert set(proxy.targets) == {f"{NAME}:8443"}
        text = refusal(reach, f"https://{NAME}:8443", rules(outside.others, proxies))
        assert "--ca-file" in text
        assert "proxy" in text
        assert "p@ss" not in text
        proxies = through(monkeypatch, proxy, "user:hunter2@", scheme="https")
        text = refusal(reach, f"https://{NAME}:8443", rules(outside.ours, proxies))
        assert "407" in text
        assert "hunter2" not in text


@all_kinds
def test_a_proxy_that_does_not_know_us_is_told_without_the_password(outside, monkeypatch, reach):
    with Between(outside.server, proxy=True, login="user:right") as proxy:
        proxies = through(monkeypatch, proxy, "user:hunter2@")
        text = refusal(reach, f"https://{NAME}:8443", rules(outside.ours, proxies))
    assert "407" in text
    assert "proxy" in text
    assert "hunter2" not in text


@all_kinds
def test_a_proxy_that_intercepts_tls_with_an_authority_of_its_own(outside, monkeypatch, reach):
    with Between(outside.server, proxy=True, tls=outside.others.server) as proxy:
        proxies = through(monkeypatch, proxy)
        reach(f"https://{NAME}:8443", rules(outside.others, proxies), {})
        assert "--ca-file" in refusal(reach, f"https://{NAME}:8443", rules(outside.ours, proxies))


@all_kinds
def test_what_is_spared_is_reached_directly(outside, monkeypatch, reach):
    with tls(outside) as front, Between(outside.server, proxy=True) as proxy:
        proxies = through(monkeypatch, proxy, spared=f".elsewhere.test,localhost:{front.port}")
        reach(f"https://localhost:{front.port}", rules(outside.ours, proxies), {})
        assert proxy.targets == []


@all_kinds
def test_a_server_that_asks_who_we_are(outside, reach):
    with tls(outside, tls=outside.ours.asking()) as front:
        url = f"https://localhost:{front.port}"
        reach(url, rules(outside.ours, identity=outside.ours.own), {})
        for stranger in (None, outside.others.own):
            assert "--client-tls-cert-file" in refusal(reach, url, rules(outside.ours, identity=stranger))


@all_kinds
def test_files_that_are_not_there(outside, tmp_path, reach):
    with tls(outside) as front:
        url = f"https://localhost:{front.port}"
        missing = Outbound(proxies=Proxies(), ca_file=str(tmp_path / "missing.pem"))
        assert "missing.pem" in refusal(reach, url, missing)
        assert "absent.pem" in refusal(reach, url, rules(outside.ours, identity=tmp_path / "absent.pem"))


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@all_kinds
@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_an_ipv6_literal(outside, monkeypatch, reach):
    with tls(outside, host="::1") as front, Between(front.server_address[:2], proxy=True) as proxy:
        url = f"https://[::1]:{front.port}"
        reach(url, rules(outside.ours), {})
        reach(url, rules(outside.ours, through(monkeypatch, proxy)), {})
        assert set(proxy.targets) == {f"[::1]:{front.port}"}


@pytest.mark.parametrize("reach", [api, coordination, relay])
def test_headers_go_along(outside, reach):
    with tls(outside) as front:
        reach(f"https://localhost:{front.port}", rules(outside.ours), {"X-Access": "let me in"})
        assert all(b"x-access: let me in" in head.lower() for head in front.heads)
        assert front.heads


@pytest.mark.parametrize("kind", ["authority", "identity", "proxy", "proxy that speaks TLS"])
def test_links_between_relays(outside, monkeypatch, kind):
    ours = outside.ours
    outer = ours.server if kind == "proxy that speaks TLS" else None
    with (
        tls(outside, tls=ours.asking() if kind == "identity" else ours.server) as front,
        Between(front.server_address[:2], proxy=True, login="user:p", outer=outer) as proxy,
    ):
        proxies = through(monkeypatch, proxy, "user:p@", scheme="https" if outer else "http")
        by_proxy = kind.startswith("proxy")
        outbound = rules(ours, proxies if by_proxy else None, ours.own if kind == "identity" else None)
        url = f"https://{NAME}:8443" if by_proxy else f"https://localhost:{front.port}"
        plan = EdgeSettings(listen=("127.0.0.1:0",), upstream=None, mesh_key=MESH_KEY, mesh=(url,), outbound=outbound)
        edge = Edge(plan)
        try:
            wait_until("the link", lambda: edge.counters()["relay_links"] == 1)
        finally:
            edge.close()


def test_a_pinned_relay_needs_no_authority(outside):
    pin = certificate_pin(outside.ours.certificate.read_bytes())
    with tls(outside) as front:
        relay(f"https://localhost:{front.port}", rules(None), {}, pin=pin)
