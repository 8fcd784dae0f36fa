"""Logs, metadata, apps' health and reports on their way to the server."""

import asyncio
import contextlib
import socket
from uuid import UUID

import pytest
from fakes.told import Told, around, running
from hypothesis import given
from hypothesis import strategies as st

from coder.agent import app_health, logs, metadata
from coder.agent.app_health import AppHealth
from coder.agent.logs import Lines, LogOutbox
from coder.agent.metadata import Metadata
from coder.agent.processes import Processes
from coder.agent.reports import MAX_WAITING, Reports
from coder.clock import FakeClock
from coder.errors import Closed, RpcError
from coder.wire.proto import agent_pb2 as pb

ONE, TWO = UUID(int=1), UUID(int=2)


@given(st.lists(st.binary(max_size=30)))
def test_lines_are_the_same_however_the_bytes_are_cut(pieces):
    whole, cut = [], []
    for sink, parts in ((whole, [b"".join(pieces)]), (cut, pieces)):
        lines = Lines(sink.append)
        for part in parts:
            lines.feed(part)
        lines.end()
    assert whole == cut
    assert all("\n" not in line and "\0" not in line for line in whole)


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_without_end_is_cut_and_none_of_it_lost(end):
    found = []
    lines = Lines(found.append)
    lines.feed(b"x" * (3 * logs.MAX_LINE + 5) + end)
    lines.end()
    assert [len(line) for line in found] == [logs.MAX_LINE] * 3 + [5]


async def test_logs_go_out_in_bounded_batches_by_source():
    clock, rpc = FakeClock(), Told()
    outbox = LogOutbox(clock)
    for number in range(1500):
        outbox.put(ONE if number % 2 else TWO, str(number))
    outbox.put(ONE, "y" * logs.MAX_LINE)
    async with running(outbox.send(rpc)):
        await clock.advance(0)
        assert rpc.calls == [], "lines wait for company"
        await clock.advance(logs.GATHER)
        await outbox.flushed()
    sent = rpc.of("BatchCreateLogs")
    assert [(UUID(bytes=each.log_source_id), len(each.logs)) for each in sent] == [(TWO, 750), (ONE, 751)]
    assert [line.output for line in sent[0].logs] == [str(number) for number in range(0, 1500, 2)]


async def test_a_batch_is_bounded_by_bytes():
    clock, rpc = FakeClock(), Told()
    outbox = LogOutbox(clock)
    for _ in range(40):
        outbox.put(ONE, "y" * logs.MAX_LINE)
    async with running(outbox.send(rpc)):
        await clock.advance(logs.GATHER)
        await outbox.flushed()
    assert all(each.ByteSize() < 2 * logs.MAX_BATCH for each in rpc.of("BatchCreateLogs"))
    assert sum(len(each.logs) for each in rpc.of("BatchCreateLogs")) == 40


async def test_what_comes_while_nobody_listens_is_bounded_and_the_gap_is_named():
    clock, rpc = FakeClock(), Told()
    outbox = LogOutbox(clock)
    lines = logs.MAX_WAITING // (100 + logs.LINE_COST)
    for _ in range(lines + 7):
        outbox.put(ONE, "z" * 100)
    async with running(outbox.send(rpc)):
        await clock.advance(1)
        await outbox.flushed()
    sent = [line for each in rpc.of("BatchCreateLogs") for line in each.logs]
    assert len(sent) == lines + 1
    assert sent[-1].output.startswith("7 lines are left out")
    assert sent[-1].level == pb.Log.WARN


async def test_a_server_that_wants_no_more_is_sent_no_more():
    clock, rpc = FakeClock(), Told()
    rpc.answers["BatchCreateLogs"] = pb.BatchCreateLogsResponse(log_limit_exceeded=True)
    outbox = LogOutbox(clock)
    async with running(outbox.send(rpc)):
        for source in (ONE, TWO, ONE):
            outbox.put(source, "a")
            await clock.advance(1)
        await outbox.flushed()
    assert len(rpc.calls) == 1


