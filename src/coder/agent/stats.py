"""Traffic since the last report."""

from typing import TYPE_CHECKING

from coder.wire.proto import agent_pb2 as pb

if TYPE_CHECKING:
    from coder.dataplane.engine import Node

UNKNOWN_LATENCY = -0.001
"""What stands for a latency nobody has measured, in milliseconds."""


class Meter:
    """Reads a node's counters, which only grow, as differences."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._before = node.stats()

    def read(self) -> pb.Stats:
        """Return what was carried since the last reading, or since the start."""
        now, before = self._node.stats(), self._before
        self._before = now
        return pb.Stats(
            rx_bytes=now.rx_bytes - before.rx_bytes,
            tx_bytes=now.tx_bytes - before.tx_bytes,
            rx_packets=now.rx_packets - before.rx_packets,
            tx_packets=now.tx_packets - before.tx_packets,
            connection_median_latency_ms=UNKNOWN_LATENCY,
        )
