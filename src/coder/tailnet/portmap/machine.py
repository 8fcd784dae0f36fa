"""The one that chooses: probes all protocols at once, takes the best that grants, keeps the mapping alive.

    machine.set_network(now, network)     the default route's router, or None; each change begins anew
    machine.set_port(now, port)           our UDP port
    machine.gateway_datagram / gateway_silent / found / answered / failed     what came
    machine.handle_timeout(now)           at `next_timeout()`
    machine.poll()                        after each of these, until None
    machine.release(now)                  at the end: what is sent then undoes the mapping

A round of probing takes `PROBING` seconds and fifteen datagrams. A round without success is repeated ever more seldom,
and at once when the network changes.
"""

import itertools
from collections import deque
from collections.abc import Callable
from typing import Final

from coder.errors import Malformed
from coder.tailnet.portmap.asker import Asker, State
from coder.tailnet.portmap.datagrams import Pcp, Pmp, receive
from coder.tailnet.portmap.igd import Igd
from coder.tailnet.portmap.report import PortMapReport
from coder.tailnet.portmap.values import Lease, Mapped, Network, Output, is_public
from coder.wire import ssdp
from coder.wire.pcp import NONCE

PROBES: Final = (0.0, 0.25, 0.75)
"""Seconds into a round at which the router is asked what it speaks."""
GRACE: Final = PROBES[1]
"""Seconds into a round during which a worse protocol waits for a better one."""
PROBING: Final = 2.0
"""Seconds into a round after which silence is an answer."""
RETRIES: Final = (60.0, 300.0, 1800.0)
"""Seconds to the next round, after the first, the second and every later one in a row that came to nothing."""
CHECK: Final = 300.0
"""Seconds between two looks at whether the router still remembers."""
SHORTEST_RENEWAL: Final = 30.0
"""Seconds between two requests for the same mapping, whatever the router says."""


