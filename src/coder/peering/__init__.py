"""Shell: keeps one data-plane node introduced to its peers through a coordination call session.

What to tell the coordinator and which peers to configure is decided in `coder.tailnet`; here are the sockets and tasks.
Shared by clients and agents, which is why it imports neither. It logs nothing: what happens is told as events.
"""

from coder.peering.backoff import Backoff
from coder.peering.dialing import Dial, WebSocketDial, is_permanent
from coder.peering.peering import Client, CoordinatorError, Host, Hub, Peering, PeersChanged, PortMapped, State

__all__ = [
    "Backoff",
    "Client",
    "CoordinatorError",
    "Dial",
    "Host",
    "Hub",
    "Peering",
    "PeersChanged",
    "PortMapped",
    "State",
    "WebSocketDial",
    "is_permanent",
]
