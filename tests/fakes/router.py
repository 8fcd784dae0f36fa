"""A home router as port mapping sees it: PCP, NAT-PMP and UPnP over one table of mappings. Bytes in, bytes out."""

from dataclasses import dataclass, field
from ipaddress import IPv4Address

from coder.errors import Malformed
from coder.wire import natpmp, ssdp
from coder.wire import pcp as pcp_wire
from coder.wire import upnp as igd
from coder.wire.upnp import Call, Fault

ADDRESS = IPv4Address("192.168.1.1")
EXTERNAL = IPv4Address("5.9.0.1")
CONTROL, DESCRIPTION = "/ctl/IPConn", "/rootDesc.xml"


@dataclass
class Entry:
    internal: int
    lifetime: int
    nonce: bytes = b""


@dataclass
class FakeRouter:
    pcp: bool = True
    pmp: bool = True
    upnp: bool = True
    listens: bool = True
    """Whether the machine answers at all, be it with an ICMP error."""
    address: IPv4Address = ADDRESS
    external: IPv4Address = EXTERNAL
    http_port: int = 5000
    service: str = igd.IP_1
    lifetime: int | None = None
    """Grants this many seconds instead of what is asked for."""
    refuse: int = 0
    """Result or error code with which it refuses every mapping."""
    permanent_only: bool = False
    table: dict[int, Entry] = field(default_factory=dict)
    """Mappings by external port."""
    taken: set[int] = field(default_factory=set)
    """External ports that belong to others."""
    booted: float = 0.0
    log: list[str] = field(default_factory=list)
    """What it was asked, one word each."""

    def restart(self, now: float) -> None:
        self.booted = now
        self.table.clear()

    # Port 5351

    def datagram(self, now: float, data: bytes) -> bytes | None:
        epoch = int(now - self.booted)
        if data[0] == pcp_wire.VERSION:
            if self.pcp:
                return pcp_wire.encode_response(self._pcp(pcp_wire.decode_request(data), epoch))
            self.log.append("pcp?")
            refusal = natpmp.Refusal(opcode=data[1], result=natpmp.Result.UNSUPPORTED_VERSION, epoch=epoch)
            return natpmp.encode_response(refusal) if self.pmp else None
        return natpmp.encode_response(self._pmp(natpmp.decode_request(data), epoch)) if self.pmp else None

    def announce(self, now: float) -> bytes:
        return pcp_wire.encode_response(pcp_wire.Response(opcode=0, result=0, lifetime=0, epoch=int(now - self.booted)))

    def _pcp(self, request: pcp_wire.Request, epoch: int) -> pcp_wire.Response:
        wanted = request.mapping
        if wanted is None:
            self.log.append("announce")
            return pcp_wire.Response(opcode=0, result=0, lifetime=0, epoch=epoch)
        self.log.append("pcp-map" if request.lifetime else "pcp-unmap")
        if self.refuse and request.lifetime:
            return pcp_wire.Response(opcode=1, result=self.refuse, lifetime=30, epoch=epoch, mapping=wanted)
        port = self._map(wanted.internal_port, wanted.external_port, request.lifetime, wanted.nonce)
        granted = pcp_wire.Mapping(
            nonce=wanted.nonce, internal_port=wanted.internal_port, external_port=port, external_address=self.external
        )
        lifetime = self._granted(request.lifetime)
        return pcp_wire.Response(opcode=1, result=0, lifetime=lifetime, epoch=epoch, mapping=granted)

    def _pmp(self, request: natpmp.Request, epoch: int) -> natpmp.Response:
        if isinstance(request, natpmp.AddressRequest):
            self.log.append("pmp-address")
            return natpmp.AddressResponse(epoch=epoch, address=self.external)
        self.log.append("pmp-map" if request.lifetime else "pmp-unmap")
        if self.refuse and request.lifetime:
            return natpmp.Refusal(opcode=request.opcode, result=self.refuse, epoch=epoch)
        port = self._map(request.internal_port, request.external_port, request.lifetime, b"")
        return natpmp.MapResponse(
            opcode=request.opcode,
            epoch=epoch,
            internal_port=request.internal_port,
            external_port=port,
            lifetime=self._granted(request.lifetime),
        )

    def _granted(self, lifetime: int) -> int:
        return lifetime if self.lifetime is None or not lifetime else self.lifetime

    def _map(self, internal: int, external: int, lifetime: int, nonce: bytes) -> int:
        for port, entry in list(self.table.items()):
            if entry.internal == internal:
                del self.table[port]
        if lifetime == 0:
            return external
        port = external or internal
        while port in self.taken or port in self.table:
            port += 1
        self.table[port] = Entry(internal, lifetime, nonce)
        return port

    # UPnP

    def search(self, data: bytes) -> bytes | None:
        target = ssdp.decode_search(data).target
        self.log.append("search")
        if not self.upnp or target != igd.GATEWAY_1:
            return None
        url = f"http://{self.address}:{self.http_port}{DESCRIPTION}"
        return ssdp.encode_found(ssdp.Found(target=target, usn=f"uuid:1::{target}", location=url, server="Fake/1"))

    def http(self, now: float, path: str, soap_action: str, body: bytes) -> bytes | None:
        if path == DESCRIPTION:
            self.log.append("describe")
            return self.description()
        try:
            call = igd.decode_call(soap_action, body)
        except Malformed:
            return None
        self.log.append(call.action)
        return igd.encode_answer(call, self._act(now, call))

    def description(self) -> bytes:
        service = f"<service><serviceType>{self.service}</serviceType><controlURL>{CONTROL}</controlURL></service>"
        return f'<root xmlns="x"><device><serviceList>{service}</serviceList></device></root>'.encode()

    def _act(self, now: float, call: Call) -> dict[str, str] | Fault:
        match call.action:
            case "GetStatusInfo":
                return {"NewConnectionStatus": "Connected", "NewUptime": str(int(now - self.booted))}
            case "GetExternalIPAddress":
                return {"NewExternalIPAddress": str(self.external)}
            case "DeletePortMapping":
                gone = self.table.pop(int(call.arguments["NewExternalPort"]), None)
                return {} if gone is not None else Fault(igd.NO_SUCH_ENTRY, "NoSuchEntryInArray")
            case "AddPortMapping" | "AddAnyPortMapping":
                return self._add(call)
        return Fault(igd.INVALID_ACTION, "Invalid Action")

    def _add(self, call: Call) -> dict[str, str] | Fault:
        external, internal = (int(call.arguments[name]) for name in ("NewExternalPort", "NewInternalPort"))
        lease = int(call.arguments["NewLeaseDuration"])
        if self.refuse:
            return Fault(self.refuse, "Action not authorized")
        if self.permanent_only and lease:
            return Fault(igd.ONLY_PERMANENT, "OnlyPermanentLeasesSupported")
        if call.action == "AddAnyPortMapping":
            if self.service != igd.IP_2:
                return Fault(igd.INVALID_ACTION, "Invalid Action")
            return {"NewReservedPort": str(self._map(internal, external, lease or 1, b""))}
        if external in self.taken:
            return Fault(igd.CONFLICT, "ConflictInMappingEntry")
        self.table[external] = Entry(internal, lease)
        return {}