class PortMap:
    """Keeps one UDP port mapped at the router. `randbytes` is a source of unpredictable bytes."""

    def __init__(self, randbytes: Callable[[int], bytes]) -> None:
        self._randbytes = randbytes
        self._nonce = randbytes(NONCE)
        self._network: Network | None = None
        self._port = 0
        self._numbers = itertools.count(1)
        self._outputs: deque[Output] = deque()
        self._askers: tuple[Asker, ...] = ()
        self._holder: Asker | None = None
        self._started: float | None = None
        self._probes = 0
        self._failures = 0
        self._retry: float | None = None
        self._private: list[Asker] = []
        """Whose mapping was given back this round, for its address is private."""
        self._content = False
        """Whether a private address will do."""
        self._renewing = False
        self._renew = self._check = self._asked = 0.0
        self.refused = 0
        """Messages that made no sense, or were not for us."""

    # What the shell says

    def set_network(self, now: float, network: Network | None) -> None:
        """Work with this router from now on. The old one is not told: it may be out of reach."""
        self._drop()
        self._network, self._failures = network, 0
        self._askers = ()
        if network is not None:
            self._pcp = Pcp(network, self._outputs.append, self._nonce)
            self._pmp = Pmp(network, self._outputs.append)
            self._igd = Igd(network, self._outputs.append, self._randbytes, self._numbers)
            self._askers = (self._pcp, self._pmp, self._igd)
        self._begin(now)

    def set_port(self, now: float, port: int) -> None:
        """Map this port from now on; 0: none."""
        if port == self._port:
            return
        self._undo()
        self._port, self._failures = port, 0
        self._begin(now)

    def release(self) -> None:
        """Undo the mapping, and do nothing more until a network is set."""
        self._undo()
        self._started = self._retry = None
        self._askers = ()

    def gateway_datagram(self, now: float, data: bytes) -> None:
        """Take a datagram from port 5351 of the router, or from its announcements."""
        if not self._askers:
            return
        if not receive(now, data, self._pcp, self._pmp):
            self.refused += 1
        self._go_on(now)

    def gateway_silent(self, now: float) -> None:
        """Take that nothing listens on port 5351 of the router."""
        for asker in self._askers[:2]:
            if asker.available is None:
                asker.available = False
        self._go_on(now)

    def found(self, now: float, data: bytes) -> None:
        """Take an answer to a search that came from the router."""
        if not self._askers:
            return
        try:
            known = self._igd.found(ssdp.decode_found(data))
        except Malformed:
            known = False
        self.refused += not known
        self._go_on(now)

    def answered(self, now: float, number: int, body: bytes) -> None:
        """Take the body of an HTTP answer."""
        if self._askers:
            self._igd.answered(now, number, body)
            self._go_on(now)

    def failed(self, now: float, number: int, reason: str) -> None:
        """Take that an HTTP request came to nothing."""
        if self._askers:
            self._igd.failed(number, reason)
            self._go_on(now)

    def handle_timeout(self, now: float) -> None:
        """Do what is due."""
        for asker in self._askers:
            asker.handle_timeout(now)
        if self._retry is not None and now >= self._retry:
            self._begin(now)
        self._go_on(now)

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` has something to do; None: never."""
        times = [asker.next_timeout() for asker in self._askers]
        if self._started is not None:
            times.append(self._started + (*PROBES, PROBING)[self._probes])
        times.append(self._retry)
        if self._holder is not None and self._holder.state is not State.ASKING:
            times += [self._renew, self._check]
        return min((one for one in times if one is not None), default=None)

    def poll(self) -> Output | None:
        """Return what to do next."""
        return self._outputs.popleft() if self._outputs else None

    def report(self) -> PortMapReport:
        """Tell how it stands."""
        if self._network is None or not self._askers:
            return PortMapReport(error="there is no default route" if self._network is None else "")
        lease = self._lease
        return PortMapReport(
            pcp=self._pcp.available,
            pmp=self._pmp.available,
            upnp=self._igd.available,
            gateway=str(self._network.gateway),
            external=lease.endpoint if lease is not None else None,
            via=self._holder.protocol if self._holder is not None else None,
            double_nat=self._is_private(lease),
            error=self._error(),
        )

    def _is_private(self, lease: Lease | None) -> bool:
        if lease is not None:
            return not is_public(lease.address)
        return bool(self._private) or any(asker.addressless for asker in self._askers)

    def _error(self) -> str:
        if self._holder is None and self._askers and all(one.available is False for one in self._askers):
            return "the router answers neither PCP nor NAT-PMP nor UPnP"
        return "; ".join(f"{one.protocol}: {one.error}" for one in self._askers if one.error)

    # Rounds

    @property
    def _lease(self) -> Lease | None:
        return self._holder.lease if self._holder is not None else None

    def _begin(self, now: float) -> None:
        """Begin a round."""
        self._started = self._retry = None
        if not self._askers or not self._port:
            return
        for asker in self._askers:
            asker.state, asker.error, asker.available, asker.addressless = State.IDLE, "", None, False
        self._started, self._probes = now, 0
        self._private, self._content = [], False
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        """Take the next step, if there is one."""
        if self._started is not None:
            self._probe(now)
        if self._holder is not None:
            self._keep(now, self._holder)
        elif self._askers and self._port:
            self._choose(now)

    def _probe(self, now: float) -> None:
        assert self._started is not None
        if self._probes < len(PROBES):  # one a call, so that who was suspended hears answers before it concludes
            if now >= self._started + PROBES[self._probes]:
                self._probes += 1
                for asker in self._askers:
                    if asker.available is None:
                        asker.probe()
        elif now >= self._started + PROBING:
            self._started = None
            for asker in self._askers:
                asker.available = bool(asker.available)

    def _choose(self, now: float) -> None:
        """Ask the best protocol that may still grant, unless a better one may still turn up.

        A private address is given back for the chance of a public one: two mappings at once would be one to many
        routers, which keep a single table for all protocols.
        """
        if any(asker.state is State.ASKING for asker in self._askers):
            return
        granted = next((asker for asker in self._askers if asker.state is State.GRANTED), None)
        if granted is not None and granted.lease is not None and is_public(granted.lease.address):
            self._adopt(now, granted)
            return
        unknown = self._started is not None and any(asker.available is None for asker in self._askers)
        early = self._started is not None and now < self._started + GRACE
        candidate = self._candidate(patient=early or granted is not None)
        if candidate is not None:
            if granted is not None:
                granted.release()
                granted.state = State.REFUSED
                self._private.append(granted)
            self._ask(now, candidate)
        elif unknown:
            return
        elif granted is not None:
            self._adopt(now, granted)
        elif self._private and not self._content:
            self._content = True
            self._ask(now, self._private[0])
        elif self._retry is None:
            self._retry = now + RETRIES[min(self._failures, len(RETRIES) - 1)]
            self._failures += 1

    def _candidate(self, *, patient: bool) -> Asker | None:
        """Return who is to be asked next; a patient one waits for better protocols to be known."""
        for asker in self._askers:
            if asker.available is None and patient:
                return None
            if asker.available and asker.state is State.IDLE:
                return asker
        return None

    def _ask(self, now: float, asker: Asker) -> None:
        self._asked = now
        asker.ask(now, self._port)
        if asker.state is not State.ASKING:
            self._go_on(now)

    def _adopt(self, now: float, asker: Asker) -> None:
        self._holder, self._retry, self._failures = asker, None, 0
        self._note_lease(now)

    # Keeping

    def _note_lease(self, now: float) -> None:
        lease = self._lease
        assert lease is not None
        self._renew, self._check = max(lease.half, now + SHORTEST_RENEWAL), now + CHECK
        self._outputs.append(Mapped((lease.endpoint,)))

    def _keep(self, now: float, holder: Asker) -> None:
        """Renew in time, notice when the router has forgotten, and begin anew when it will not have us any more."""
        lease = holder.lease
        assert lease is not None
        if holder.state is State.ASKING:
            return
        if holder.state is State.GRANTED and lease.granted >= self._asked and self._renewing:
            self._renewing = False
            self._note_lease(now)
        elif holder.state is State.REFUSED:
            self._renewal_failed(now, holder, lease)
            return
        if holder.lost:
            self._renew = min(self._renew, max(now, self._asked + SHORTEST_RENEWAL))
        if now >= self._renew:
            self._renewing = True
            self._ask(now, holder)
        elif now >= self._check:
            self._check = now + CHECK
            holder.probe()

    def _renewal_failed(self, now: float, holder: Asker, lease: Lease) -> None:
        holder.state, self._renewing = State.GRANTED, False
        if holder.lost or now >= lease.ends:
            self._drop()
            self._begin(now)
        else:
            self._renew = now + max(SHORTEST_RENEWAL, (lease.ends - now) / 2)

    # Ending

    def _drop(self) -> None:
        """Forget the mapping without a word to the router."""
        for asker in self._askers:
            asker.lease, asker.lost = None, False
        if self._holder is not None:
            self._holder = None
            self._outputs.append(Mapped(()))

    def _undo(self) -> None:
        for asker in self._askers:
            asker.release()
        self._drop()
