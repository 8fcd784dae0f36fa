"""In-tunnel addresses and node numbers, derived from ids.

All addresses are IPv6 /128: a prefix of 6 bytes and the last 10 bytes of a UUID. Agents hold one address in either
prefix; a client's UUID is random and fresh for each connection.
"""

from ipaddress import IPv6Address, IPv6Network
from typing import Final
from uuid import UUID

from coder.errors import Malformed

TAILSCALE_PREFIX: Final = IPv6Network("fd7a:115c:a1e0::/48")
"""The prefix in use: clients dial agents here."""
CODER_PREFIX: Final = IPv6Network("fd60:627a:a42b::/48")
"""The second prefix of agents."""
LEGACY_AGENT: Final = IPv6Address("fd7a:115c:a1e0:49d6:b259:b7ac:b1b2:48f4")
"""The fixed address of very old agents; accepted, never announced."""


def in_prefix(prefix: IPv6Network, owner: UUID) -> IPv6Address:
    """Return the UUID's bytes with the first six replaced by the prefix."""
    return IPv6Address(prefix.network_address.packed[:6] + owner.bytes[6:])


def agent_addresses(agent: UUID) -> tuple[IPv6Address, IPv6Address]:
    """Return both addresses of an agent, the one that clients dial first."""
    return in_prefix(TAILSCALE_PREFIX, agent), in_prefix(CODER_PREFIX, agent)


def agent_address(agent: UUID) -> IPv6Address:
    """Return the address at which clients dial an agent."""
    return in_prefix(TAILSCALE_PREFIX, agent)


def client_address(random: UUID) -> IPv6Address:
    """Return a client's address; give it a random version-4 UUID of this connection."""
    return in_prefix(TAILSCALE_PREFIX, random)


def node_id(agent: UUID) -> int:
    """Return the number that an agent announces as `Node.id`.

    The last 8 bytes as a big-endian signed number without its sign; the least one keeps it, as it does for all peers.
    """
    number = int.from_bytes(agent.bytes[8:], "big", signed=True)
    return number if number == -(2**63) else abs(number)


def parse_host_prefix(text: str, *, where: str = "") -> IPv6Address:
    """Read one address as the protocol writes it, such as `fd7a::1/128`. Raises `Malformed`."""
    address, slash, bits = text.partition("/")
    try:
        parsed = IPv6Address(address)
    except ValueError:
        parsed = None
    if parsed is None or parsed.scope_id is not None or not slash or not bits.isascii() or not bits.isdecimal():
        raise Malformed(f"{text[:64]!r} is not an IPv6 prefix", where=where)
    if bits != "128":
        raise Malformed(f"invalid address bits, expected 128, got {bits[:8]}", where=where)
    return parsed


def host_prefix(address: IPv6Address) -> str:
    """Write one address as the protocol wants it."""
    return f"{address}/128"
