"""PCP (RFC 6887), as far as port mappings need it: the opcodes ANNOUNCE and MAP. All numbers are big-endian.

A request names its sender's own address, so that a NAT in between is noticed; a MAP carries a nonce, which its answer
repeats and which protects the mapping from others. The opcode PEER is left out; so are options in what we write, and
those of an answer are checked for their shape and ignored, as section 7.3 has it for what a client did not ask for.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from coder.errors import Malformed

PORT: Final = 5351
VERSION: Final = 2
NONCE: Final = 12
"""Bytes of a mapping nonce."""
UDP: Final = 17
MAX_SIZE: Final = 1100
"""Bytes of the largest message (7.1)."""

_RESPONSE: Final = 128
_REQUEST_HEAD: Final = struct.Struct(">BBHI16s")  # version, opcode, reserved, lifetime, client
_RESPONSE_HEAD: Final = struct.Struct(">BBBBII12s")  # version, opcode, reserved, result, lifetime, epoch, reserved
_MAP: Final = struct.Struct(">12sB3sHH16s")  # nonce, protocol, reserved, internal port, external port, external address
_OPTION: Final = struct.Struct(">BBH")

Address = IPv4Address | IPv6Address

ANY: Final = IPv4Address(0)
"""Stands for any external address of IPv4."""


class Opcode(IntEnum):
    """What is asked for (19.3)."""

    ANNOUNCE = 0
    MAP = 1
    PEER = 2


class Result(IntEnum):
    """Outcomes (7.4)."""

    SUCCESS = 0
    UNSUPP_VERSION = 1
    NOT_AUTHORIZED = 2
    MALFORMED_REQUEST = 3
    UNSUPP_OPCODE = 4
    UNSUPP_OPTION = 5
    MALFORMED_OPTION = 6
    NETWORK_FAILURE = 7
    NO_RESOURCES = 8
    UNSUPP_PROTOCOL = 9
    USER_EX_QUOTA = 10
    CANNOT_PROVIDE_EXTERNAL = 11
    ADDRESS_MISMATCH = 12
    EXCESSIVE_REMOTE_PEERS = 13


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """The fields that MAP's requests and answers share (11.1)."""

    nonce: bytes
    protocol: int = UDP
    internal_port: int
    external_port: int = 0
    """In a request the one we would like; 0: any."""
    external_address: Address = ANY
    """In a request the one we would like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An ANNOUNCE, or with a `mapping` a MAP; the mapping is undone when `lifetime` is 0."""

    client: Address
    """The sender's own address."""
    lifetime: int = 0
    """Seconds."""
    mapping: Mapping | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What the gateway says, of its own accord too when it has restarted (14.1)."""

    opcode: int
    result: int
    """A `Result`, or a number of the future."""
    lifetime: int
    """Seconds: of the mapping, or for how long an error will stay as it is."""
    epoch: int
    """Seconds since the gateway lost its mappings (8.5)."""
    mapping: Mapping | None = None
    """There in each whole answer to MAP."""


def encode_request(request: Request) -> bytes:
    """Write a request."""
    opcode = Opcode.ANNOUNCE if request.mapping is None else Opcode.MAP
    head = _REQUEST_HEAD.pack(VERSION, opcode, 0, request.lifetime, _packed(request.client))
    return head + _encode_mapping(request.mapping)


def decode_request(datagram: bytes) -> Request:
    """Read a request, as a gateway does. Raises Malformed."""
    _check_size(datagram, _REQUEST_HEAD.size)
    version, opcode, _, lifetime, client = _REQUEST_HEAD.unpack_from(datagram)
    if version != VERSION or opcode not in {Opcode.ANNOUNCE, Opcode.MAP}:
        raise Malformed("not a PCP request we know")
    mapping, rest = _decode_mapping(datagram[_REQUEST_HEAD.size :]) if opcode == Opcode.MAP else (None, b"")
    _check_options(rest)
    return Request(client=_address(client), lifetime=lifetime, mapping=mapping)


def encode_response(response: Response) -> bytes:
    """Write an answer, as a gateway does."""
    opcode = _RESPONSE | response.opcode
    head = _RESPONSE_HEAD.pack(VERSION, opcode, 0, response.result, response.lifetime, response.epoch, bytes(12))
    return head + _encode_mapping(response.mapping)


def decode_response(datagram: bytes) -> Response:
    """Read an answer. An error may lack the mapping it is about. Raises Malformed."""
    _check_size(datagram, _RESPONSE_HEAD.size)
    version, code, _, result, lifetime, epoch, _ = _RESPONSE_HEAD.unpack_from(datagram)
    if version != VERSION or not code & _RESPONSE:
        raise Malformed("not a PCP answer")
    opcode, rest = code & ~_RESPONSE, datagram[_RESPONSE_HEAD.size :]
    mapping = None
    if opcode == Opcode.MAP and (rest or result == Result.SUCCESS):
        mapping, rest = _decode_mapping(rest)
    _check_options(rest)
    return Response(opcode=opcode, result=result, lifetime=lifetime, epoch=epoch, mapping=mapping)


def _check_size(datagram: bytes, least: int) -> None:
    if not least <= len(datagram) <= MAX_SIZE or len(datagram) % 4:
        raise Malformed(f"a PCP message has {least} to {MAX_SIZE} bytes, a multiple of four")


def _encode_mapping(mapping: Mapping | None) -> bytes:
    if mapping is None:
        return b""
    return _MAP.pack(
        mapping.nonce,
        mapping.protocol,
        bytes(3),
        mapping.internal_port,
        mapping.external_port,
        _packed(mapping.external_address),
    )


def _decode_mapping(fields: bytes) -> tuple[Mapping, bytes]:
    if len(fields) < _MAP.size:
        raise Malformed("a PCP mapping is cut off")
    nonce, protocol, _, internal, external, address = _MAP.unpack_from(fields)
    mapping = Mapping(
        nonce=nonce,
        protocol=protocol,
        internal_port=internal,
        external_port=external,
        external_address=_address(address),
    )
    return mapping, fields[_MAP.size :]


def _check_options(rest: bytes) -> None:
    """Walk the options: code, reserved, length, and that many bytes filled up to a multiple of four (7.3)."""
    while rest:
        _, _, length = _OPTION.unpack_from(rest)  # whole: every piece is a multiple of four bytes
        size = _OPTION.size + length + -length % 4
        if size > len(rest):
            raise Malformed("a PCP option is cut off")
        rest = rest[size:]


def _packed(address: Address) -> bytes:
    """Write an address in 16 bytes; IPv4 as mapped into IPv6 (section 5)."""
    return address.packed if isinstance(address, IPv6Address) else bytes(10) + b"\xff\xff" + address.packed


def _address(packed: bytes) -> Address:
    address = IPv6Address(packed)
    return address.ipv4_mapped or address
