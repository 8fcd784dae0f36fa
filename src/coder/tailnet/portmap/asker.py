"""What the three protocols have in common for the one that chooses between them."""

from collections.abc import Callable
from enum import Enum, auto
from typing import ClassVar, Final

from coder.tailnet.portmap.report import Protocol
from coder.tailnet.portmap.values import Lease, Network, Output, ToGateway

RESENDS: Final = (0.25, 0.5, 1.0, 1.0)
"""Seconds after each sending: until the next one, at last until giving up (RFC 6886, 3.1, gives up much later)."""
LATE: Final = 0.5
"""Seconds by which a deadline is missed only by who was suspended."""


class State(Enum):
    """How far a protocol is."""

    IDLE = auto()
    ASKING = auto()
    GRANTED = auto()
    REFUSED = auto()


class Asker:
    """One protocol towards one router. What it wants sent goes to `emit`."""

    protocol: ClassVar[Protocol]

    def __init__(self, network: Network, emit: Callable[[Output], None]) -> None:
        self.network = network
        self.emit = emit
        self.available: bool | None = None
        """Whether the router speaks it; None: not known yet."""
        self.state = State.IDLE
        self.lease: Lease | None = None
        """The last one granted; it stands while a renewal is asked for."""
        self.error = ""
        """Why it came to nothing."""
        self.addressless = False
        """Whether the router says that it has no address to the outside: to us it is the way out, so there is another
        NAT beyond it, whose addresses it does not count as such."""
        self.lost = False
        """Set when the router shows that it has forgotten its mappings since; who acts on it resets it."""

    def probe(self) -> None:
        """Find out whether the router speaks the protocol, or whether it still remembers us."""
        raise NotImplementedError

    def ask(self, now: float, port: int) -> None:
        """Ask for a mapping of UDP port `port`, or for its renewal."""
        raise NotImplementedError

    def release(self) -> None:
        """Undo the mapping, also one that is just being asked for."""
        raise NotImplementedError

    def handle_timeout(self, now: float) -> None:
        """Send again what was not answered, or give up."""

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` has something to do."""
        return None

    def grant(self, lease: Lease) -> None:
        """Keep a lease."""
        self.lease, self.state, self.error, self.lost = lease, State.GRANTED, "", False

    def refuse_addressless(self) -> None:
        """Note that the router has nothing to map a port of."""
        self.addressless = True
        self.refuse("it has no public address")

    def refuse(self, error: str) -> None:
        """Note that nothing came of it, and why."""
        self.state, self.error = State.REFUSED, error


class Resending(Asker):
    """A protocol whose questions are datagrams that may get lost."""

    def __init__(self, network: Network, emit: Callable[[Output], None]) -> None:
        super().__init__(network, emit)
        self.port = 0
        self._sent = 0
        self._due: float | None = None

    def ask(self, now: float, port: int) -> None:
        """Ask for a mapping of UDP port `port`, or for its renewal."""
        self.state, self.port, self._sent, self._due = State.ASKING, port, 0, now
        self.handle_timeout(now)

    def handle_timeout(self, now: float) -> None:
        """Send again what was not answered, or give up."""
        if self.state is not State.ASKING or self._due is None or now < self._due:
            return
        if self._sent == len(RESENDS):
            if now < self._due + LATE:
                self.refuse("it did not answer")
            else:
                self._due = now + RESENDS[-1]  # it is we who slept: the answer may lie in the socket
            return
        self._due = now + RESENDS[self._sent]
        self._sent += 1
        for request in self.requests():
            self.emit(ToGateway(request))

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` has something to do."""
        return self._due if self.state is State.ASKING else None

    def requests(self) -> list[bytes]:
        """Return the datagrams that still need an answer."""
        raise NotImplementedError
