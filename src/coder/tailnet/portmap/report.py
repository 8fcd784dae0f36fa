"""What came of asking the router for a port: for `coder netcheck`, `coder doctor` and whoever wonders."""

from dataclasses import dataclass
from enum import StrEnum


class Protocol(StrEnum):
    """The ways to ask, best first."""

    PCP = "PCP"
    PMP = "NAT-PMP"
    UPNP = "UPnP"


@dataclass(frozen=True, slots=True, kw_only=True)
class PortMapReport:
    """What the router in front of us can do and has done.

    The three protocols are None while it is not known, True once the router has spoken it (be it to refuse), False when
    it said that it does not, or stayed silent to several questions.
    """

    upnp: bool | None = None
    pmp: bool | None = None
    pcp: bool | None = None
    gateway: str | None = None
    """Address of the router that was asked; None: port mapping is off, or there is no default route."""
    external: str | None = None
    """`ip:port` at which the router now forwards to our UDP port; None: no mapping."""
    via: Protocol | None = None
    """By which protocol it was granted."""
    double_nat: bool = False
    """The router's external address is private or a carrier's (100.64.0.0/10), or it says that it has none: another NAT
    stands before the Internet, and a mapping only helps peers behind that one."""
    error: str = ""
    """Why there is no mapping, or why a better protocol gave none: one line for a person. Empty: nothing to say."""
