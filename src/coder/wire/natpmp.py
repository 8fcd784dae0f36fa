"""NAT-PMP (RFC 6886): asks a gateway for its external address and for port mappings. All numbers are big-endian.

A request is a version, an opcode and its fields; the answer has the opcode plus 128, a result and the seconds since the
gateway lost its mappings (the epoch). Answers are not tied to requests: who sent them is all there is to check.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Final

from coder.errors import Malformed

PORT: Final = 5351
"""UDP port of the gateway; PCP has the same."""
VERSION: Final = 0

_RESPONSE: Final = 128
_HEAD: Final = struct.Struct(">BBHI")  # version, opcode, result, epoch
_MAP_REQUEST: Final = struct.Struct(">BBHHHI")
_MAP_FIELDS: Final = struct.Struct(">HHI")
_ADDRESS: Final = 4


class Opcode(IntEnum):
    """What is asked for (section 3)."""

    ADDRESS = 0
    MAP_UDP = 1
    MAP_TCP = 2


class Result(IntEnum):
    """Outcomes (section 3.5)."""

    SUCCESS = 0
    UNSUPPORTED_VERSION = 1
    NOT_AUTHORIZED = 2
    NETWORK_FAILURE = 3
    OUT_OF_RESOURCES = 4
    UNSUPPORTED_OPCODE = 5


@dataclass(frozen=True, slots=True)
class AddressRequest:
    """Which external address is there? (3.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapRequest:
    """Map a port (3.3), or with `lifetime` and `external_port` 0 undo that (3.4)."""

    opcode: Opcode = Opcode.MAP_UDP
    internal_port: int
    external_port: int = 0
    """The one we would like; 0: any."""
    lifetime: int
    """Seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressResponse:
    """The external address; 0.0.0.0 when the gateway has none."""

    epoch: int
    address: IPv4Address


@dataclass(frozen=True, slots=True, kw_only=True)
class MapResponse:
    """A mapping that now exists, or with `lifetime` 0 no longer does."""

    opcode: Opcode
    epoch: int
    internal_port: int
    external_port: int
    lifetime: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An answer whose result is not success, to whatever opcode."""

    opcode: int
    result: int
    """A `Result`, or a number of the future; never 0."""
    epoch: int


Request = AddressRequest | MapRequest
Response = AddressResponse | MapResponse | Refusal


def encode_request(request: Request) -> bytes:
    """Write a request."""
    if isinstance(request, AddressRequest):
        return bytes((VERSION, Opcode.ADDRESS))
    return _MAP_REQUEST.pack(VERSION, request.opcode, 0, request.internal_port, request.external_port, request.lifetime)


def decode_request(datagram: bytes) -> Request:
    """Read a request, as a gateway does. Raises Malformed."""
    if datagram == bytes((VERSION, Opcode.ADDRESS)):
        return AddressRequest()
    if len(datagram) != _MAP_REQUEST.size:
        raise Malformed("a NAT-PMP request has 2 or 12 bytes")
    version, opcode, _, internal, external, lifetime = _MAP_REQUEST.unpack(datagram)
    if version != VERSION or opcode not in {Opcode.MAP_UDP, Opcode.MAP_TCP}:
        raise Malformed("not a NAT-PMP mapping request")
    return MapRequest(opcode=Opcode(opcode), internal_port=internal, external_port=external, lifetime=lifetime)


def encode_response(response: Response) -> bytes:
    """Write an answer, as a gateway does."""
    match response:
        case Refusal():
            return _HEAD.pack(VERSION, _RESPONSE | response.opcode, response.result, response.epoch)
        case AddressResponse():
            return _HEAD.pack(VERSION, _RESPONSE | Opcode.ADDRESS, 0, response.epoch) + response.address.packed
        case MapResponse():
            fields = _MAP_FIELDS.pack(response.internal_port, response.external_port, response.lifetime)
            return _HEAD.pack(VERSION, _RESPONSE | response.opcode, 0, response.epoch) + fields


def decode_response(datagram: bytes) -> Response:
    """Read an answer; bytes after its fields are ignored. Raises Malformed."""
    if len(datagram) < _HEAD.size:
        raise Malformed("a NAT-PMP answer has at least 8 bytes")
    version, code, result, epoch = _HEAD.unpack_from(datagram)
    if version != VERSION or not code & _RESPONSE:
        raise Malformed("not a NAT-PMP answer")
    opcode = code & ~_RESPONSE
    if result != Result.SUCCESS:
        return Refusal(opcode=opcode, result=result, epoch=epoch)
    fields = datagram[_HEAD.size :]
    if opcode == Opcode.ADDRESS and len(fields) >= _ADDRESS:
        return AddressResponse(epoch=epoch, address=IPv4Address(fields[:_ADDRESS]))
    if opcode in {Opcode.MAP_UDP, Opcode.MAP_TCP} and len(fields) >= _MAP_FIELDS.size:
        internal, external, lifetime = _MAP_FIELDS.unpack_from(fields)
        return MapResponse(
            opcode=Opcode(opcode), epoch=epoch, internal_port=internal, external_port=external, lifetime=lifetime
        )
    raise Malformed("a NAT-PMP answer is cut off or answers nothing we know")