async def test_lines_survive_the_loss_of_the_connection_and_refused_ones_hold_nothing_up():
    clock = FakeClock()
    outbox = LogOutbox(clock)
    outbox.put(ONE, "a")

    class Gone(Told):
        async def unary(self, *call):
            raise Closed("gone")

    async with running(outbox.send(Gone())) as sending:
        await clock.advance(1)
        with pytest.raises(Closed):
            await sending
    rpc = Told()
    rpc.refused.add("BatchCreateLogs")
    async with running(outbox.send(rpc)):
        await clock.advance(1)
        await outbox.flushed()
    assert len(rpc.calls) == 1


def description(key, script, interval=0, timeout=0):
    made = pb.WorkspaceAgentMetadata.Description(key=key, script=script)
    made.interval.nanos, made.timeout.nanos = interval, timeout
    return made


class Watched(Processes):
    """Says when a command has printed something, and when it has ended."""

    def __init__(self, clock):
        super().__init__(clock)
        self.printed, self.ended = asyncio.Event(), asyncio.Event()

    async def run(self, command, around, output, **options):
        def hear(data):
            output(data)
            self.printed.set()

        ended = await super().run(command, around, hear, **options)
        self.ended.set()
        return ended


@contextlib.asynccontextmanager
async def collecting(tmp_path, *described):
    clock, rpc = FakeClock(), Told()
    processes = Watched(clock)
    async with running(Metadata(described, around(tmp_path, WORD="hi"), processes=processes, clock=clock).report(rpc)):
        yield clock, rpc, processes


def values(rpc):
    return [one for request in rpc.of("BatchUpdateMetadata") for one in request.metadata]


async def test_metadata_is_collected_at_its_interval(tmp_path):
    async with collecting(tmp_path, description("word", 'echo " $WORD "', interval=10)) as (clock, rpc, processes):
        for _ in range(3):
            await processes.ended.wait()
            processes.ended.clear()
            await clock.advance(10)
        found = values(rpc)
    assert [(one.key, one.result.value, one.result.error) for one in found[:3]] == [("word", "hi", "")] * 3
    times = [one.result.collected_at.seconds for one in found]
    assert times[1] - times[0] == times[2] - times[1] == 10


async def test_metadata_without_an_interval_is_collected_once(tmp_path):
    async with collecting(tmp_path, description("once", "echo 1")) as (clock, rpc, processes):
        await processes.ended.wait()
        processes.ended.clear()
        await clock.advance(1000)
        assert not processes.ended.is_set()
        assert [one.result.value for one in values(rpc)] == ["1"]


@pytest.mark.parametrize(
    ("script", "value", "error"),
    [
        ("echo no; exit 4", "no", "failed with exit code 4"),
        ("head -c 5000 /dev/zero | tr '\\0' y", "y" * 2048, "printed more than 2048 bytes; the rest is left out"),
        ("printf 'a\\377b'", "a\N{REPLACEMENT CHARACTER}b", ""),
    ],
)
async def test_metadata_that_goes_wrong_says_how(tmp_path, script, value, error):
    async with collecting(tmp_path, description("a", script)) as (clock, rpc, processes):
        await processes.ended.wait()
        await clock.advance(1)
        [found] = values(rpc)
    assert (found.result.value, found.result.error) == (value, error)


async def test_metadata_that_takes_too_long_is_ended(tmp_path):
    described = description("a", "echo x; exec sleep 1000", interval=10, timeout=2)
    async with collecting(tmp_path, described) as (clock, rpc, processes):
        await processes.printed.wait()
        await clock.advance(2)
        await processes.ended.wait()
        await clock.advance(1)
        [found] = values(rpc)
    assert (found.result.value, found.result.error) == ("x", "took longer than 2 s")


async def test_a_daemon_does_not_hold_metadata_up(tmp_path):
    async with collecting(tmp_path, description("a", "echo x; sleep 1000 &", timeout=500)) as (clock, rpc, processes):
        await processes.printed.wait()
        async with asyncio.timeout(20):
            while not processes.ended.is_set():
                await clock.advance(1)
        await clock.advance(1)
        [found] = values(rpc)
    assert (found.result.value, found.result.error) == ("x", "")


def test_bytes_that_are_no_text_make_no_value_too_long():
    assert len(metadata._value(b"\xff" * 2048).encode()) <= metadata.MAX_VALUE


