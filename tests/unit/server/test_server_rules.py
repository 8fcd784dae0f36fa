"""The pure parts of the server: versions, agent status, changes, sockets, maps."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import pytest

from coder.clock import FakeClock
from coder.config import DerpSettings, listen_address
from coder.db.models import WorkspaceAgent
from coder.errors import Closed
from coder.outbound import Outbound, Proxies
from coder.server import agent_status, api_version, changes, maps
from coder.server.agent_status import Status
from coder.server.problems import Problem
from coder.server.run import derive_access_url
from coder.server.sockets import Sockets
from coder.wire.proto.tailnet_pb2 import DERPMap

NOW = datetime(2030, 1, 1, tzinfo=UTC)
URL = "https://coder.example.com"


def seconds(number: float) -> datetime:
    return NOW + timedelta(seconds=number)


def agent(**values: object) -> WorkspaceAgent:
    known = {"created_at": NOW, "connection_timeout_seconds": 120, "lifecycle_state": "created"}
    return WorkspaceAgent(**(known | values))


@pytest.mark.parametrize(
    ("times", "now", "expected"),
    [
        ({}, 120, Status.CONNECTING),
        ({}, 121, Status.TIMEOUT),
        ({"connection_timeout_seconds": 0}, 10**6, Status.CONNECTING),
        ({"last": 10}, 40, Status.CONNECTED),
        ({"last": 10}, 41, Status.DISCONNECTED),
        ({"last": 10, "ended": 10}, 11, Status.DISCONNECTED),
        ({"last": 10, "ended": 9}, 11, Status.CONNECTED),
        ({"last": 500, "ended": 200}, 510, Status.CONNECTED),
    ],
)
def test_the_status_of_an_agent(times: dict[str, int], now: int, expected: Status):
    values: dict[str, object] = {key: value for key, value in times.items() if key not in {"last", "ended"}}
    if "last" in times:
        values |= {"first_connected_at": NOW, "last_connected_at": seconds(times["last"])}
    if "ended" in times:
        values["disconnected_at"] = seconds(times["ended"])
    assert agent_status.status(agent(**values), seconds(now)) is expected


@pytest.mark.parametrize(
    ("lifecycle", "healthy"), [("ready", True), ("created", True), ("start_error", False), ("off", False)]
)
def test_the_health_of_a_connected_agent_is_its_lifecycle(lifecycle: str, healthy: bool):
    connected = agent(first_connected_at=NOW, last_connected_at=NOW, lifecycle_state=lifecycle)
    found = agent_status.health(connected, seconds(1))
    assert (found.healthy, bool(found.reason)) == (healthy, not healthy)


@pytest.mark.parametrize("text", ["2.0", "2.6", "2.13"])
def test_versions_that_are_served(text: str):
    assert api_version.accept(text) == text


@pytest.mark.parametrize("text", ["2.14", "3.0", "1.9", "", "2", "a.b", "2.0.0", " 2.0", "٢.0", "9999999.0"])
def test_versions_that_are_not(text: str):
    with pytest.raises(Problem) as refused:
        api_version.accept(text)
    assert (refused.value.status, refused.value.message) == (400, "Unknown or unsupported API version")


async def test_a_change_wakes_those_who_watch_its_subject_once():
    hub, clock = changes.Changes(), FakeClock()
    with hub.watch("a") as mine, hub.watch("b") as other:
        hub.announce("a")
        hub.announce("a")
        hub.announce("c")
        assert (mine.is_set(), other.is_set()) == (True, False)
    hub.announce("a")
    assert clock.monotonic() == 0


async def test_farewells_come_before_an_end_for_good_and_none_before_a_stop():
    sockets, said = Sockets(), []

    async def farewell(reason: str) -> None:
        said.append(reason)

    async def connection(owner: str) -> None:
        with sockets.belonging_to(owner, farewell=farewell):
            await asyncio.Event().wait()
        said.append(f"{owner} ended")

    tasks = [asyncio.create_task(connection(owner)) for owner in ("a", "b")]
    await asyncio.sleep(0)
    sockets.end("a", "suspended")
    await tasks[0]
    await sockets.stop(5)
    await tasks[1]
    assert said == ["suspended", "a ended", "b ended"]


async def test_ending_an_owner_ends_its_connections_and_nobody_elses():
    sockets, ended = Sockets(), []

    async def connection(*owners: str) -> None:
        with sockets.belonging_to(*owners):
            await asyncio.Event().wait()
        ended.append(owners)

    tasks = [asyncio.create_task(connection(*owners)) for owners in (("a", "b"), ("a",), ("c",))]
    await asyncio.sleep(0)
    assert sockets.end("b", "gone") == 1
    assert sockets.end("b", "gone") == 0
    await tasks[0]
    assert ended == [("a", "b")]
    assert sockets.count("a") == 1
    await sockets.stop(5)
    await asyncio.gather(*tasks)
    assert sockets.count("a") == sockets.count("c") == 0
    with pytest.raises(Closed), sockets.belonging_to("d"):
        pass


async def test_a_cancellation_from_elsewhere_is_not_swallowed():
    sockets = Sockets()

    async def connection() -> None:
        with sockets.belonging_to("a"):
            await asyncio.Event().wait()

    task = asyncio.create_task(connection())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sockets.count("a") == 0


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("[::]:80", "http://127.0.0.1:80"),
        ("[::1]:80", "http://[::1]:80"),
    ],
)
def test_an_access_url_made_from_the_address(address: str, url: str):
    assert derive_access_url(address, "http") == url


@pytest.mark.parametrize(
    ("given", "address"), [("localhost:1", "127.0.0.1:1"), (":2", "0.0.0.0:2"), ("[::1]:3", "[::1]:3")]
)
def test_listening_addresses(given: str, address: str):
    assert listen_address(given, "http-address") == address


def recipe(settings: DerpSettings, stun_ports: tuple[int, ...]) -> maps.Recipe:
    return maps.Recipe(settings=settings, access_url=URL, stun_ports=stun_ports, outbound=Outbound(proxies=Proxies()))


async def test_the_map_has_the_embedded_region_and_both_stun_ports():
    loaded = await maps.load(recipe(DerpSettings(), (3478, 3479)))
    regions = loaded.json()["Regions"]
    assert sorted(regions) == ["1000", "999"]
    assert regions["999"]["Nodes"][0]["STUNPort"] == 3478
    assert regions["1000"]["Nodes"][0]["STUNPort"] == 3479
    assert loaded.region_names()[999] == "Coder Embedded Relay"


NODE = '{"Name": "1a", "RegionID": 1, "HostName": "r"}'
MAP = f'{{"Regions": {{"1": {{"RegionID": 1, "RegionName": "One", "Nodes": [{NODE}]}}}}}}'


async def test_a_map_from_a_file(tmp_path: Path):
    (tmp_path / "map.json").write_text(MAP)
    settings = DerpSettings(enable=False, config_path=str(tmp_path / "map.json"))
    assert (await maps.load(recipe(settings, ()))).region_names() == {1: "One"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("null", "expected an object"),
        ('{"Regions": null}', "Regions"),
        (MAP.replace("1a", "1a\\n"), None),
    ],
)
async def test_a_bad_map_file_gets_one_line(tmp_path: Path, content: str, words: str | None):
    (tmp_path / "map.json").write_text(content)
    settings = DerpSettings(config_path=str(tmp_path / "map.json"))
    if words is None:
        assert 1 in (await maps.load(recipe(settings, ()))).region_names()
        return
    with pytest.raises(maps.MapError, match=words) as refused:
        await maps.load(recipe(settings, ()))
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (DerpSettings(enable=False), "no regions"),
        (DerpSettings(config_path="/nowhere/map.json"), "Cannot read"),
        (DerpSettings(config_path="/a", config_url="http://b"), "not both"),
        (DerpSettings(stun_addresses=("stun.example.com",)), "port"),
        (DerpSettings(config_url="nonsense"), "Cannot fetch"),
    ],
)
async def test_settings_that_give_no_map(settings: DerpSettings, words: str):
    with pytest.raises(maps.MapError, match=words):
        await maps.load(recipe(settings, ()))


class Web:
    """Answers every request alike, on this machine."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status, self.body = status, body
        self._serving: list[asyncio.Task[None] | None] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/map"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()
        await asyncio.gather(*filter(None, self._serving))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.append(asyncio.current_task())
        head = f"HTTP/1.1 {self.status} X\r\nContent-Length: {len(self.body)}\r\nLocation: http://127.0.0.1:1/\r\n\r\n"
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):  # who has read enough leaves
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head.encode() + self.body)
            await writer.drain()
        writer.close()


