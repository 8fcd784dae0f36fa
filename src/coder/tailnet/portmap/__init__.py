"""Port mappings: the router is asked to forward one of its UDP ports to ours, so that peers reach us unasked."""

from coder.tailnet.portmap.machine import PortMap
from coder.tailnet.portmap.report import PortMapReport, Protocol
from coder.tailnet.portmap.values import Http, Mapped, Network, Output, ToGateway, ToSsdp

__all__ = ["Http", "Mapped", "Network", "Output", "PortMap", "PortMapReport", "Protocol", "ToGateway", "ToSsdp"]