@pytest.mark.parametrize(("told", "seconds"), [((0, 10), 10), ((7, 0), 7), ((1, 500_000_000), 1.5), ((0, 0), 0)])
def test_both_ways_of_telling_seconds_are_understood(told, seconds):
    made = pb.WorkspaceAgentMetadata.Description()
    made.interval.seconds, made.interval.nanos = told
    assert metadata.seconds(made.interval) == seconds


class App:
    """An app that answers with the status it is told to."""

    def __init__(self):
        self.status = b"200 OK"
        self.requests, self._answering = [], []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        await asyncio.gather(*self._answering)

    async def _answer(self, reader, writer):
        self._answering.append(asyncio.current_task())
        self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 " + self.status + b"\r\nLocation: http://127.0.0.1:1/\r\n\r\n")
        writer.close()


def app(url, threshold=3):
    made = pb.WorkspaceApp(id=ONE.bytes)
    made.healthcheck.url, made.healthcheck.threshold, made.healthcheck.interval.seconds = url, threshold, 5
    return made


class Looking(AppHealth):
    """Says when an app was looked at."""

    def __init__(self, *given):
        super().__init__(*given)
        self.looked = asyncio.Event()

    async def _look(self, check):
        found = await super()._look(check)
        self.looked.set()
        return found


async def test_an_apps_health_changes_at_its_threshold():
    clock, rpc = FakeClock(), Told()

    def told():
        return [pb.AppHealth.Name(one.health) for each in rpc.of("BatchUpdateAppHealths") for one in each.updates]

    async with App() as served:
        health = Looking([app(f"http://127.0.0.1:{served.port}/up?x=1")], clock)

        async def answer(status):
            served.status = status
            health.looked.clear()
            await clock.advance(5)
            await health.looked.wait()
            await clock.advance(0)

        async with running(health.report(rpc)):
            await rpc.until(lambda: told() == ["HEALTHY"])
            assert served.requests[0].startswith("GET /up?x=1 HTTP/1.1\r\nHost: 127.0.0.1:")
            for status in (b"302 Found", b"503 Busy", b"503 Busy"):
                await answer(status)
            assert told() == ["HEALTHY"]
            await answer(b"503 Busy")
            assert told() == ["HEALTHY", "UNHEALTHY"]
            await answer(b"401 Who")
            assert told()[-1] == "HEALTHY"


async def test_an_app_that_does_not_answer_in_time_is_unhealthy():
    clock, rpc = FakeClock(), Told()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        async with running(AppHealth([app(url, 1)], clock).report(rpc)), asyncio.timeout(20):
            while not rpc.calls:
                await clock.advance(5)
    assert rpc.of("BatchUpdateAppHealths")[0].updates[0].health == pb.UNHEALTHY


@pytest.mark.parametrize(
    "url", ["ftp://x/", "http://x y/", "http://x/\r\nA: b", "nothing", "http://[::1", "http://h:99999/"]
)
async def test_a_url_that_cannot_be_asked_is_unhealthy_and_nothing_is_sent(url):
    clock, rpc = FakeClock(), Told()
    async with running(AppHealth([app(url, 1)], clock).report(rpc)):
        await rpc.until(lambda: bool(rpc.calls))
    assert rpc.of("BatchUpdateAppHealths")[0].updates[0].health == pb.UNHEALTHY


async def test_an_app_without_a_check_is_let_be():
    assert app_health.Check.of(pb.WorkspaceApp(id=ONE.bytes)) is None


async def test_reports_keep_their_order_and_only_needed_ones_end_the_session():
    seen = []

    def report(name, *, fail=False):
        async def send(_rpc):
            seen.append(name)
            if fail:
                raise RpcError("no")

        return send

    reports = Reports()
    reports.add(report("a"), needed=True)
    reports.add(report("b", fail=True))
    reports.add(report("c", fail=True), needed=True)
    async with running(reports.send(None)) as sending:
        with pytest.raises(RpcError):
            await sending
    assert seen == ["a", "b", "c"]
    for _ in range(MAX_WAITING + 5):
        reports.add(report("d"))
    with pytest.raises(RpcError):
        await reports.send(None)
    assert seen[3:] == ["c"], "a needed one is not dropped for others"