def from_url(url: str) -> maps.Recipe:
    return recipe(DerpSettings(enable=False, config_url=url), ())


async def test_a_map_from_a_url():
    async with Web(200, MAP.encode()) as web:
        assert (await maps.load(from_url(web.url))).region_names() == {1: "One"}


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, b"", "it answered 404"),
        (302, b"", "it answered 302"),
        (200, b" " * (maps.MAX_DOCUMENT + 1), "larger than 4 MiB"),
        (200, b"<html>", "not JSON"),
    ],
)
async def test_a_url_that_gives_no_map(status: int, body: bytes, words: str):
    async with Web(status, body) as web:
        with pytest.raises(maps.MapError, match=words):
            await maps.load(from_url(web.url))


async def test_a_url_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(maps, "FETCH_TIMEOUT", 0.01)
    in_time = pytest.raises(maps.MapError, match="did not answer in time")
    with socket.create_server(("127.0.0.1", 0)) as silent, in_time:
        await maps.load(from_url(f"http://127.0.0.1:{silent.getsockname()[1]}/map"))
    with pytest.raises(maps.MapError, match="no URL"):
        await maps.load(from_url("ftp://maps.example.com/map"))


@contextlib.asynccontextmanager
async def followed(made_of: maps.Recipe) -> AsyncIterator[tuple[FakeClock, AsyncIterator[DERPMap]]]:
    loaded, clock = await maps.load(made_of), FakeClock()
    following = asyncio.ensure_future(maps.follow(loaded, made_of, clock))
    each = loaded.each()
    await anext(each)
    try:
        yield clock, each
    finally:
        following.cancel()


