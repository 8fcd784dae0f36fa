"""PCP: RFC 6887's layouts, both directions."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coder.errors import Malformed
from coder.wire import pcp
from coder.wire.pcp import Mapping, Request, Response

NONCE = bytes(range(12))
CLIENT = "00000000000000000000ffff c0a80102"
MAPPING = Mapping(
    nonce=NONCE, internal_port=41689, external_port=8080, external_address=IPv4Address("198.51.100.7")
)  # fmt: skip
FIELDS = f"{NONCE.hex()} 11 000000 a2d9 1f90 00000000000000000000ffff c6336407"
REQUESTS = [
    ("announce", f"0200 0000 00000000 {CLIENT}", Request(client=IPv4Address("192.168.1.2"))),
    (
        "map",
        f"0201 0000 00001c20 {CLIENT} {FIELDS}",
        Request(client=IPv4Address("192.168.1.2"), lifetime=7200, mapping=MAPPING),
    ),
]
RESPONSES = [
    ("announce", f"0280 0000 00000000 00000009 {'00' * 12}", Response(opcode=0, result=0, lifetime=0, epoch=9)),
    (
        "map",
        f"0281 0000 00001c20 00000009 {'00' * 12} {FIELDS}",
        Response(opcode=1, result=0, lifetime=7200, epoch=9, mapping=MAPPING),
    ),
    (
        "refused",
        f"0281 0008 0000001e 00000009 {'00' * 12} {FIELDS}",
        Response(opcode=1, result=8, lifetime=30, epoch=9, mapping=MAPPING),
    ),
]
PORTS, LONGS, BYTE = st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1), st.integers(0, 255)
ADDRESSES = st.ip_addresses(v=4) | st.ip_addresses(v=6).filter(lambda address: address.ipv4_mapped is None)
MAPPINGS = st.builds(
    Mapping,
    nonce=st.binary(min_size=12, max_size=12),
    protocol=BYTE,
    internal_port=PORTS,
    external_port=PORTS,
    external_address=ADDRESSES,
)


@pytest.mark.parametrize(("name", "wire", "value"), REQUESTS)
def test_requests_both_ways(name, wire, value):
    data = bytes.fromhex(wire)
    assert pcp.encode_request(value) == data
    assert pcp.decode_request(data) == value
    for size in range(len(data)):
        with pytest.raises(Malformed):
            pcp.decode_request(data[:size])


@pytest.mark.parametrize(("name", "wire", "value"), RESPONSES)
def test_responses_both_ways(name, wire, value):
    data = bytes.fromhex(wire)
    assert pcp.encode_response(value) == data
    assert pcp.decode_response(data) == value
    for size in range(len(data)):
        if size == 24 and value.result:
            continue  # an error may end after its head
        with pytest.raises(Malformed):
            pcp.decode_response(data[:size])


def test_an_error_may_lack_the_mapping():
    head = bytes.fromhex(f"0281 0001 00000000 00000009 {'00' * 12}")
    assert pcp.decode_response(head) == Response(opcode=1, result=1, lifetime=0, epoch=9)


def test_options_are_walked_and_ignored():
    data = pcp.encode_response(RESPONSES[1][2])
    assert pcp.decode_response(data + bytes.fromhex("0300 0005 0102030405 000000")) == RESPONSES[1][2]
    for cut in ("0300 0005 01020304", "03000001", "0300ffff 00000000"):
        with pytest.raises(Malformed):
            pcp.decode_response(data + bytes.fromhex(cut))


def test_no_message_is_longer_than_the_largest():
    data = pcp.encode_response(RESPONSES[0][2])
    room = pcp.MAX_SIZE - len(data)
    full = data + bytes.fromhex("0300") + (room - 4).to_bytes(2) + bytes(room - 4)
    assert pcp.decode_response(full) == RESPONSES[0][2]
    with pytest.raises(Malformed):
        pcp.decode_response(full + bytes(4))


def test_a_version_of_the_future_is_no_answer():
    with pytest.raises(Malformed):
        pcp.decode_response(b"\x03" + pcp.encode_response(RESPONSES[0][2])[1:])


def test_addresses_of_ipv6_stay_such():
    request = Request(client=IPv6Address("2001:db8::1"))
    assert pcp.decode_request(pcp.encode_request(request)) == request


@given(st.builds(Request, client=ADDRESSES, lifetime=LONGS, mapping=st.none() | MAPPINGS))
def test_any_request_survives(request_value):
    assert pcp.decode_request(pcp.encode_request(request_value)) == request_value


@given(
    st.builds(Response, opcode=st.integers(2, 127), result=BYTE, lifetime=LONGS, epoch=LONGS)
    | st.builds(Response, opcode=st.just(1), result=BYTE, lifetime=LONGS, epoch=LONGS, mapping=MAPPINGS)
)
def test_any_response_survives(response):
    assert pcp.decode_response(pcp.encode_response(response)) == response


@given(st.binary(max_size=120) | st.binary(max_size=25).map(lambda more: b"\x02\x81" + bytes(58) + more * 4))
def test_garbage_is_refused_or_read(data):
    for decode, encode in ((pcp.decode_request, pcp.encode_request), (pcp.decode_response, pcp.encode_response)):
        try:
            value = decode(data)
        except Malformed:
            continue
        assert decode(encode(value)) == value
