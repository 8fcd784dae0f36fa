"""Calls between a client and a server over a pipe."""

import asyncio
import contextlib
import logging
import struct

import pytest
from fakes.pipe import pipe, running, settle

from coder.clock import FakeClock
from coder.errors import Closed, Forbidden, PeerMisbehaved, RpcError, RpcUnimplemented, StreamReset, TimedOut, TooMany
from coder.rpc.client import RpcClient
from coder.rpc.handlers import ServerStreaming, Streaming, Unary
from coder.rpc.server import serve
from coder.wire.proto.tailnet_pb2 import (
    CoordinateRequest,
    CoordinateResponse,
    RefreshResumeTokenResponse,
    TelemetryRequest,
)


def asked(size=1):
    message = CoordinateRequest()
    message.add_tunnel.id = bytes(size)
    return message


class Service:
    """Handlers that take notes."""

    def __init__(self):
        self.seen = []
        self.cancelled = asyncio.Event()
        self.started = asyncio.Event()
        self.gate = asyncio.Event()
        self.handlers = {
            "/unary": Unary(CoordinateRequest, self.unary),
            "/echo": Streaming(CoordinateRequest, self.echo),
            "/count": Streaming(CoordinateRequest, self.count),
            "/forbidden": Unary(CoordinateRequest, self.forbidden),
            "/coded": Unary(CoordinateRequest, self.coded),
            "/broken": Unary(CoordinateRequest, self.broken),
            "/stuck": Unary(CoordinateRequest, self.stuck),
            "/deaf": Streaming(CoordinateRequest, self.deaf),
            "/large": Unary(CoordinateRequest, self.large),
        }

    async def unary(self, ctx, request):
        self.seen.append((ctx.rpc, len(request.add_tunnel.id)))
        return CoordinateResponse(error=str(len(request.add_tunnel.id)))

    async def echo(self, ctx, requests, send):
        async for request in requests:
            self.seen.append(len(request.add_tunnel.id))
            await send(CoordinateResponse(error=str(len(request.add_tunnel.id))))

    async def count(self, ctx, requests, send):
        async for request in requests:
            for number in range(len(request.add_tunnel.id)):
                await send(CoordinateResponse(error=str(number)))

    async def forbidden(self, ctx, request):
        raise Forbidden("not yours")

    async def coded(self, ctx, request):
        raise RpcError("special", code=42)

    async def broken(self, ctx, request):
        raise ZeroDivisionError("secret inside")

    async def stuck(self, ctx, request):
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def deaf(self, ctx, requests, send):
        self.started.set()
        await self.gate.wait()
        async for request in requests:
            self.seen.append(len(request.add_tunnel.id))

    async def large(self, ctx, request):
        return CoordinateResponse(error="x" * (3 << 20))


@contextlib.asynccontextmanager
async def connected(**options):
    service, (ours, theirs) = Service(), pipe()
    async with running(serve(theirs, service.handlers, **options)) as server, RpcClient(ours) as rpc:
        service.server, service.pipes = server, (ours, theirs)
        yield rpc, service


async def test_a_unary_call():
    async with connected() as (rpc, service):
        assert (await rpc.unary("/unary", asked(3), CoordinateResponse)).error == "3"
        assert service.seen == [("/unary", 3)]


async def test_messages_larger_than_any_window_pass_both_ways():
    async with connected() as (rpc, service):
        assert (await rpc.unary("/unary", asked(3 << 20), CoordinateResponse)).error == str(3 << 20)
        assert len((await rpc.unary("/large", asked(), CoordinateResponse)).error) == 3 << 20
        assert max(service.pipes[0].sent + service.pipes[1].sent) <= 256 * 1024


async def test_many_calls_at_once():
    async with connected() as (rpc, _):
        answers = await asyncio.gather(*(rpc.unary("/unary", asked(n), CoordinateResponse) for n in range(200)))
        assert [a.error for a in answers] == [str(n) for n in range(200)]


async def test_calls_one_after_another_leave_nothing_behind():
    async with connected() as (rpc, _):
        for _ in range(600):
            await rpc.unary("/unary", asked(), CoordinateResponse)
        await settle()
        assert not rpc._mux._streams


async def test_a_conversation():
    async with connected() as (rpc, _), rpc.stream("/echo", None, CoordinateResponse) as call:
        for size in (1, 70_000, 0):
            await call.send(asked(size))
            assert (await anext(call)).error == str(size)
        await call.close_send()
        assert [response async for response in call] == []
        with pytest.raises(Closed):
            await call.send(asked())


async def test_a_stream_of_answers():
    async with connected() as (rpc, _):
        answers = [r.error async for r in rpc.stream("/count", asked(500), CoordinateResponse)]
        assert answers == [str(n) for n in range(500)]


