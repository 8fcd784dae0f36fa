"""The composition: starts, announces, stops in order; what stands in its way gets one line."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner

from coder import BUILD_VERSION, config
from coder.cli.commands.server import command
from coder.config import Settings
from coder.dataplane.edge import AppSettings, EdgeSettings
from coder.db.store import StateDirectoryError
from coder.errors import CoderError, Unreachable
from coder.ids import Secret
from coder.server.run import Ready, _has_ipv6, run

ANY = "[::]" if _has_ipv6() else "0.0.0.0"
"""Where a dual-stack socket listens, as far as the machine has IPv6."""


class FakeEdge:
    """Stands where the native edge would: listens nowhere; tests talk to its upstream."""

    addresses = ("127.0.0.1:4321",)
    stun_ports = (3478, 3479)
    certificate_problem = None

    def __init__(self, settings: EdgeSettings) -> None:
        self.settings = settings
        self.closed = False
        self.apps: AppSettings | None = None

    def counters(self) -> dict[str, int]:
        return {"accepted": 7, "relay_clients": 2}

    def set_apps(self, apps: AppSettings) -> None:
        self.apps = apps

    def set_dial(self, node: object) -> None:
        del node

    def announce(self, keys: Sequence[str]) -> None:
        del keys

    def withdraw(self, keys: Sequence[str]) -> None:
        del keys

    def close(self) -> None:
        self.closed = True


class Running:
    def __init__(self) -> None:
        self.edges: list[FakeEdge] = []
        self.ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self.stop = asyncio.Event()

    def edge(self, settings: EdgeSettings) -> FakeEdge:
        self.edges.append(FakeEdge(settings))
        return self.edges[-1]

    async def get(self, path: str) -> httpx2.Response:
        transport = httpx2.AsyncHTTPTransport(uds=self.edges[0].settings.upstream)
        async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get(path)


def settings(tmp_path: Path, **flags: str) -> Settings:
    return config.load(flags={"state_dir": str(tmp_path / "state"), **flags}, environ={})


@asynccontextmanager
async def running(wanted: Settings) -> AsyncIterator[Running]:
    here = Running()
    task = asyncio.create_task(run(wanted, announce=here.ready.set_result, edge_factory=here.edge, stop=here.stop))
    await asyncio.wait([task, here.ready], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield here
    finally:
        here.stop.set()
        await task


async def test_a_server_starts_announces_itself_and_stops(tmp_path: Path):
    async with running(settings(tmp_path)) as here:
        ready = here.ready.result()
        assert ready.access_url == "http://127.0.0.1:4321"
        assert (ready.access_url_derived, ready.needs_first_user) == (True, True)
        assert (await here.get("/healthz")).text == "OK"
        [edge] = here.edges
        assert edge.settings.listen == ("127.0.0.1:3000",)
        assert edge.settings.stun == (f"{ANY}:3478", f"{ANY}:3479")
        upstream = Path(edge.settings.upstream)
        assert upstream.parent.stat().st_mode & 0o777 == 0o700
    assert edge.closed
    assert not upstream.parent.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it(tmp_path: Path, number: int):
    async with running(settings(tmp_path)) as here:
        os.kill(os.getpid(), number)
        await here.stop.wait()


@pytest.mark.parametrize(
    ("flags", "stun"),
    [
        ({"derp_server_stun_port": "0"}, (f"{ANY}:0", f"{ANY}:0")),
        ({"derp_server_stun_port": "-1"}, ()),
        ({"block_direct_connections": "true"}, ()),
    ],
)
async def test_where_stun_is_answered(tmp_path: Path, flags: dict[str, str], stun: tuple[str, ...]):
    async with running(settings(tmp_path, access_url="https://coder.example.com/", **flags)) as here:
        assert here.edges[0].settings.stun == stun
        assert here.ready.result().access_url == "https://coder.example.com"
        assert here.ready.result().access_url_derived is False


async def test_the_relays_of_a_region_are_meshed(tmp_path: Path):
    (tmp_path / "mesh.key").write_text("0123456789abcdef\n")
    (tmp_path / "authority.pem").write_text("PEM")
    others = "https://two.example.com,https://three.example.com"
    flags = {
        "derp_server_mesh_key_file": str(tmp_path / "mesh.key"),
        "derp_server_mesh_with": others,
        "derp_server_mesh_ca_file": str(tmp_path / "authority.pem"),
        "derp_server_mesh_cert_name": "relay",
    }
    async with running(settings(tmp_path, **flags)) as here:
        plan = here.edges[0].settings
    assert (plan.mesh_key, plan.mesh) == (Secret("0123456789abcdef"), tuple(others.split(",")))
    assert (plan.mesh_roots, plan.mesh_name) == (b"PEM", "relay")


@pytest.mark.parametrize(
    ("key", "words"), [("", "needs the region's secret"), ("/nowhere/key", "cannot read"), ("short", "too short")]
)
async def test_a_mesh_without_a_usable_secret(tmp_path: Path, key: str, words: str):
    (tmp_path / "short").write_text("short")
    path = str(tmp_path / key) if key else ""
    flags = {"derp_server_mesh_key_file": path, "derp_server_mesh_with": "https://two.example.com"}
    with pytest.raises(CoderError, match=words):
        async with running(settings(tmp_path, **flags)):
            pass


async def test_https_beside_http_and_instead_of_it(tmp_path: Path):
    tls = {"tls_enable": "true", "tls_cert_file": "/c.pem", "tls_key_file": "/k.pem", "tls_address": "127.0.0.1:0"}
    async with running(settings(tmp_path, **tls, tls_min_version="tls13")) as here:
        edge = here.edges[0].settings
        assert (edge.listen, edge.listen_tls) == (("127.0.0.1:3000",), ("127.0.0.1:0",))
        assert (edge.certificates, edge.tls_13_only) == ((("/c.pem", "/k.pem"),), True)
        assert here.ready.result().access_url == "https://127.0.0.1:4321"
    environ = {f"CODER_{name.upper()}": value for name, value in tls.items()} | {"CODER_HTTP_ADDRESS": ""}
    flags = {"state_dir": str(tmp_path / "state"), "http_address": ""}
    async with running(config.load(flags=flags, environ=environ)) as here:
        assert here.edges[0].settings.listen == ()
        assert here.edges[0].settings.tls_13_only is False


async def test_two_servers_on_one_state_directory(tmp_path: Path):
    async with running(settings(tmp_path)) as here:
        with pytest.raises(StateDirectoryError, match="Another server"):
            async with running(settings(tmp_path)):
                pass
        assert (await here.get("/healthz")).status_code == 200


async def test_a_restarted_server_knows_its_users_and_itself(tmp_path: Path):
    async with running(settings(tmp_path)) as here:
        first = (await here.get("/api/v2/buildinfo")).json()
    async with running(settings(tmp_path)) as here:
        assert (await here.get("/api/v2/buildinfo")).json() == first


async def test_an_address_in_use_ends_the_start_and_leaves_nothing_behind(tmp_path: Path):
    def taken(_settings: EdgeSettings) -> FakeEdge:
        raise Unreachable("127.0.0.1:3000 is in use")

    with pytest.raises(Unreachable, match="in use"):
        await run(settings(tmp_path), announce=lambda _ready: None, edge_factory=taken)
    async with running(settings(tmp_path)):
        pass


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"derp_config_path": "/nowhere/map.json"}, "/nowhere/map.json"),
        ({"derp_server_enable": "false"}, "no regions"),
        ({"http_address": "coder.example.com:80"}, "IP address"),
    ],
)
async def test_what_stands_in_the_way_is_told_in_one_line_and_the_edge_is_closed(
    tmp_path: Path, flags: dict[str, str], words: str
):
    edges: list[FakeEdge] = []

    def edge(wanted: EdgeSettings) -> FakeEdge:
        edges.append(FakeEdge(wanted))
        return edges[-1]

    with pytest.raises(CoderError, match=words) as refused:
        await run(settings(tmp_path, **flags), announce=lambda _ready: None, edge_factory=edge)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 1
    assert all(each.closed for each in edges)


def test_write_config_prints_what_is_in_force():
    result = CliRunner().invoke(
        command,
        ["--http-address", "127.0.0.1:9", "--derp-server-enable=false", "--write-config"],
        env={"CODER_LOG_LEVEL": "debug"},
    )
    assert result.exit_code == 0
    assert "httpAddress: 127.0.0.1:9" in result.output
    assert "enable: false" in result.output
    assert "level: debug" in result.output


def test_help_names_every_setting_that_is_not_hidden():
    text = CliRunner().invoke(command, ["--help"]).output
    assert [option.flag for option in config.OPTIONS if f"--{option.flag} " not in text and not option.hidden] == []


async def test_a_taken_stun_port_names_its_option(settings: Settings):
    def taken(_plan: object) -> None:
        raise Unreachable("cannot listen on [::]:3478 (UDP): Address already in use", remedy="")

    with pytest.raises(Unreachable) as refused:
        await run(settings, announce=lambda _ready: None, edge_factory=taken)
    assert "--derp-server-stun-port" in refused.value.remedy


async def test_numbers_for_prometheus_are_shown_on_an_address_of_their_own(tmp_path: Path):
    async with running(settings(tmp_path, prometheus_enable="true", prometheus_address="127.0.0.1:0")) as server:
        ready = await server.ready
        assert (await server.get("/api/v2/users/nobody")).status_code == 401
        assert (await server.get("/metrics")).status_code == 404
        async with httpx2.AsyncClient() as client:
            answer = await client.get(ready.metrics)
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    for line in (
        f'coder_info{{version="{BUILD_VERSION}"}} 1.0',
        "coder_agents_connected 0.0",
        "# TYPE coder_edge_accepted_total counter",
        "coder_edge_accepted_total 7.0",
        "# TYPE coder_edge_relay_clients gauge",
        "coder_edge_relay_clients 2.0",
        'coder_api_request_seconds_count{method="GET",route="/api/v2/users/{user}",status="401"} 1.0',
    ):
        assert line in lines
    assert any(line.startswith("process_resident_memory_bytes ") for line in lines)


async def test_nothing_is_shown_unless_it_is_asked_for(tmp_path: Path):
    async with running(settings(tmp_path)) as server:
        assert (await server.ready).metrics is None


async def test_a_taken_address_for_numbers_is_told(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        asked = settings(tmp_path, prometheus_enable="true", prometheus_address=address)
        with pytest.raises(Unreachable, match=f"cannot listen on {address}: Address already in use"):
            await run(asked, announce=lambda _: None, edge_factory=FakeEdge)
