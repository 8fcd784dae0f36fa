"""What is said to a node and what it says, as values. Times are seconds, addresses are text."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from coder.outbound import Outbound

PortUse = Literal["python", "speedtest", "splice", "refuse"]
"""What answers a TCP port: a descriptor for Python, the speed test, the same port of 127.0.0.1, or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A node this one may talk to."""

    key: str
    """`nodekey:<hex>`, its WireGuard and relay key."""
    disco: str
    """`discokey:<hex>`."""
    home: int
    """The DERP region it can always be reached at."""
    endpoints: tuple[str, ...]
    """`ip:port` candidates for a direct path."""
    addresses: tuple[str, ...]
    """Its addresses inside the tunnel, without prefix length; nothing else is accepted from it."""
    keepalive: bool = False
    """Open the session at once and keep it open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One way to a peer."""

    kind: Literal["direct", "relay"]
    endpoint: str | None
    """`ip:port` of a direct path."""
    region: int | None
    """DERP region of a relayed one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong:
    """The answer to a disco ping."""

    latency: float
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Bytes moved within a span of a speed test; `start` and `end` count from its beginning."""

    start: float
    end: float
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedtestResult:
    """A finished speed test."""

    intervals: tuple[Interval, ...]
    total: Interval
    retransmits: int | None = None
    """Segments this end sent again; None when it was the other that sent, or nobody counted."""


@dataclass(frozen=True, slots=True)
class DatagramStats:
    """What came through a UDP socket whose datagrams go to a peer."""

    open: int
    """Local addresses that sent something lately …"""
    opened: int
    """… and all there were."""
    lost: int
    """Datagrams that could not be sent on, in either direction."""
    sent: int
    """Bytes to the peer …"""
    received: int
    """… and from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStats:
    """A node's counters since it was made."""

    rx_bytes: int
    tx_bytes: int
    rx_packets: int
    tx_packets: int
    refused: int = 0
    """Datagrams that were not accepted, whatever the reason."""
    streams: int = 0
    """Open streams."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """Everything a node is made with."""

    addresses: tuple[str, ...]
    """Its addresses inside the tunnel."""
    ports: Mapping[int, PortUse] = field(default_factory=dict)
    """What answers which TCP port …"""
    default: PortUse = "refuse"
    """… and all the others; `splice` forwards UDP too."""
    listen_port: int = 0
    """UDP port for direct paths; 0 for any."""
    block_direct: bool = False
    """Relay only."""
    force_websockets: bool = False
    """Reach relays by WebSocket without trying the plain upgrade."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with requests to relays; may hold secrets."""
    outbound: Outbound = field(default_factory=Outbound)
    """Proxies, authorities and our own certificate, for relays too."""
    prefer_region: str | None = None
    """Id, code or name of the region that is to be home whenever it can be; the map given to the node says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfChanged:
    """What a node must tell its peers about itself."""

    home: int
    """Home region; 0 while there is none."""
    latencies: dict[str, float]
    """Seconds to each region, keys such as `999-v4`."""
    endpoints: tuple[str, ...]
    forced_websocket: dict[int, str]
    """Regions reached by WebSocket, with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathChanged:
    """A peer is reached another way than before."""

    peer: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A peer connected to a port that Python answers. Whoever gets this closes the stream."""

    port: int
    stream: socket.socket
    source: str
    """The peer's address inside the tunnel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayProblem:
    """A relay could not be reached or was lost, and is tried again; without a text it is well again."""

    region: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkReport:
    """What a check of the network found. None: not known, or not tested."""

    udp: bool
    """A STUN answer came."""
    ipv4: bool
    """One came over IPv4."""
    ipv6: bool
    """One came over IPv6."""
    ipv4_can_send: bool
    """A request over IPv4 could be sent."""
    ipv6_can_send: bool
    """A request over IPv6 could be sent."""
    os_has_ipv6: bool
    """There is an IPv6 socket."""
    icmpv4: bool
    """An ICMP echo was answered; never sent."""
    mapping_varies_by_dest_ip: bool | None
    """STUN servers saw different addresses: a symmetric ("hard") NAT."""
    hair_pinning: bool | None
    """The router leads packets for its own outside address back in."""
    captive_portal: bool | None
    """Something between here and the relay answers in its place."""
    preferred_derp: int
    """Home region after the check; 0 for none."""
    region_latency: dict[int, float]
    """Seconds to each relay that was measured."""
    region_v4_latency: dict[int, float]
    """Those reached over IPv4."""
    region_v6_latency: dict[int, float]
    """Those reached over IPv6."""
    global_v4: str | None
    """`ip:port` the first IPv4 STUN server saw us at."""
    global_v6: str | None
    """`[ip]:port` the last IPv6 STUN server saw us at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointFacts:
    """One address of a peer. Ages are seconds back from now; None: never."""

    address: str
    """`ip:port`"""
    source: Literal["advertised", "call_me_maybe", "learned"]
    """Its record, its last call, or a ping from there told of it."""
    last_ping: float | None
    """Since our last ping to it."""
    last_pong: float | None
    """Since its last answer."""
    last_heard: float | None
    """Since its last ping to us."""
    latency: float | None
    """Round trip of the last answer."""
    best: bool
    """It is the best known path."""
    trusted: bool
    """It is proved now, so packets go there only."""
    mtu: int | None
    """Bytes of the largest IP packet a ping and its answer proved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerPaths:
    """What is known of the way to one peer."""

    endpoints: tuple[EndpointFacts, ...]
    endpoint: str | None
    """Where packets go directly; None while they are relayed."""
    relay: int | None
    """The region whose relay leads to the peer; in use while `endpoint` is None."""
    changed_ago: float | None
    """Seconds since the way last changed …"""
    reason: str | None
    """… and why it did, a sentence without its full stop."""
    active_for: float | None
    """Seconds since the first packet of the present session; None while the session sleeps."""
    first_direct: float | None
    """Seconds from that packet to the first proof of a direct path."""
    block_direct: bool
    """Direct paths are switched off on this side."""


@dataclass(frozen=True, slots=True)
class NetworkChanged:
    """The machine moved to another network, or slept: connections made before may be dead."""


NodeEvent = SelfChanged | PathChanged | Incoming | RelayProblem | NetworkChanged | NetworkReport