async def test_a_file_is_read_again_when_it_changes_and_what_cannot_be_used_changes_nothing(tmp_path: Path):
    file = tmp_path / "map.json"
    file.write_text(MAP)
    async with followed(recipe(DerpSettings(enable=False, config_path=str(file)), ())) as (clock, each):
        heard = asyncio.ensure_future(anext(each))
        file.write_text("{")
        await clock.advance(maps.LOOK_EVERY)
        file.write_text(MAP.replace("One", "Another"))
        await clock.advance(maps.LOOK_EVERY)
        while not heard.done():  # a thread reads the file
            await clock.advance(maps.LOOK_EVERY)
        assert [region.region_name for region in heard.result().regions.values()] == ["Another"]


async def test_a_url_is_asked_again_after_a_while():
    async with Web(200, MAP.encode()) as web, followed(from_url(web.url)) as (clock, each):
        heard = asyncio.ensure_future(anext(each))
        web.body = MAP.replace("One", "Another").encode()
        while not heard.done():
            await clock.advance(maps.FETCH_EVERY)
        assert [region.region_name for region in heard.result().regions.values()] == ["Another"]


async def test_the_last_usable_document_of_a_url_serves_a_start_without_it(tmp_path: Path):
    async with Web(200, MAP.encode()) as web:
        made_of = replace(from_url(web.url), kept=tmp_path / "kept")
        await maps.load(made_of)
        web.body = b"<html>"
        assert (await maps.load(made_of)).region_names() == {1: "One"}
        other = replace(made_of, settings=DerpSettings(enable=False, config_url=web.url + "?other"))
        with pytest.raises(maps.MapError, match="not JSON"):
            await maps.load(other)
        with pytest.raises(maps.MapError, match="not JSON"):
            await made_of.build()
    assert (await maps.load(made_of)).region_names() == {1: "One"}
    (tmp_path / "kept").write_text("nonsense")
    with pytest.raises(maps.MapError, match="nothing listens"):
        await maps.load(made_of)


async def test_a_name_that_leads_to_a_link_local_address_is_not_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("coder.link_local.is_metadata", "127.0.0.1".__eq__)  # what this machine surely has
    async with Web(200, MAP.encode()) as web:
        with pytest.raises(maps.MapError, match="link-local"):
            await maps.load(from_url(web.url))
        allowed = DerpSettings(enable=False, config_url=web.url, config_url_link_local=True)
        assert (await maps.load(recipe(allowed, ()))).region_names() == {1: "One"}