async def test_concurrent_senders_do_not_mix_their_messages():
    async with connected() as (rpc, service), rpc.stream("/echo", None, CoordinateResponse) as call:
        sizes = [300_000, 5, 400_000, 7]
        await asyncio.gather(*(call.send(asked(size)) for size in sizes))
        assert sorted([int((await anext(call)).error) for _ in sizes]) == sorted(sizes)
        assert sorted(service.seen) == sorted(sizes)


async def test_an_unknown_call_is_unimplemented():
    async with connected() as (rpc, _):
        with pytest.raises(RpcUnimplemented) as caught:
            await rpc.unary("/nothing", asked(), CoordinateResponse)
        assert caught.value.code == 12
        assert (await rpc.unary("/unary", asked(), CoordinateResponse)).error == "1"


async def test_a_refusal_travels_as_its_text():
    async with connected() as (rpc, _):
        with pytest.raises(RpcError, match="not yours") as caught:
            await rpc.unary("/forbidden", asked(), CoordinateResponse)
        assert caught.value.code == 0
        with pytest.raises(RpcError, match="special") as caught:
            await rpc.unary("/coded", asked(), CoordinateResponse)
        assert caught.value.code == 42


async def test_a_bug_is_logged_once_and_not_told(caplog):
    async with connected() as (rpc, _):
        with pytest.raises(RpcError, match=r"^internal error$"):
            await rpc.unary("/broken", asked(), CoordinateResponse)
        assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == ["rpc.handler_failed"]


async def test_a_request_of_another_type_fails_its_call():
    async with connected() as (rpc, service), rpc.stream("/echo", None, CoordinateResponse) as call:

        class Raw:
            def SerializeToString(self):  # noqa: N802
                return b"\xff\xff"

        await call.send(Raw())
        with pytest.raises(RpcError, match="CoordinateRequest"):
            await anext(call)
        assert service.seen == []


async def test_an_answer_of_another_type_is_the_servers_fault():
    async def liar(ctx, request):
        return CoordinateRequest(update_self={"node": {"key": b"\xff"}})  # no text where a text belongs

    ours, theirs = pipe()
    handlers = {"/liar": Unary(TelemetryRequest, liar)}
    async with running(serve(theirs, handlers)), RpcClient(ours) as rpc:
        with pytest.raises(PeerMisbehaved, match="RefreshResumeTokenResponse"):
            await rpc.unary("/liar", TelemetryRequest(), RefreshResumeTokenResponse)


async def test_cancelling_a_call_cancels_its_handler_and_nothing_else():
    async with connected() as (rpc, service):
        call = asyncio.create_task(rpc.unary("/stuck", asked(), CoordinateResponse))
        await service.started.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await service.cancelled.wait()
        assert (await rpc.unary("/unary", asked(), CoordinateResponse)).error == "1"


async def test_closing_a_half_sent_call_resets_it():
    async with connected() as (rpc, service):
        call = rpc.stream("/deaf", None, CoordinateResponse)
        sending = asyncio.create_task(call.send(asked(4_000_000)))
        await settle()
        service.pipes[0].hold()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        with pytest.raises(Closed, match="in part"):
            await call.send(asked())
        call.close()
        service.pipes[0].flowing.set()
        assert (await rpc.unary("/unary", asked(), CoordinateResponse)).error == "1"


async def test_what_came_before_the_hang_up_is_still_handled():
    async with connected() as (rpc, service):
        call = rpc.stream("/deaf", None, CoordinateResponse)
        for size in (1, 2, 3):
            await call.send(asked(size))
        await service.started.wait()
        call.close()
        await settle()
        service.gate.set()
        await settle()
        assert service.seen == [1, 2, 3]


async def test_a_handler_that_does_not_read_slows_its_caller_only():
    async with connected() as (rpc, service), rpc.stream("/deaf", None, CoordinateResponse) as call:
        sent = 0

        async def flood():
            nonlocal sent
            while sent < 100:
                await call.send(asked(100_000))
                sent += 1

        async with running(flood()) as flooding:
            await settle(500)
            assert sent < 30
            assert (await rpc.unary("/unary", asked(), CoordinateResponse)).error == "1"
            service.gate.set()
            await flooding
        await call.close_send()
        assert [r async for r in call] == []
        assert service.seen[1:] == [100_000] * 100


async def test_a_lost_connection_ends_every_call_on_both_ends():
    async with connected() as (rpc, service):
        call = asyncio.create_task(rpc.unary("/stuck", asked(), CoordinateResponse))
        await service.started.wait()
        service.pipes[0].cut()
        with pytest.raises(Closed):
            await call
        await service.cancelled.wait()
        assert await service.server is None
        assert await rpc.wait_closed() is None
        with pytest.raises(Closed):
            await rpc.unary("/unary", asked(), CoordinateResponse)


