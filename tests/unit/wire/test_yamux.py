"""yamux, as scripts: in goes this, out must come that."""

import struct

import pytest

from coder.errors import Closed, Misuse, PeerMisbehaved, TimedOut, TooMany
from coder.wire import yamux
from coder.wire.yamux import Finished, GoneAway, Limits, Opened, Ponged, Received, Reset, Session, Writable

DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8


def frame(kind, flags=0, stream=0, length=0, payload=b"", *, version=0):
    return struct.pack(">BBHII", version, kind, flags, stream, length) + payload


def data(stream, payload, flags=0):
    return frame(DATA, flags, stream, len(payload), payload)


def client(**limits):
    return Session(client=True, now=0.0, limits=Limits(**limits))


def server(**limits):
    return Session(client=False, now=0.0, limits=Limits(**limits))


def opened_client():
    """A client with stream 1 open and acknowledged."""
    session = client()
    assert session.open() == 1
    session.receive(frame(WINDOW, ACK, 1), 0.0)
    session.take()
    return session


def opened_server():
    session = server()
    session.receive(frame(WINDOW, SYN, 1), 0.0)
    session.take()
    return session


def test_the_client_opens_odd_streams_and_sends_at_once():
    session = client()
    assert [session.open(), session.open()] == [1, 3]
    assert session.send(1, b"hello") == 5
    assert session.pending == 12 + 12 + 17
    assert session.take() == frame(WINDOW, SYN, 1) + frame(WINDOW, SYN, 3) + data(1, b"hello")
    assert session.take() == b""


def test_the_server_opens_even_streams():
    assert server().open() == 2


@pytest.mark.parametrize("opening", [frame(WINDOW, SYN, 1), data(1, b"", SYN)])
def test_a_stream_is_acknowledged_at_once(opening):
    session = server()
    assert session.receive(opening, 0.0) == [Opened(1)]
    assert session.take() == frame(WINDOW, ACK, 1)


def test_a_stream_may_come_with_window_data_and_its_end():
    session = server()
    assert session.receive(data(1, b"all", SYN | FIN), 0.0) == [Opened(1), Received(1, b"all"), Finished(1)]


def test_data_may_acknowledge():
    session = client()
    session.open()
    assert session.receive(data(1, b"x", ACK), 0.0) == [Received(1, b"x")]


def test_pieces_of_any_size_read_alike():
    wire = frame(WINDOW, SYN, 1) + data(1, b"hello world") + frame(WINDOW, FIN, 1)
    for size in (1, 2, 5, 11, 12, 13, len(wire)):
        session = server()
        events = [e for i in range(0, len(wire), size) for e in session.receive(wire[i : i + size], 0.0)]
        assert events[0] == Opened(1)
        assert events[-1] == Finished(1)
        assert b"".join(e.data for e in events if isinstance(e, Received)) == b"hello world"


def test_nothing_is_sent_beyond_the_window_until_it_grows():
    session = opened_client()
    assert session.send(1, bytes(yamux.WINDOW + 10)) == yamux.WINDOW
    assert session.send(1, b"more") == 0
    assert session.receive(frame(WINDOW, 0, 1, 10), 0.0) == [Writable(1)]
    assert session.send(1, bytes(11)) == 10


def test_data_frames_are_cut():
    session = opened_client()
    session.send(1, bytes(yamux.MAX_FRAME + 1))
    assert session.take() == data(1, bytes(yamux.MAX_FRAME)) + data(1, b"\0")


def test_window_returns_when_half_of_it_is_free():
    session = opened_server()
    half = yamux.WINDOW // 2
    session.receive(data(1, bytes(half)), 0.0)
    session.consumed(1, half - 1)
    assert session.take() == b""
    session.consumed(1, 1)
    assert session.take() == frame(WINDOW, 0, 1, half)
    assert session.receive(data(1, bytes(yamux.WINDOW)), 0.0)


def test_consuming_more_than_came_is_a_bug_of_ours():
    with pytest.raises(Misuse):
        opened_server().consumed(1, 1)


def test_more_data_than_the_window_ends_the_session_before_it_is_read():
    session = opened_server()
    with pytest.raises(PeerMisbehaved, match="window"):
        session.receive(frame(DATA, 0, 1, yamux.WINDOW + 1), 0.0)
    assert session.take() == frame(GO_AWAY, 0, 0, 1)
    with pytest.raises(Closed):
        session.receive(b"", 0.0)
    assert session.deadline() is None


def test_both_ends_finish():
    session = opened_client()
    session.finish(1)
    session.finish(1)
    assert session.take() == frame(WINDOW, FIN, 1)
    with pytest.raises(Closed):
        session.send(1, b"x")
    assert session.receive(data(1, b"still") + frame(WINDOW, FIN, 1), 0.0) == [Received(1, b"still"), Finished(1)]
    with pytest.raises(Closed):
        session.send(1, b"x")


def test_a_finished_peer_still_reads():
    session = opened_server()
    session.receive(frame(WINDOW, FIN, 1), 0.0)
    assert session.send(1, b"answer") == 6
    session.take()
    session.finish(1)
    assert session.take() == frame(WINDOW, FIN, 1)
    assert session.receive(data(1, b"late"), 0.0) == []


def test_reset_from_either_side():
    session = opened_server()
    session.reset(1)
    session.reset(1)
    assert session.take() == frame(WINDOW, RST, 1)
    assert session.receive(data(1, b"x") + frame(WINDOW, 0, 1, 5) + frame(WINDOW, RST, 1), 0.0) == []
    session.receive(frame(WINDOW, SYN, 3), 0.0)
    assert session.receive(frame(WINDOW, RST, 3), 0.0) == [Reset(3)]


