"""Typed identifiers and keys as the control plane writes them.

UUIDs travel as 16 raw bytes in protobuf and as lower-case text in JSON and URLs. WireGuard and disco public keys travel
as text with a prefix; a node key also as 34 bytes, `np` before the 32 raw ones. Secrets are a type that cannot be
printed by accident.
"""

import hmac
import re
from typing import ClassVar, Self
from uuid import UUID

from coder.errors import Malformed

_HEX_KEY = re.compile(r"[0-9a-f]{64}", re.ASCII)


def uuid_from_bytes(raw: bytes, *, where: str = "id") -> UUID:
    """Read the 16 bytes of a protobuf id field. Raises `Malformed` for any other length."""
    if len(raw) != 16:
        raise Malformed(f"a UUID has 16 bytes, this has {len(raw)}", where=where)
    return UUID(bytes=bytes(raw))


def uuid_from_text(text: str, *, where: str = "id") -> UUID:
    """Read the canonical 36-character form, in either letter case. Raises `Malformed` for anything else."""
    try:
        parsed = UUID(text)
    except ValueError:
        parsed = None
    if parsed is None or str(parsed) != text.lower():
        raise Malformed(f"{text[:64]!r} is not a UUID", where=where)
    return parsed


class _PublicKey(str):
    """A 32-byte public key in its text form: a prefix and 64 lower-case hex digits."""

    __slots__ = ()
    PREFIX: ClassVar[str]

    @classmethod
    def parse(cls, text: str, *, where: str = "key") -> Self:
        """Accept exactly the text form. Raises `Malformed`; the message does not repeat the text."""
        if not text.startswith(cls.PREFIX) or _HEX_KEY.fullmatch(text, len(cls.PREFIX)) is None:
            raise Malformed(f"expected {cls.PREFIX}<64 lower-case hex digits>", where=where)
        return cls(text)

    @classmethod
    def from_raw(cls, raw: bytes, *, where: str = "key") -> Self:
        """Take the 32 raw bytes. Raises `Malformed` for any other length."""
        if len(raw) != 32:
            raise Malformed(f"a public key has 32 bytes, this has {len(raw)}", where=where)
        return cls(cls.PREFIX + bytes(raw).hex())

    @property
    def raw(self) -> bytes:
        """The 32 bytes of the key."""
        return bytes.fromhex(self[len(self.PREFIX) :])

    @property
    def short(self) -> str:
        """The first 8 hex digits, for logs."""
        return self[len(self.PREFIX) :][:8]


class NodeKey(_PublicKey):
    """The WireGuard public key that names a node: `nodekey:<hex>`."""

    __slots__ = ()
    PREFIX = "nodekey:"
    WIRE_PREFIX: ClassVar[bytes] = b"np"

    @classmethod
    def from_wire(cls, data: bytes, *, where: str = "key") -> Self:
        """Read the 34 bytes of `Node.key`. Raises `Malformed`."""
        if len(data) != 34 or not data.startswith(cls.WIRE_PREFIX):
            raise Malformed("expected the bytes np and 32 more", where=where)
        return cls.from_raw(data[2:], where=where)

    def to_wire(self) -> bytes:
        """Return the 34 bytes of `Node.key`."""
        return self.WIRE_PREFIX + self.raw


class DiscoKey(_PublicKey):
    """The public key a node's path discovery is sealed with: `discokey:<hex>`."""

    __slots__ = ()
    PREFIX = "discokey:"


class Secret:
    """A token, password or private key that prints as `<redacted>`, in logs and f-strings too.

    It is deliberately no `str`: joining, formatting and JSON encoding cannot leak it. Comparison takes the same time
    whatever the difference.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself. Call it at the place that needs the text and nowhere else."""
        return self._text

    def __repr__(self) -> str:
        return "<redacted>"

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._text))