async def test_leaving_the_client_closes_the_channel():
    async with connected() as (rpc, service):
        await rpc.unary("/unary", asked(), CoordinateResponse)
        await rpc.close()
        assert service.pipes[0].closed
        assert await service.server is None


async def test_cancelling_the_server_closes_the_channel():
    async with connected() as (rpc, service):
        call = asyncio.create_task(rpc.unary("/stuck", asked(), CoordinateResponse))
        await service.started.wait()
        service.server.cancel()
        with pytest.raises(Closed):
            await call
        assert service.cancelled.is_set()
        assert service.pipes[1].closed


async def test_garbage_ends_its_own_channel():
    ours, theirs = pipe()
    async with running(serve(theirs, {})) as server:
        await ours.send(b"\xff" * 100)
        assert isinstance(await server, PeerMisbehaved)
        assert (await ours.recv())[:2] == b"\x00\x03"
        assert theirs.closed


async def test_a_broken_call_is_reset_and_the_channel_lives():
    async with connected() as (rpc, _):
        stream = rpc._mux.open()
        await stream.send(b"\xff" * 40)
        with pytest.raises(StreamReset):
            await stream.receive()
        assert (await rpc.unary("/unary", asked(), CoordinateResponse)).error == "1"


async def test_a_peer_cannot_make_us_hold_more_than_a_bound():
    async with connected() as (rpc, service):
        calls = [rpc.stream("/deaf", None, CoordinateResponse) for _ in range(24)]
        results = await asyncio.gather(*(call.send(asked(3_900_000)) for call in calls), return_exceptions=True)
        assert {type(result) for result in results} == {Closed}
        assert isinstance(await service.server, TooMany)


async def test_pings_are_reported_and_missing_answers_end_the_channel():
    clock, pings = FakeClock(), []
    ours, theirs = pipe()

    async def pinged(rtt):
        pings.append(clock.monotonic())

    serving = serve(theirs, {}, ping_every=15.0, on_ping=pinged, clock=clock)
    async with running(serving) as server, RpcClient(ours, clock=clock) as rpc:
        await clock.advance(50)
        assert pings == [15, 30, 45]
        ours.hold()
        await clock.advance(20)
        assert isinstance(await server, TimedOut)
        ours.flowing.set()
        await settle()
        await rpc.wait_closed()


async def test_a_channel_that_is_asked_for_a_sign_of_life_ends_without_one():
    clock = FakeClock()
    ours, theirs = pipe()
    async with running(serve(theirs, {}, clock=clock)), RpcClient(ours, clock=clock) as rpc:
        await rpc.check(1.0)
        ours.hold()
        asked = asyncio.ensure_future(rpc.check(1.0))
        await clock.advance(0.9)
        assert not asked.done()
        await clock.advance(0.2)
        with pytest.raises(TimedOut):
            await asked
        ours.flowing.set()
        assert isinstance(await rpc.wait_closed(), TimedOut)
        with pytest.raises(Closed):
            await rpc.check(1.0)


async def test_what_on_ping_raises_ends_the_channel():
    clock = FakeClock()
    ours, theirs = pipe()

    async def outdated(rtt):
        raise Closed("a newer build exists")

    async with running(serve(theirs, {}, ping_every=1.0, on_ping=outdated, clock=clock)) as server, RpcClient(ours):
        await clock.advance(1)
        fault = await server
        assert str(fault) == "a newer build exists"


async def test_streams_that_the_server_opens_are_refused():
    ours, theirs = pipe()
    async with RpcClient(ours):
        await theirs.send(bytes.fromhex("00 01 0001 00000002 00000000"))
        assert await theirs.recv() == bytes.fromhex("00 01 0002 00000002 00000000 00 01 0008 00000002 00000000")


async def test_older_servers_word_for_an_unknown_call_counts_as_unimplemented():
    async def old(ctx, request):
        raise RpcError('protocol error: unknown rpc: "/x"')

    ours, theirs = pipe()
    async with running(serve(theirs, {"/x": Unary(CoordinateRequest, old)})), RpcClient(ours) as rpc:
        with pytest.raises(RpcUnimplemented):
            await rpc.unary("/x", asked(), CoordinateResponse)


async def test_a_call_that_ends_without_an_answer():
    async with connected() as (rpc, _):
        with pytest.raises(Closed, match="without a response"):
            await rpc.unary("/count", asked(0), CoordinateResponse)


async def test_answers_before_an_error_are_not_lost():
    async def partly(ctx, requests, send):
        await send(CoordinateResponse(error="one"))
        await send(CoordinateResponse(error="two"))
        raise Forbidden("no more")

    ours, theirs = pipe()
    async with running(serve(theirs, {"/partly": Streaming(CoordinateRequest, partly)})), RpcClient(ours) as rpc:
        call = rpc.stream("/partly", asked(), CoordinateResponse)
        await settle()
        assert [(await anext(call)).error, (await anext(call)).error] == ["one", "two"]
        with pytest.raises(RpcError, match="no more"):
            await anext(call)


