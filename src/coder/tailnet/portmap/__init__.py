"""Port mappings: the router is asked to forward one of its UDP ports to ours, so that peers reach us unasked."""

from coder.tailnet.portmap.report import PortMapReport, Protocol

__all__ = ["PortMapReport", "Protocol"]
