"""From what a node says of its network to one side of a diagnosis. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network
from typing import Any

from coder.tailnet.diagnosis import IP4, IP6, MIN_MTU, Nat, Side
from coder.wire.netinfo import NetInfo

_LOCAL = [
    ip_network(text)
    for text in (
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",  # RFC 1918
        "100.64.0.0/10",  # RFC 6598, carrier-grade NAT
        "169.254.0.0/16", "127.0.0.0/8", "fe80::/10", "fc00::/7", "::1/128",
    )
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """A network interface; addresses with or without their prefix length."""

    name: str
    mtu: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """What only agents and clients of this project say beyond `NetInfo`."""

    ipv4: bool | None = None
    """A STUN server answered over IPv4."""
    mapping: str = ""
    """Protocol of the port mapping in force."""
    mapping_external: str = ""
    """The address and port it was granted."""
    double_nat: bool = False
    """The router says that it stands behind another one."""
    blocks: bool | None = None
    port: int = 0
    heard: bool | None = None

    def dump(self) -> dict[str, Any]:
        """Return the JSON value: the answer to `GET /api/v0/paths`."""
        mapping = {"protocol": self.mapping, "external": self.mapping_external} if self.mapping else None
        return {
            "ipv4": self.ipv4,
            "port_mapping": mapping,
            "double_nat": self.double_nat,
            "direct_blocked": self.blocks,
            "udp_port": self.port,
            "heard_directly": self.heard,
        }

    @classmethod
    def load(cls, value: Any) -> "Extra":
        """Read a JSON value, of any shape: what does not fit is unknown."""
        found = value if isinstance(value, dict) else {}
        mapping = found.get("port_mapping")
        mapping = mapping if isinstance(mapping, dict) else {}
        port = found.get("udp_port")
        return cls(
            ipv4=_flag(found.get("ipv4")),
            mapping=_text(mapping.get("protocol")),
            mapping_external=_text(mapping.get("external")),
            double_nat=found.get("double_nat") is True,
            blocks=_flag(found.get("direct_blocked")),
            port=port if isinstance(port, int) and 0 < port < 2**16 else 0,
            heard=_flag(found.get("heard_directly")),
        )


NOTHING = Extra()


def load_interfaces(value: Any) -> tuple[Interface, ...]:
    """Read the interfaces of an agent's network report; entries that make no sense are left out."""
    found = value.get("interfaces") if isinstance(value, dict) else None
    return tuple(
        Interface(
            name=_text(one.get("name")),
            mtu=one["mtu"],
            addresses=tuple(text for text in one.get("addresses") or () if isinstance(text, str)),
        )
        for one in (found if isinstance(found, list) else ())
        if isinstance(one, dict) and isinstance(one.get("mtu"), int) and isinstance(one.get("addresses") or [], list)
    )


def is_local(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address means something only within some network."""
    return any(address in network for network in _LOCAL if network.version == address.version)


def side(
    info: NetInfo,
    *,
    endpoints: Iterable[str],
    interfaces: Iterable[Interface],
    extra: Extra = NOTHING,
    stun_by_ipv6: bool = False,
) -> Side:
    """Join what a node says of its network, what it offers its peers, and the interfaces it has.

    `stun_by_ipv6`: STUN is known to be answered over IPv6, so a side without such an answer has no IPv6 that works.
    """
    interfaces = tuple(interfaces)
    own = {address for one in interfaces for address in _addresses(one.addresses)}
    offered = [address for address in map(parse_endpoint, endpoints) if address is not None]
    seen = [
        address
        for address in offered
        if isinstance(address, IPv4Address) and (address not in own if own else not is_local(address))
    ]
    udp = info.working_udp
    broken = {IP6} if stun_by_ipv6 and not info.working_ipv6 else set()
    return Side(
        udp=udp,
        families=frozenset(_families(info, offered, extra)) - broken,
        nat=_nat(info, translated=bool(seen), certain=bool(own), told=bool(offered)),
        mapping=extra.mapping or _protocol(info),
        mapping_public=_is_public(extra.mapping_external) and not extra.double_nat,
        blocks=extra.blocks if extra.blocks is not None else bool(udp) and not offered,
        public=str(seen[0]) if seen else "",
        port=extra.port,
        low_mtu=tuple((one.name, one.mtu) for one in interfaces if 0 < one.mtu < MIN_MTU),
        heard=extra.heard,
    )


def _families(info: NetInfo, offered: list[IPv4Address | IPv6Address], extra: Extra) -> set[int]:
    found: set[int] = {address.version for address in offered if not is_local(address)}
    if info.working_ipv6:
        found.add(IP6)
    if extra.ipv4 or (extra.ipv4 is None and info.working_udp and info.working_ipv6 is False):
        found.add(IP4)
    return found


def _nat(info: NetInfo, *, translated: bool, certain: bool, told: bool) -> Nat:
    if not info.working_udp:
        return Nat.UNKNOWN
    if info.mapping_varies_by_dest_ip:
        return Nat.HARD
    if not translated and certain:
        return Nat.NONE if told else Nat.UNKNOWN  # who blocks direct connections does not say how others see it
    return Nat.UNKNOWN if info.mapping_varies_by_dest_ip is None else Nat.EASY


def _protocol(info: NetInfo) -> str:
    if not info.have_port_map:
        return ""
    return next((name for name in ("upnp", "pcp", "pmp") if getattr(info, name)), "unknown")


def _is_public(external: str) -> bool:
    """Whether a mapping is of use; one whose outside is not known is given the benefit of the doubt."""
    address = parse_endpoint(external)
    return address is None or not is_local(address)


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _text(value: Any) -> str:
    """Take a short text of a peer's, without what could play tricks on a terminal."""
    return "".join(sign for sign in value if sign.isprintable())[:64] if isinstance(value, str) else ""


def _addresses(texts: Iterable[str]) -> Iterable[IPv4Address | IPv6Address]:
    for text in texts:
        try:
            yield ip_interface(text).ip
        except ValueError:
            continue


def parse_endpoint(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address of `ip:port`; None when it is none."""
    try:
        return ip_address(text.rpartition(":")[0].strip("[]"))
    except ValueError:
        return None