async def test_what_still_arrives_for_an_abandoned_call_is_dropped():
    async def endless(ctx, requests, send):
        while True:
            await send(CoordinateResponse(error="x" * 50_000))

    ours, theirs = pipe()
    handlers = {"/endless": Streaming(CoordinateRequest, endless), "/unary": Unary(CoordinateRequest, Service().unary)}
    async with running(serve(theirs, handlers)), RpcClient(ours) as rpc:
        for _ in range(20):
            async with rpc.stream("/endless", asked(), CoordinateResponse) as call:
                await anext(call)
        assert (await rpc.unary("/unary", asked(), CoordinateResponse)).error == "1"
        await settle()
        assert not rpc._mux._streams


async def test_a_stream_from_the_server_ends_with_its_caller_without_a_wait(monkeypatch):
    monkeypatch.setattr("coder.rpc.server._GRACE", 3600)
    ended = asyncio.Event()

    async def forever(ctx, request, send):
        await send(CoordinateResponse(error=str(len(request.add_tunnel.id))))
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    ours, theirs = pipe()
    handlers = {"/forever": ServerStreaming(CoordinateRequest, forever)}
    async with running(serve(theirs, handlers)), RpcClient(ours) as rpc:
        async with rpc.stream("/forever", asked(3), CoordinateResponse) as call:
            assert (await anext(call)).error == "3"
        await ended.wait()


@pytest.mark.parametrize(
    "answer",
    [
        "03 01 01 01 78",  # the server invokes
        "ff" * 40,
    ],
)
async def test_a_server_that_breaks_a_call_breaks_only_that(answer):
    ours, theirs = pipe()
    async with RpcClient(ours) as rpc:
        call = asyncio.create_task(rpc.unary("/x", asked(), CoordinateResponse))
        await settle()
        body = bytes.fromhex(answer)
        await theirs.send(bytes.fromhex("00 00 0002 00000001") + len(body).to_bytes(4, "big") + body)
        with pytest.raises(PeerMisbehaved, match="drpc"):
            await call
        await settle()
        assert rpc._mux.open().number == 3


async def test_a_server_that_finishes_without_an_answer():
    ours, theirs = pipe()
    async with RpcClient(ours) as rpc:
        call = asyncio.create_task(rpc.unary("/x", asked(), CoordinateResponse))
        await settle()
        await theirs.send(bytes.fromhex("00 01 0006 00000001 00000000"))
        with pytest.raises(Closed, match="without finishing"):
            await call


@pytest.mark.parametrize(("code", "fault"), [(0, None), (1, PeerMisbehaved)])
async def test_the_peer_goes_away(code, fault):
    ours, theirs = pipe()
    async with RpcClient(ours) as rpc:
        await theirs.send(bytes.fromhex(f"00 03 0000 00000000 0000000{code}"))
        await settle()
        with pytest.raises(Closed):
            await rpc.unary("/x", asked(), CoordinateResponse)
        if fault is not None:
            assert isinstance(await rpc.wait_closed(), fault)


async def test_a_peer_that_does_not_take_our_last_words_is_left(monkeypatch):
    monkeypatch.setattr("coder.rpc.mux._LAST_WORDS", 0.0)
    ours, theirs = pipe()
    theirs.hold()
    async with running(serve(theirs, {})) as server:
        await ours.send(b"\xff" * 12)
        assert isinstance(await server, PeerMisbehaved)
        assert theirs.closed


async def test_a_client_that_was_never_entered_has_nothing_to_close():
    rpc = RpcClient(pipe()[0])
    await rpc.close()
    assert await rpc.wait_closed() is None


def flood(count):
    """Open and cut off streams, in one message."""
    header = struct.Struct(">BBHII")
    frames = ((0, 1, flag, 2 * number + 1, 0) for number in range(count) for flag in (1, 8))
    return b"".join(header.pack(*frame) for frame in frames)


async def test_a_message_of_many_frames_leaves_others_their_turn():
    ours, theirs = pipe()
    async with running(serve(theirs, {}, clock=FakeClock())) as server:
        await ours.send(flood(2000))
        await settle(200)
        assert not server.done()
        assert sum(theirs.sent) >= 2000 * 12
        assert max(theirs.sent) <= 4096  # each part was answered before the next one was looked at


async def test_a_peer_that_opens_streams_without_end_is_left():
    ours, theirs = pipe()
    async with running(serve(theirs, {}, clock=FakeClock())) as server:
        await ours.send(flood(2049))
        fault = await server
    assert isinstance(fault, PeerMisbehaved)
    assert "2048 streams" in str(fault)
