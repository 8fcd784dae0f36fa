"""dRPC frames, packets and the two ends of a call."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coder.errors import Closed, Misuse, PeerMisbehaved
from coder.wire import drpc
from coder.wire.drpc import (
    CallClosed,
    ClientCall,
    Failed,
    Invoked,
    Kind,
    Message,
    Packet,
    PacketReader,
    SendClosed,
    ServerCall,
)

FRAMES = [
    ("invoke", "03 01 01 02 2f78", Packet(Kind.INVOKE, 1, 1, b"/x")),
    ("empty message", "05 01 02 00", Packet(Kind.MESSAGE, 1, 2)),
    ("message", "05 01 02 03 616263", Packet(Kind.MESSAGE, 1, 2, b"abc")),
    ("close send", "0d 01 03 00", Packet(Kind.CLOSE_SEND, 1, 3)),
    ("close", "0b 01 04 00", Packet(Kind.CLOSE, 1, 4)),
    ("unimplemented", "07 01 01 09 000000000000000c55", Packet(Kind.ERROR, 1, 1, b"\0\0\0\0\0\0\0\x0cU")),
    ("large ids", "05 ac02 ffffffffffffffffff01 00", Packet(Kind.MESSAGE, 300, 2**64 - 1)),
    ("soft cancel", "89 01 05 00", Packet(Kind.CANCEL, 1, 5, control=True)),
    ("unknown kind", "15 01 05 00", Packet(10, 1, 5)),
]


def call_pair():
    return ClientCall(), ServerCall()


@pytest.mark.parametrize(("text", "packet"), [row[1:] for row in FRAMES], ids=[row[0] for row in FRAMES])
def test_frames_forwards_backwards_and_in_pieces(text, packet):
    wire = bytes.fromhex(text)
    assert drpc.encode(packet) == wire
    assert PacketReader().feed(wire) == [packet]
    reader = PacketReader()
    assert [p for i in range(len(wire)) for p in reader.feed(wire[i : i + 1])] == [packet]
    assert reader.buffered == 0
    for length in range(len(wire)):
        assert PacketReader().feed(wire[:length]) == []


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 200_000, drpc.MAX_PACKET])
def test_packets_are_split_at_64_kib_and_joined(size):
    packet = Packet(Kind.MESSAGE, 1, 1, bytes(size))
    wire = drpc.encode(packet)
    assert len(wire) <= size + 6 * (size // drpc.SPLIT + 1)
    assert PacketReader().feed(wire) == [packet]


def test_a_packet_beyond_4_mib_is_neither_written_nor_read():
    with pytest.raises(Misuse):
        drpc.encode(Packet(Kind.MESSAGE, 1, 1, bytes(drpc.MAX_PACKET + 1)))
    piece = b"\x04\x01\x01\x80\x80\x04" + bytes(65536)
    reader = PacketReader()
    for _ in range(64):
        assert reader.feed(piece) == []
    assert reader.buffered == drpc.MAX_PACKET
    with pytest.raises(PeerMisbehaved):
        reader.feed(piece)


def test_an_announced_length_is_refused_before_its_bytes_come():
    with pytest.raises(PeerMisbehaved):
        PacketReader().feed(bytes.fromhex("05 01 01 ffffffff0f"))


def test_a_newer_packet_discards_an_unfinished_one():
    assert PacketReader().feed(bytes.fromhex("04 01 01 01 61  05 01 02 01 62")) == [Packet(Kind.MESSAGE, 1, 2, b"b")]


@pytest.mark.parametrize(
    "text",
    [
        "05 01 02 00 05 01 01 00",  # an id that goes back
        "05 01 01 00 05 01 01 00",  # an id that comes again
        "05 02 01 00 05 01 02 00",  # a stream that goes back
        "04 01 01 00 0d 01 01 00",  # a packet that changes its kind
        "05 00 01 00",
        "05 01 00 00",
        "05 01 01 ffffffffffffffffffff01",  # a number beyond 64 bits
        "05 ffffffffffffffffff02 01 00",
    ],
)
def test_what_the_format_forbids(text):
    with pytest.raises(PeerMisbehaved, match="drpc"):
        PacketReader().feed(bytes.fromhex(text))


def test_a_unary_call_byte_for_byte():
    client, server = call_pair()
    request = client.invoke("/x") + client.send(b"ab") + client.close_send()
    assert request == bytes.fromhex("03 01 01 02 2f78  05 01 02 02 6162  0d 01 03 00")
    assert server.receive(request) == [Invoked("/x"), Message(b"ab"), SendClosed()]
    response = server.send(b"c") + server.close_send()
    assert response == bytes.fromhex("05 01 01 01 63  0d 01 02 00")
    assert client.receive(response) == [Message(b"c"), SendClosed()]
    assert client.ended
    assert server.ended
    assert client.close() == bytes.fromhex("0b 01 04 00")
    assert client.close() == b""
    assert server.receive(bytes.fromhex("0b 01 04 00")) == []


def test_streams_of_messages_until_the_server_closes():
    client, server = call_pair()
    server.receive(client.invoke("/x") + client.send(b"1") + client.send(b"2"))
    assert client.receive(server.send(b"a") + server.send(b"b") + server.close()) == [
        Message(b"a"),
        Message(b"b"),
        CallClosed(),
    ]
    assert client.close() == b""
    with pytest.raises(Closed):
        client.send(b"3")


def test_an_error_ends_the_call():
    client, server = call_pair()
    server.receive(client.invoke("/x"))
    assert client.receive(server.fail(12, "Unimplemented") + bytes.fromhex("05 01 09 00")) == [
        Failed(12, "Unimplemented")
    ]
    assert client.ended
    assert server.fail(0, "again") == b""
    assert server.close_send() == b""
    with pytest.raises(Closed):
        server.send(b"")


def test_metadata_before_the_call_is_accepted():
    metadata = drpc.encode(Packet(Kind.INVOKE_METADATA, 1, 1, b"\x0a\x06\x0a\x01k\x12\x01v"))
    assert ServerCall().receive(metadata + drpc.encode(Packet(Kind.INVOKE, 1, 2, b"/x"))) == [Invoked("/x")]


def test_the_client_cancels_with_a_control_frame():
    client, server = call_pair()
    server.receive(client.invoke("/x"))
    assert server.receive(bytes.fromhex("89 01 02 00")) == [CallClosed()]


def test_unknown_kinds_with_the_control_bit_are_ignored():
    server = ServerCall()
    assert server.receive(bytes.fromhex("95 01 01 00 03 01 02 02 2f78")) == [Invoked("/x")]


@pytest.mark.parametrize(
    "text",
    [
        "05 01 01 00",  # a message before Invoke
        "0d 01 01 00",
        "03 01 01 01 78 03 01 02 01 78",  # Invoke twice
        "03 01 01 01 78 0d 01 02 00 05 01 03 00",  # a message after CloseSend
        "03 01 01 01 78 05 02 01 00",  # a second call on the stream
        "03 01 01 01 78 15 01 02 00",  # an unknown kind
        "03 01 01 01 78 07 01 02 00",  # an error without a code
        "03 01 01 01 ff",  # a name that is no text
    ],
)
def test_what_a_client_must_not_send(text):
    with pytest.raises(PeerMisbehaved, match="drpc"):
        ServerCall().receive(bytes.fromhex(text))


def test_a_server_must_not_invoke():
    client = ClientCall()
    client.invoke("/x")
    with pytest.raises(PeerMisbehaved):
        client.receive(bytes.fromhex("03 01 01 01 78"))


def test_a_call_is_invoked_once_and_first():
    client = ClientCall()
    with pytest.raises(Closed):
        client.send(b"")
    assert client.close() == b""
    client.invoke("/x")
    with pytest.raises(Closed):
        client.invoke("/x")


@given(st.binary(max_size=64))
def test_garbage_is_read_or_refused(garbage):
    call = ServerCall()
    with contextlib.suppress(PeerMisbehaved):
        call.receive(garbage)


@given(st.lists(st.binary(max_size=200), max_size=8), st.integers(1, 50))
def test_messages_arrive_whole_however_they_are_cut(messages, size):
    client, server = call_pair()
    wire = client.invoke("/x") + b"".join(client.send(m) for m in messages) + client.close_send()
    events = [e for i in range(0, len(wire), size) for e in server.receive(wire[i : i + size])]
    assert events == [Invoked("/x"), *map(Message, messages), SendClosed()]
