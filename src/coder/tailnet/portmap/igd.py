"""UPnP IGD: finds the router's service for mapping ports and asks it, one HTTP request after the other."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from coder.errors import Malformed
from coder.tailnet.portmap import epoch
from coder.tailnet.portmap.asker import Asker, State
from coder.tailnet.portmap.report import Protocol
from coder.tailnet.portmap.values import LEASE, Http, Lease, Network, Output, ToSsdp, is_nowhere
from coder.wire import ssdp, upnp
from coder.wire.upnp import Call, Fault, Service, Url

if TYPE_CHECKING:
    from ipaddress import IPv4Address

ABOUT: Final = "coder"
"""What the router's own pages show beside the mapping."""

_TRIES: Final = 4  # ports, when those we would like are taken
_FIRST_PORT: Final = 1024
_MULTICAST_WAIT: Final = 1  # seconds over which devices spread their answers: the least there is
_MAX_TEXT: Final = 80  # characters of a router's own words that are shown


class Igd(Asker):
    """A client of UPnP IGD, versions 1 and 2."""

    protocol = Protocol.UPNP

    def __init__(
        self,
        network: Network,
        emit: Callable[[Output], None],
        randbytes: Callable[[int], bytes],
        numbers: Iterator[int],
    ) -> None:
        super().__init__(network, emit)
        self._randbytes = randbytes
        self._numbers = numbers
        self._epoch = epoch.natpmp()
        self._location: Url | None = None
        self._services: tuple[Service, ...] | None = None
        self._service = 0
        self._number = 0
        self._then: Callable[[float, bytes], None] | None = None
        """What the answer to the request under way is for; None: there is none."""
        self._port = 0
        self._external = 0
        self._address: IPv4Address | None = None
        self._lease = LEASE
        self._any_port = False
        self._tries = 0
        self._may_exist = False
        """Whether the router may have a mapping of ours."""

    # Discovery

    def probe(self) -> None:
        """Search for a gateway by multicast and at the router itself; with a lease ask how the connection is."""
        if self.lease is not None:
            self._call(upnp.get_status, self._checked)
            return
        self._services = None
        for target in (upnp.GATEWAY_1, upnp.GATEWAY_2):
            search = ssdp.Search(target=target, wait=_MULTICAST_WAIT)
            self.emit(ToSsdp(ssdp.encode_search(search), multicast=True))
        host = f"{self.network.gateway}:{ssdp.PORT}"
        self.emit(ToSsdp(ssdp.encode_search(ssdp.Search(target=upnp.GATEWAY_1, host=host)), multicast=False))

    def found(self, found: ssdp.Found) -> bool:
        """Take the answer to a search; False when it names no gateway, or a description that is not on the router."""
        try:
            location = Url.parse(found.location)
        except Malformed:
            return False
        if location.host != self.network.gateway or ":InternetGatewayDevice:" not in found.target:
            return False
        self.available = True
        if location != self._location and self.state in {State.IDLE, State.REFUSED}:
            self._location, self._services = location, None
        return True

    # Asking

    def ask(self, now: float, port: int) -> None:
        """Ask for a mapping of UDP port `port`, or for its renewal."""
        self.state, self._port, self._service, self._tries = State.ASKING, port, 0, 0
        self._external = self.lease.port if self.lease is not None else port
        if self._services is None and self._location is not None:
            self._request(Http(self._next(), self._location), self._described)
        else:
            self._begin(now)

    def release(self) -> None:
        """Undo the mapping, also one that is just being asked for."""
        if self._services and self._may_exist:
            port = self.lease.port if self.lease is not None else self._external
            self._call(lambda service: upnp.delete_mapping(service, port), lambda _now, _body: None)
        else:
            self._then = None
        self.lease, self.state, self._may_exist = None, State.IDLE, False

    def answered(self, now: float, number: int, body: bytes) -> None:
        """Take the body of an answer."""
        if number != self._number or self._then is None:
            return
        then, self._then = self._then, None
        then(now, body)

    def failed(self, number: int, reason: str) -> None:
        """Take that there was no proper answer."""
        if number == self._number and self._then is not None:
            self._then = None
            if self.state is State.ASKING:
                self.refuse(reason)

    def _described(self, now: float, document: bytes) -> None:
        assert self._location is not None
        try:
            services = upnp.read_services(document, self._location)
        except Malformed as error:
            self.refuse(f"its description is {error}")
            return
        self._services = tuple(one for one in services if one.control.host == self.network.gateway)
        self._begin(now)

    def _begin(self, now: float) -> None:
        if not self._services:
            self.refuse("it offers no service for port mappings")
            return
        self._any_port = self._current.type == upnp.IP_2
        self._call(upnp.get_status, self._status)
        del now

    def _status(self, now: float, body: bytes) -> None:
        """Go on to the next service when this one has no connection; what it says is no more than a hint."""
        values = self._values(upnp.get_status, body)
        connected = isinstance(values, dict) and values.get("NewConnectionStatus", "Connected") == "Connected"
        self._note_uptime(now, values)
        if not connected and self._service + 1 < len(self._services or ()):
            self._service += 1
            self._begin(now)
            return
        self._call(upnp.get_address, self._addressed)

    def _addressed(self, now: float, body: bytes) -> None:
        del now
        values = self._values(upnp.get_address, body)
        try:
            if isinstance(values, Fault):
                self.refuse(_told(values))
                return
            self._address = upnp.external_address(values)
        except Malformed:
            self.refuse_addressless()
            return
        if is_nowhere(self._address):
            self.refuse_addressless()
            return
        self._add()

    def _add(self) -> None:
        self._may_exist = True
        self._call(self._adding, self._added)

    def _adding(self, service: str) -> Call:
        return upnp.add_mapping(
            service,
            any_port=self._any_port,
            external=self._external,
            internal=self._port,
            client=self.network.local,
            lease=self._lease,
            about=ABOUT,
        )

    def _added(self, now: float, body: bytes) -> None:
        values = self._values(self._adding, body)
        if isinstance(values, Fault):
            self._refused(values)
            return
        try:
            port = upnp.reserved_port(values) if self._any_port else self._external
        except Malformed as error:
            self.refuse(str(error))
            return
        assert self._address is not None
        self.grant(Lease(address=self._address, port=port, granted=now, lifetime=LEASE))

    def _refused(self, fault: Fault) -> None:
        """Ask once more, differently, when the router says what it did not like."""
        self._tries += 1
        self._may_exist = self.lease is not None  # what holds the port now may be another's
        if self._tries > _TRIES:
            self.refuse(_told(fault))
        elif fault.code == upnp.ONLY_PERMANENT and self._lease:
            self._lease = 0
            self._add()
        elif fault.code == upnp.SAME_PORTS and self._external != self._port:
            self._external = self._port
            self._add()
        elif fault.code in {upnp.CONFLICT, upnp.OTHER_MECHANISM}:
            self._external = _FIRST_PORT + int.from_bytes(self._randbytes(4)) % (65536 - _FIRST_PORT)
            self._add()
        elif self._any_port:
            self._any_port = False  # many claim to be WANIPConnection:2 and are not
            self._add()
        else:
            self.refuse(_told(fault))

    # Watching

    def _checked(self, now: float, body: bytes) -> None:
        """See whether the connection has begun anew, and whether it has still the same address."""
        self._note_uptime(now, self._values(upnp.get_status, body))
        self._call(upnp.get_address, self._still_addressed)

    def _still_addressed(self, now: float, body: bytes) -> None:
        del now
        try:
            values = self._values(upnp.get_address, body)
            address = None if isinstance(values, Fault) else upnp.external_address(values)
        except Malformed:
            return
        if self.lease is not None and address is not None and address != self.lease.address:
            self.lost = True

    def _note_uptime(self, now: float, values: Mapping[str, str] | Fault) -> None:
        uptime = "" if isinstance(values, Fault) else values.get("NewUptime", "")
        if uptime.isascii() and uptime.isdigit() and len(uptime) <= 10 and self._epoch.restarted(now, int(uptime)):
            self.lost = self.lease is not None

    # Requests

    @property
    def _current(self) -> Service:
        assert self._services
        return self._services[self._service]

    def _call(self, make: Callable[[str], Call], then: Callable[[float, bytes], None]) -> None:
        service = self._current
        call = make(service.type)
        self._request(Http(self._next(), service.control, call.soap_action, upnp.encode_call(call)), then)

    def _request(self, request: Http, then: Callable[[float, bytes], None]) -> None:
        self._then = then
        self.emit(request)

    def _next(self) -> int:
        self._number = next(self._numbers)
        return self._number

    def _values(self, make: Callable[[str], Call], body: bytes) -> dict[str, str] | Fault:
        """Read the answer to a call; one that makes no sense is as good as a fault."""
        try:
            return upnp.decode_answer(make(self._current.type), body)
        except Malformed as error:
            return Fault(0, str(error))


def _told(fault: Fault) -> str:
    words = "".join(one if one.isprintable() else " " for one in fault.text[:_MAX_TEXT])
    return "it refused" + (f": {words}" if words else "") + (f" ({fault.code})" if fault.code else "")
