"""PCP and NAT-PMP: two protocols on one port of the router."""

from collections.abc import Callable
from ipaddress import IPv4Address

from coder.errors import Malformed
from coder.tailnet.portmap import epoch
from coder.tailnet.portmap.asker import Resending, State
from coder.tailnet.portmap.report import Protocol
from coder.tailnet.portmap.values import LEASE, SHORTEST_LEASE, Lease, Network, Output, ToGateway, is_nowhere
from coder.wire import natpmp, pcp

TOO_SHORT = "it grants too short a lease"


class Pcp(Resending):
    """A client of PCP."""

    protocol = Protocol.PCP

    def __init__(self, network: Network, emit: Callable[[Output], None], nonce: bytes) -> None:
        super().__init__(network, emit)
        self._nonce = nonce
        self._epoch = epoch.pcp()

    def probe(self) -> None:
        """Send ANNOUNCE, which asks for nothing but an answer."""
        self.emit(ToGateway(pcp.encode_request(pcp.Request(client=self.network.local))))

    def requests(self) -> list[bytes]:
        """Return the MAP."""
        return [self._map(LEASE)]

    def release(self) -> None:
        """Undo the mapping, also one that is just being asked for."""
        if self.lease is not None or self.state is State.ASKING:
            self.emit(ToGateway(self._map(0)))
        self.lease, self.state = None, State.IDLE

    def handle(self, now: float, response: pcp.Response) -> None:
        """Take a message of the router."""
        self.available = True
        restarted = self._epoch.restarted(now, response.epoch)
        mapping = response.mapping
        about_us = (
            self.state is State.ASKING
            and response.opcode == pcp.Opcode.MAP
            and (
                mapping is None
                or (mapping.nonce == self._nonce and mapping.protocol == pcp.UDP and mapping.internal_port == self.port)
            )
        )
        if not about_us:
            self.lost = self.lost or restarted
        elif response.result != pcp.Result.SUCCESS or mapping is None:
            self.refuse(_name(pcp.Result, response.result))
        elif response.lifetime < SHORTEST_LEASE:
            self.refuse(TOO_SHORT)
        elif not isinstance(mapping.external_address, IPv4Address) or is_nowhere(mapping.external_address):
            self.refuse_addressless()
        elif mapping.external_port:
            self.grant(_lease(now, mapping.external_address, mapping.external_port, response.lifetime))

    def _map(self, lifetime: int) -> bytes:
        wanted = self.lease if lifetime else None
        mapping = pcp.Mapping(
            nonce=self._nonce,
            internal_port=self.port,
            external_port=wanted.port if wanted is not None else self.port if lifetime else 0,
            external_address=wanted.address if wanted is not None else pcp.ANY,
        )
        return pcp.encode_request(pcp.Request(client=self.network.local, lifetime=lifetime, mapping=mapping))


class Pmp(Resending):
    """A client of NAT-PMP. A mapping takes two answers: the port, and the address."""

    protocol = Protocol.PMP

    def __init__(self, network: Network, emit: Callable[[Output], None]) -> None:
        super().__init__(network, emit)
        self._epoch = epoch.natpmp()
        self._address: IPv4Address | None = None
        self._mapped: tuple[int, int] | None = None
        """External port and lifetime of the mapping being asked for."""

    def probe(self) -> None:
        """Ask for the external address."""
        self.emit(ToGateway(natpmp.encode_request(natpmp.AddressRequest())))

    def ask(self, now: float, port: int) -> None:
        """Ask for a mapping of UDP port `port`, or for its renewal."""
        self._mapped = None
        if self.lease is not None:
            self._address = None  # it may have changed
        super().ask(now, port)

    def requests(self) -> list[bytes]:
        """Return what is still to be answered: the request for the mapping, that for the address."""
        wanted = self.lease.port if self.lease is not None else self.port
        requests: list[natpmp.Request] = []
        if self._address is None:
            requests.append(natpmp.AddressRequest())
        if self._mapped is None:
            requests.append(natpmp.MapRequest(internal_port=self.port, external_port=wanted, lifetime=LEASE))
        return [natpmp.encode_request(request) for request in requests]

    def release(self) -> None:
        """Undo the mapping, also one that is just being asked for."""
        if self.lease is not None or self.state is State.ASKING:
            undo = natpmp.MapRequest(internal_port=self.port, external_port=0, lifetime=0)
            self.emit(ToGateway(natpmp.encode_request(undo)))
        self.lease, self.state = None, State.IDLE

    def handle(self, now: float, response: natpmp.Response) -> None:
        """Take a message of the router."""
        self.available = True
        restarted = self._epoch.restarted(now, response.epoch)
        asking = self.state is State.ASKING
        match response:
            case natpmp.AddressResponse():
                moved = self.lease is not None and self.lease.address != response.address
                self.lost = self.lost or ((restarted or moved) and not asking)
                self._address = response.address
            case natpmp.MapResponse() if asking and response.opcode == natpmp.Opcode.MAP_UDP:
                if response.internal_port == self.port and response.external_port:
                    self._mapped = (response.external_port, response.lifetime)
            case natpmp.Refusal(result=natpmp.Result.NETWORK_FAILURE) if asking:
                self.refuse_addressless()
                return
            case natpmp.Refusal() if asking:
                self.refuse(_name(natpmp.Result, response.result))
                return
            case _:
                self.lost = self.lost or restarted
        if asking and self._mapped is not None and self._address is not None:
            self._judge(now, self._address, *self._mapped)

    def _judge(self, now: float, address: IPv4Address, port: int, lifetime: int) -> None:
        if is_nowhere(address):
            self.refuse_addressless()
        elif lifetime < SHORTEST_LEASE:
            self.refuse(TOO_SHORT)
        else:
            self.grant(_lease(now, address, port, lifetime))


def receive(now: float, data: bytes, pcp_client: Pcp, pmp_client: Pmp) -> bool:
    """Give a datagram from the router's port 5351 to the client it is for; return whether it made sense."""
    try:
        if data[:1] == bytes((pcp.VERSION,)):
            pcp_client.handle(now, pcp.decode_response(data))
            return True
        response = natpmp.decode_response(data)
    except Malformed:
        return False
    if isinstance(response, natpmp.Refusal) and response.result == natpmp.Result.UNSUPPORTED_VERSION:
        # Says a router without PCP of our PCP, or one without NAT-PMP of our NAT-PMP (RFC 6887, appendix A). The
        # latter answers PCP as well, which corrects this.
        if pcp_client.available is None:
            pcp_client.available = False
    else:
        pmp_client.handle(now, response)
    return True


def _lease(now: float, address: IPv4Address, port: int, lifetime: int) -> Lease:
    return Lease(address=address, port=port, granted=now, lifetime=min(lifetime, LEASE))


def _name(kind: type[natpmp.Result | pcp.Result], number: int) -> str:
    try:
        return f"it refused: {kind(number).name.lower().replace('_', ' ')}"
    except ValueError:
        return f"it refused with result {number}"
