"""NAT-PMP: RFC 6886's layouts, both directions."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coder.errors import Malformed
from coder.wire import natpmp
from coder.wire.natpmp import AddressRequest, AddressResponse, MapRequest, MapResponse, Opcode, Refusal

REQUESTS = [
    ("address", "0000", AddressRequest()),
    (
        "map udp",
        "0001 0000 a2d9 1f90 00001c20",
        MapRequest(opcode=Opcode.MAP_UDP, internal_port=41689, external_port=8080, lifetime=7200),
    ),
    ("undo", "0001 0000 a2d9 0000 00000000", MapRequest(internal_port=41689, lifetime=0)),
    ("map tcp", "0002 0000 0016 0016 00000e10", MapRequest(
        opcode=Opcode.MAP_TCP, internal_port=22, external_port=22, lifetime=3600)),
]  # fmt: skip
RESPONSES = [
    ("address", "0080 0000 0001e240 c6336407", AddressResponse(epoch=123456, address=IPv4Address("198.51.100.7"))),
    ("mapped", "0081 0000 00000009 a2d9 1f90 00001c20", MapResponse(
        opcode=Opcode.MAP_UDP, epoch=9, internal_port=41689, external_port=8080, lifetime=7200)),
    ("refused", "0081 0002 00000009", Refusal(opcode=1, result=2, epoch=9)),
    ("wrong version", "0080 0001 00000009", Refusal(opcode=0, result=1, epoch=9)),
]  # fmt: skip
PORTS, LONGS = st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(("name", "wire", "value"), REQUESTS)
def test_requests_both_ways(name, wire, value):
    data = bytes.fromhex(wire)
    assert natpmp.encode_request(value) == data
    assert natpmp.decode_request(data) == value
    for size in range(len(data)):
        if size != 2:  # two bytes are a whole request for the address, or none
            with pytest.raises(Malformed):
                natpmp.decode_request(data[:size])


@pytest.mark.parametrize(("name", "wire", "value"), RESPONSES)
def test_responses_both_ways(name, wire, value):
    data = bytes.fromhex(wire)
    assert natpmp.encode_response(value) == data
    assert natpmp.decode_response(data) == value
    assert natpmp.decode_response(data + b"more") == value
    for size in range(len(data)):
        with pytest.raises(Malformed):
            natpmp.decode_response(data[:size])


@pytest.mark.parametrize("wire", ["0080 0000 00000001 0a", "0083 0000 00000001 00000000", "0281 0000 00000001"])
def test_what_is_no_answer(wire):
    with pytest.raises(Malformed):
        natpmp.decode_response(bytes.fromhex(wire.replace(" ", "")))


def test_a_refusal_may_have_the_length_of_a_success():
    full = bytes.fromhex("0081 0004 00000009 a2d9 0000 00000000")
    assert natpmp.decode_response(full) == Refusal(opcode=1, result=4, epoch=9)


@given(
    st.builds(MapRequest, opcode=st.sampled_from(list(Opcode)[1:]), internal_port=PORTS, external_port=PORTS,
              lifetime=LONGS)
)  # fmt: skip
def test_any_request_survives(request_value):
    assert natpmp.decode_request(natpmp.encode_request(request_value)) == request_value


@given(
    st.builds(AddressResponse, epoch=LONGS, address=st.ip_addresses(v=4))
    | st.builds(MapResponse, opcode=st.sampled_from(list(Opcode)[1:]), epoch=LONGS, internal_port=PORTS,
                external_port=PORTS, lifetime=LONGS)
    | st.builds(Refusal, opcode=st.integers(0, 127), result=st.integers(1, 2**16 - 1), epoch=LONGS)
)  # fmt: skip
def test_any_response_survives(response):
    assert natpmp.decode_response(natpmp.encode_response(response)) == response


@given(st.binary(max_size=32))
def test_garbage_is_refused_or_read(data):
    for decode, encode in (
        (natpmp.decode_request, natpmp.encode_request),
        (natpmp.decode_response, natpmp.encode_response),
    ):
        try:
            value = decode(data)
        except Malformed:
            continue
        assert decode(encode(value)) == value
