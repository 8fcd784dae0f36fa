"""UPnP Internet Gateway Device, versions 1 and 2: which services a router has, and calls to them by SOAP.

Sources: UPnP Device Architecture 1.1 (descriptions, section 2; control, section 3), WANIPConnection:1 and :2,
WANPPPConnection:1. How the documents are fetched is the caller's affair; a router's URLs are claims to be checked.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address
from typing import Final
from urllib.parse import urljoin, urlsplit
from xml.sax.saxutils import escape  # writes text, reads none

from coder.errors import Malformed
from coder.wire import boundedxml

GATEWAY_1: Final = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
GATEWAY_2: Final = "urn:schemas-upnp-org:device:InternetGatewayDevice:2"
IP_1: Final = "urn:schemas-upnp-org:service:WANIPConnection:1"
IP_2: Final = "urn:schemas-upnp-org:service:WANIPConnection:2"
PPP_1: Final = "urn:schemas-upnp-org:service:WANPPPConnection:1"

INVALID_ACTION: Final = 401
NO_SUCH_ENTRY: Final = 714
CONFLICT: Final = 718
SAME_PORTS: Final = 724
"""The external port must be the internal one."""
ONLY_PERMANENT: Final = 725
"""The router knows no leases that end."""
OTHER_MECHANISM: Final = 729
"""The port is mapped by something else, such as PCP."""

_KINDS: Final = (IP_2, IP_1, PPP_1)
_ENVELOPE: Final = "http://schemas.xmlsoap.org/soap/envelope/"
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_PATH: Final = re.compile(r"/[!-~]{0,1023}")


@dataclass(frozen=True, slots=True)
class Url:
    """An `http` URL with an IPv4 address for a host: nothing else is fetched from a router."""

    host: IPv4Address
    port: int
    path: str

    @classmethod
    def parse(cls, text: str, base: "Url | None" = None) -> "Url":
        """Read a URL, a relative one if there is a base. Raises Malformed."""
        try:
            parts = urlsplit(urljoin(str(base), text) if base is not None else text)
            host, port = IPv4Address(parts.hostname or ""), parts.port
        except (AddressValueError, ValueError):
            raise Malformed("a router's URL has no IPv4 address or no proper port") from None
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if parts.scheme != "http" or "@" in parts.netloc or not _PATH.fullmatch(path) or port == 0:
            raise Malformed("a router's URL is not plain http")
        return cls(host, 80 if port is None else port, path)

    def __str__(self) -> str:
        return f"http://{self.host}:{self.port}{self.path}"


@dataclass(frozen=True, slots=True)
class Service:
    """A service that maps ports."""

    type: str
    control: Url


@dataclass(frozen=True, slots=True)
class Call:
    """An action of a service, with its arguments in their order."""

    service: str
    action: str
    arguments: Mapping[str, str] = field(default_factory=dict)

    @property
    def soap_action(self) -> str:
        """The value of the header SOAPACTION."""
        return f'"{self.service}#{self.action}"'


@dataclass(frozen=True, slots=True)
class Fault:
    """The router's no, with UPnP's error code (0 when it gave none)."""

    code: int
    text: str


def read_services(document: bytes, location: Url) -> tuple[Service, ...]:
    """Return what a device's description offers for mapping ports, newest kind first. Raises Malformed.

    A service whose URL cannot be used is left out.
    """
    root = boundedxml.parse(document)
    base = location
    if root.value("URLBase"):
        base = Url.parse(root.value("URLBase"))
    found = []
    for element in root.walk():
        kind, control = element.value("serviceType"), element.value("controlURL")
        if element.name != "service" or kind not in _KINDS or not control:
            continue
        try:
            found.append(Service(kind, Url.parse(control, base)))
        except Malformed:
            continue
    return tuple(sorted(found, key=lambda service: _KINDS.index(service.type)))


def add_mapping(
    service: str, *, any_port: bool, external: int, internal: int, client: IPv4Address, lease: int, about: str
) -> Call:
    """Make AddPortMapping, or with `any_port` AddAnyPortMapping (WANIPConnection:2), for UDP; `lease` is in seconds."""
    arguments = _mapping(external) | {
        "NewInternalPort": str(internal),
        "NewInternalClient": str(client),
        "NewEnabled": "1",
        "NewPortMappingDescription": about,
        "NewLeaseDuration": str(lease),
    }
    return Call(service, "AddAnyPortMapping" if any_port else "AddPortMapping", arguments)


def delete_mapping(service: str, external: int) -> Call:
    """Make DeletePortMapping for UDP."""
    return Call(service, "DeletePortMapping", _mapping(external))


def get_address(service: str) -> Call:
    """Make GetExternalIPAddress."""
    return Call(service, "GetExternalIPAddress")


def get_status(service: str) -> Call:
    """Make GetStatusInfo."""
    return Call(service, "GetStatusInfo")


def reserved_port(values: Mapping[str, str]) -> int:
    """Return the external port that AddAnyPortMapping chose. Raises Malformed."""
    text = values.get("NewReservedPort", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
        raise Malformed("the router names no proper port")
    return int(text)


def external_address(values: Mapping[str, str]) -> IPv4Address:
    """Return what GetExternalIPAddress told. Raises Malformed, also when there is none."""
    try:
        return IPv4Address(values.get("NewExternalIPAddress", ""))
    except AddressValueError:
        raise Malformed("the router names no external address") from None


def encode_call(call: Call) -> bytes:
    """Write the body of a call."""
    inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in call.arguments.items())
    return _envelope(f'<u:{call.action} xmlns:u="{escape(call.service)}">{inner}</u:{call.action}>')


def decode_call(soap_action: str, body: bytes) -> Call:
    """Read a call, as a router does. Raises Malformed."""
    service, _, action = soap_action.strip('"').partition("#")
    element = _body(body)
    if element.name != action or not _NAME.fullmatch(action):
        raise Malformed("SOAPACTION and the body name different actions")
    return Call(service, action, _values(element))


def encode_answer(call: Call, values: Mapping[str, str] | Fault) -> bytes:
    """Write the answer to a call, as a router does."""
    if isinstance(values, Fault):
        return _envelope(
            "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>"
            '<UPnPError xmlns="urn:schemas-upnp-org:control-1-0">'
            f"<errorCode>{values.code}</errorCode><errorDescription>{escape(values.text)}</errorDescription>"
            "</UPnPError></detail></s:Fault>"
        )
    inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in values.items())
    name = f"{call.action}Response"
    return _envelope(f'<u:{name} xmlns:u="{escape(call.service)}">{inner}</u:{name}>')


def decode_answer(call: Call, body: bytes) -> dict[str, str] | Fault:
    """Read the answer to a call: its values or the fault. Raises Malformed."""
    element = _body(body)
    if element.name == "Fault":
        code = element.value("detail", "UPnPError", "errorCode")
        text = element.value("detail", "UPnPError", "errorDescription") or element.value("faultstring")
        known = code.isascii() and code.isdigit() and len(code) <= 4
        return Fault(int(code) if known else 0, text)
    if element.name != f"{call.action}Response":
        raise Malformed(f"the router answers something else than {call.action}")
    return _values(element)


def _mapping(external: int) -> dict[str, str]:
    return {"NewRemoteHost": "", "NewExternalPort": str(external), "NewProtocol": "UDP"}


def _envelope(inner: str) -> bytes:
    return (
        '<?xml version="1.0"?>\r\n'
        f'<s:Envelope xmlns:s="{_ENVELOPE}" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">'
        f"<s:Body>{inner}</s:Body></s:Envelope>\r\n"
    ).encode()


def _body(document: bytes) -> boundedxml.Element:
    """Return the one element in the envelope's body."""
    root = boundedxml.parse(document)
    body = root.child("Body") if root.name == "Envelope" else None
    if body is None or len(body.children) != 1:
        raise Malformed("not a SOAP message")
    return body.children[0]


def _values(element: boundedxml.Element) -> dict[str, str]:
    return {one.name: one.text for one in element.children}
