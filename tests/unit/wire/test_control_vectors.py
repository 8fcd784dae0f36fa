"""Recorded sessions of real peers, read and written again."""

import json
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from google.protobuf.message import Message

from coder.wire import drpc, yamux
from coder.wire.proto import agent_pb2, tailnet_pb2

CONTROL = Path(__file__).parents[3] / "vectors/control"
SESSIONS = json.loads((CONTROL / "sessions.json").read_text())
MESSAGES = json.loads((CONTROL / "messages.json").read_text())


def message_type(name):
    module, _, bare = name.rpartition(".")
    if module == "google.protobuf":
        from google.protobuf import empty_pb2

        return getattr(empty_pb2, bare)
    return getattr(tailnet_pb2 if module == "tailnet" else agent_pb2, bare)


def frames(session, side):
    return [bytes.fromhex(f["frame"]) for f in session["frames"] if f["from"] == side]


def payloads(session, side):
    """The bytes of each yamux stream in one direction, joined."""
    streams = {}
    for raw in frames(session, side):
        if raw[1] == yamux.Type.DATA:
            streams.setdefault(int.from_bytes(raw[4:8], "big"), bytearray()).extend(raw[12:])
    return streams


@pytest.mark.parametrize("session", SESSIONS, ids=lambda s: s["name"])
@pytest.mark.parametrize("size", [1, 7, 12, 10_000])
def test_a_server_reads_what_real_clients_sent(session, size):
    wire = b"".join(frames(session, "client"))
    server = yamux.Session(client=False, now=0.0)
    events = [e for i in range(0, len(wire), size) for e in server.receive(wire[i : i + size], 0.0)]
    opened = [e.stream for e in events if isinstance(e, yamux.Opened)]
    assert opened == sorted({f["stream"] for f in session["frames"] if f["stream"]})
    expected = payloads(session, "client")
    for number in opened:
        received = b"".join(e.data for e in events if isinstance(e, yamux.Received) and e.stream == number)
        assert received == bytes(expected.get(number, b""))


@pytest.mark.parametrize("session", SESSIONS, ids=lambda s: s["name"])
def test_a_client_reads_what_a_real_server_sent(session):
    client = yamux.Session(client=True, now=0.0)
    for _ in {f["stream"] for f in session["frames"] if f["stream"]}:
        client.open()
    events = client.receive(b"".join(frames(session, "server")), 0.0)
    expected = payloads(session, "server")
    received = {}
    for event in events:
        if isinstance(event, yamux.Received):
            received.setdefault(event.stream, bytearray()).extend(event.data)
    assert received == expected


@pytest.mark.parametrize("session", SESSIONS, ids=lambda s: s["name"])
def test_the_calls_of_real_peers_follow_the_state_machines(session):
    """Both ends of each recorded call understand the other, up to its end."""
    requests, responses = payloads(session, "client"), payloads(session, "server")
    names = []
    for number in sorted(requests):
        server, client = drpc.ServerCall(), drpc.ClientCall()
        events = server.receive(bytes(requests[number]))
        assert isinstance(events[0], drpc.Invoked)
        names.append(events[0].rpc)
        client.invoke(events[0].rpc)
        client.receive(bytes(responses.get(number, b"")))
    assert sorted(names) == sorted(session["calls"])


@pytest.mark.parametrize("session", SESSIONS, ids=lambda s: s["name"])
def test_packets_are_written_as_real_peers_write_them(session):
    for entry in session["frames"]:
        if "packets" not in entry:
            continue
        wire = bytes.fromhex(entry["frame"])[12:]
        packets = drpc.PacketReader().feed(wire)
        assert [(p.message, len(p.data)) for p in packets] == [(p["message_id"], p["length"]) for p in entry["packets"]]
        assert b"".join(map(drpc.encode, packets)) == wire


def test_a_recorded_unary_call_is_what_our_client_writes():
    session = SESSIONS[0]
    wire = next(bytes.fromhex(f["frame"]) for f in session["frames"] if f.get("packets"))
    client = drpc.ClientCall()
    assert wire[12:] == client.invoke(session["calls"][0]) + client.send(b"") + client.close_send()


@pytest.mark.parametrize("entry", MESSAGES, ids=lambda m: f"{m['type']} {m['hex'][:8]}")
def test_messages_have_the_recorded_fields(entry):
    message = message_type(entry["type"]).FromString(bytes.fromhex(entry["hex"]))
    assert plain(message) == without_zeros(entry["fields"])
    again = type(message).FromString(message.SerializeToString())
    assert again == message
    assert message.ByteSize() == len(entry["hex"]) // 2


@pytest.mark.parametrize("entry", MESSAGES, ids=lambda m: f"{m['type']} {m['hex'][:8]}")
def test_no_field_of_a_recorded_message_is_unknown(entry):
    message = message_type(entry["type"]).FromString(bytes.fromhex(entry["hex"]))
    size = message.ByteSize()
    message.DiscardUnknownFields()
    assert message.ByteSize() == size


def plain(value, field=None):
    """The notation of the vectors: UUIDs, hex, enum names, no zeros."""
    if isinstance(value, Message):
        if type(value).__name__ in ("Timestamp", "Duration"):
            return {k: v for k, v in (("seconds", value.seconds), ("nanos", value.nanos)) if v}
        return {f.name: each(f, v) for f, v in value.ListFields() if each(f, v) is not None}
    if isinstance(value, bytes):
        return str(UUID(bytes=value)) if len(value) == 16 else value.hex()
    if field is not None and field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value


def each(field, value):
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        inner = field.message_type.fields_by_name["value"]
        return {str(k): plain(v, inner) for k, v in value.items()}
    if field.is_repeated:
        return [plain(v, field) for v in value]
    return plain(value, field)


def without_zeros(fields):
    if isinstance(fields, dict):
        return {k: without_zeros(v) for k, v in fields.items() if not (isinstance(v, int | float) and not v)}
    return [without_zeros(v) for v in fields] if isinstance(fields, list) else fields


def test_durations_convert():
    message = tailnet_pb2.RefreshResumeTokenResponse()
    message.refresh_in.FromTimedelta(timedelta(hours=12))
    assert message.refresh_in.seconds == 43200