def test_frames_of_unknown_streams_are_drained():
    session = server()
    assert session.receive(data(7, bytes(100_000), FIN) + frame(WINDOW, ACK, 9, 5) + frame(WINDOW, SYN, 1), 0.0) == [
        Opened(1)
    ]


def test_a_huge_frame_for_an_unknown_stream_holds_nothing():
    session = server()
    assert session.receive(frame(DATA, 0, 7, 2**32 - 1) + bytes(1000), 0.0) == []


def test_more_streams_than_allowed_are_reset():
    session = server(streams=2)
    session.receive(frame(WINDOW, SYN, 1) + frame(WINDOW, SYN, 3), 0.0)
    session.take()
    assert session.receive(frame(WINDOW, SYN, 5) + data(5, b"x"), 0.0) == []
    assert session.take() == frame(WINDOW, RST, 5)
    session.receive(frame(WINDOW, RST, 1), 0.0)
    assert session.receive(frame(WINDOW, SYN, 7), 0.0) == [Opened(7)]


def test_no_more_than_the_backlog_is_opened_unacknowledged():
    session = client(unacknowledged=2)
    session.open()
    session.open()
    with pytest.raises(TooMany):
        session.open()
    session.receive(frame(WINDOW, ACK, 1), 0.0)
    assert session.open() == 5
    session.reset(5)
    assert session.open() == 7


def test_pings_are_answered_with_their_value():
    session = server()
    assert session.receive(frame(PING, SYN, 0, 0xDEADBEEF), 0.0) == []
    assert session.take() == frame(PING, ACK, 0, 0xDEADBEEF)


def test_own_pings_measure_the_round_trip():
    session = client()
    session.ping(1.0)
    session.ping(2.0)
    assert session.take() == frame(PING, SYN, 0, 0) + frame(PING, SYN, 0, 1)
    assert session.receive(frame(PING, ACK, 0, 1) + frame(PING, ACK, 0, 77), 2.5) == [Ponged(0.5)]


def test_keepalive_pings_every_30_seconds_and_gives_up_10_later():
    session = client()
    assert session.deadline() == 30.0
    session.tick(29.0)
    assert session.take() == b""
    session.tick(30.0)
    assert session.take() == frame(PING, SYN, 0, 0)
    assert session.deadline() == 40.0
    session.receive(frame(PING, ACK, 0, 0), 39.9)
    assert session.deadline() == 60.0
    session.tick(60.0)
    session.tick(69.9)
    with pytest.raises(TimedOut):
        session.tick(70.0)
    with pytest.raises(Closed):
        session.open()


def test_an_unacknowledged_stream_ends_the_session_after_75_seconds():
    session = client(keepalive=None)
    session.open()
    assert session.deadline() == 75.0
    session.tick(74.9)
    with pytest.raises(TimedOut):
        session.tick(75.0)


def test_a_stream_that_the_peer_does_not_finish_is_reset_after_5_minutes():
    session = client(keepalive=None)
    session.open()
    session.receive(frame(WINDOW, ACK, 1), 5.0)
    session.finish(1)
    session.take()
    assert session.deadline() == 305.0
    assert session.tick(305.0) == [Reset(1)]
    assert session.take() == frame(WINDOW, RST, 1)
    assert session.deadline() is None


def test_after_go_away_nothing_new_is_opened():
    session = opened_client()
    assert session.receive(frame(GO_AWAY, 0, 0, 0), 0.0) == [GoneAway(0)]
    with pytest.raises(Closed):
        session.open()
    assert session.send(1, b"going on") == 8
    session.go_away()
    assert session.take()[-12:] == frame(GO_AWAY)


@pytest.mark.parametrize(
    "wrong",
    [
        frame(WINDOW, SYN, 1, version=1),
        frame(4),
        frame(255, 255, 255, 255),
        frame(WINDOW, SYN, 2),
        frame(WINDOW, SYN, 0),
        frame(WINDOW, SYN, 1) * 2,
        frame(WINDOW, SYN, 1) + frame(WINDOW, FIN, 1) * 2,
        frame(WINDOW, SYN, 1) + frame(WINDOW, FIN, 1) + data(1, b"x"),
        frame(WINDOW, SYN, 1) + frame(WINDOW, 0, 1, 2**32 - 1),
        data(1, bytes(yamux.WINDOW + 1), SYN),
    ],
)
def test_what_the_protocol_forbids_ends_the_session(wrong):
    session = server()
    with pytest.raises(PeerMisbehaved, match="yamux"):
        session.receive(wrong, 0.0)
    assert session.take().endswith(frame(GO_AWAY, 0, 0, 1))


def test_a_client_takes_no_odd_streams():
    with pytest.raises(PeerMisbehaved):
        client().receive(frame(WINDOW, SYN, 1), 0.0)


def test_flipped_bits_and_cuts_raise_nothing_else():
    wire = frame(WINDOW, SYN, 1) + data(1, b"hello") + frame(PING, SYN, 0, 9) + frame(WINDOW, FIN, 1)
    for bit in range(8 * len(wire)):
        flipped = bytearray(wire)
        flipped[bit // 8] ^= 1 << bit % 8
        session = server()
        try:
            session.receive(bytes(flipped), 0.0)
        except PeerMisbehaved:
            assert session.take().endswith(frame(GO_AWAY, 0, 0, 1))
    for length in range(len(wire)):
        session = server()
        session.receive(wire[:length], 0.0)
        assert session.receive(wire[length:], 0.0)[-1] == Finished(1)
