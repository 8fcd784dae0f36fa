"""Session tokens (`id-secret`) and agent tokens (UUIDs). Only hashes of them are stored."""

import hashlib
import hmac
import secrets
import string
from dataclasses import dataclass, field
from uuid import UUID

ID_LENGTH = 10
SECRET_LENGTH = 22

_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class SessionToken:
    """A token as its owner holds it. Its text form is a secret."""

    id: str
    secret: str = field(repr=False)

    @property
    def text(self) -> str:
        """The token as it is sent: ten characters, a hyphen, twenty-two characters."""
        return f"{self.id}-{self.secret}"

    @property
    def hashed(self) -> bytes:
        """What is stored: SHA-256 of the secret, whose 131 random bits need no slow hash."""
        return hashlib.sha256(self.secret.encode()).digest()


class TokenFormatError(ValueError):
    """The text is not a session token. The message says why and holds nothing of the text."""


def new_session_token() -> SessionToken:
    """Make a token."""
    return SessionToken(_random(ID_LENGTH), _random(SECRET_LENGTH))


def parse_session_token(text: str) -> SessionToken:
    """Read a token. Raises TokenFormatError."""
    parts = text.split("-")
    if len(parts) != 2:
        raise TokenFormatError(f"A token has two parts joined by a hyphen; this one has {len(parts)}.")
    token = SessionToken(*parts)
    if (len(token.id), len(token.secret)) != (ID_LENGTH, SECRET_LENGTH):
        raise TokenFormatError(f"The parts of a token have {ID_LENGTH} and {SECRET_LENGTH} characters.")
    if not (text.isascii() and token.id.isalnum() and token.secret.isalnum()):
        raise TokenFormatError("A token is made of letters and digits.")
    return token


def matches(stored: bytes, presented: bytes) -> bool:
    """Compare two hashes in constant time."""
    return hmac.compare_digest(stored, presented)


def hash_agent_token(token: UUID) -> bytes:
    """Return what is stored of an agent's token: SHA-256 of its canonical text."""
    return hashlib.sha256(str(token).encode()).digest()


def peers_path(token_hash: bytes) -> str:
    """Return where an agent tells the ways to its peers: a path that only its server can make beside itself."""
    proof = hmac.new(token_hash, b"the ways to an agent's peers", hashlib.sha256).hexdigest()
    return f"/api/v0/peers/{proof}"


def new_agent_token() -> UUID:
    """Make an agent's token: a random UUID (122 bits)."""
    return UUID(bytes=secrets.token_bytes(16), version=4)


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
