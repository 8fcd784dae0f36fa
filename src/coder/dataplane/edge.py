"""The edge: the HTTP front with the relay and the STUN server, everything else handed to the application."""

from dataclasses import dataclass

from coder.errors import Unreachable


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSettings:
    """Everything an edge is started with."""

    listen: tuple[str, ...]
    """`ip:port` to serve HTTP on; port 0 takes a free one."""
    upstream: str
    """Path of the application's Unix socket."""
    derp: bool = True
    """Serve the relay."""
    stun: tuple[str, ...] = ()
    """`ip:port` to answer STUN on."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks whose forwarding headers are believed."""


class Edge:
    """A running edge.

    Raises:
        Unreachable: an address cannot be bound; the message names it.

    """

    def __init__(self, settings: EdgeSettings) -> None:
        from coder.dataplane import _native  # noqa: PLC0415 - tests of the server run without the library

        try:
            self._native = _native.Edge(
                listen=settings.listen,
                upstream=settings.upstream,
                derp=settings.derp,
                stun=settings.stun,
                trusted_proxies=settings.trusted_proxies,
                mesh_key=None,
            )
        except OSError as error:
            raise Unreachable(str(error), remedy="") from error  # the text names the remedy

    @property
    def addresses(self) -> tuple[str, ...]:
        """`ip:port` of each HTTP listener."""
        return tuple(self._native.addresses)

    @property
    def stun_ports(self) -> tuple[int, ...]:
        """UDP ports that answer STUN."""
        return tuple(int(address.rpartition(":")[2]) for address in self._native.stun_addresses)

    def counters(self) -> dict[str, int]:
        """Read what the edge has done so far; names are those of the metrics."""
        return self._native.counters()

    def close(self) -> None:
        """Stop accepting, let requests in flight end, close relay sessions, join the threads."""
        self._native.close()
