"""What a node knows of its network, in the words of its peers: for whoever asks why a connection is what it is."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from coder.errors import CoderError
from coder.tailnet.sides import Extra
from coder.wire.netinfo import NetInfo

if TYPE_CHECKING:
    from coder.dataplane.engine import NetworkReport, Node, PeerPaths
    from coder.peering.peering import Peering, State


async def checked(node: "Node", patience: float) -> "NetworkReport | None":
    """Return the node's report on the network, waiting for one if there is none yet; None if none came."""
    if node.report is not None:
        return node.report
    try:
        return await node.netcheck(patience)
    except CoderError:
        return None


def net_info(report: "NetworkReport | None", state: "State") -> NetInfo:
    """Say what the last check of the network found; before the first one, only what is known anyway."""
    latencies = dict(state.latencies)
    router = state.port_mapping
    before = NetInfo(
        have_port_map=router.external is not None,
        upnp=router.upnp,
        pmp=router.pmp,
        pcp=router.pcp,
        preferred_derp=state.home,
        derp_latency=latencies,
    )
    if report is None:
        return before
    return replace(
        before,
        mapping_varies_by_dest_ip=report.mapping_varies_by_dest_ip,
        hair_pinning=report.hair_pinning,
        working_ipv6=report.ipv6,
        os_has_ipv6=report.os_has_ipv6,
        working_udp=report.udp,
        working_icmpv4=None,
        preferred_derp=state.home or report.preferred_derp,
    )


def extra_of(peering: "Peering", paths: "PeerPaths | None") -> Extra:
    """Say the rest; `paths` is the way to the peer that asks."""
    report = peering.node.report
    ports = peering.node.udp_ports()
    router = peering.state().port_mapping
    return Extra(
        mapping=router.via.name.lower() if router.via is not None else "",
        mapping_external=router.external or "",
        double_nat=router.double_nat,
        ipv4=None if report is None else report.ipv4,
        blocks=None if paths is None else paths.block_direct,
        port=ports[0] or ports[1],
        heard=None if paths is None else heard(paths),
    )


def ways(peering: "Peering") -> list[dict[str, Any]]:
    """Say of each peer with a session how it is reached: its addresses inside the tunnel, direct or not, latency."""
    found = ((peer, peering.node.peer_paths(peer.key)) for peer in peering.state().peers)
    return [
        {
            "addresses": [one.partition("/")[0] for one in peer.addresses],
            "direct": paths.endpoint is not None,
            "latency_ms": next((one.latency * 1e3 for one in paths.endpoints if one.best and one.latency), None),
        }
        for peer, paths in found
        if paths is not None and paths.active_for is not None
    ]


def heard(paths: "PeerPaths") -> bool:
    """Whether anything of the peer ever arrived here directly."""
    return any(one.last_heard is not None or one.last_pong is not None for one in paths.endpoints)


def paths_to(peering: "Peering", address: str) -> "PeerPaths | None":
    """Find the way to the peer that has the address inside the tunnel."""
    for peer in peering.state().peers:
        if any(one.partition("/")[0] == address for one in peer.addresses):
            return peering.node.peer_paths(peer.key)
    return None
