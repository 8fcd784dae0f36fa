"""Where this server answers otherwise than the recorded one, and why. Everything else must be alike."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Difference:
    route: str
    """A route, or the beginning of one when it ends with a star."""
    status: int
    """The recorded status; 0 stands for any."""
    reason: str
    flow: str = ""
    """The only flow it concerns, empty for all."""


DIFFERENCES = (
    Difference("/derp*", 0, "served by the front, which tests of the relay cover"),
    Difference("/api/v2/workspaces/{workspace}", 401, "the client had left: an accident of the recording"),
    Difference("/api/v2/workspaces/{workspace}", 500, "the client had left: an accident of the recording"),
    Difference("/api/v2/users/me/keys", 400, "the Origin header guards cookies here", "20-port-access"),
    Difference("/@*", 0, "pages of apps by path are the application proxy's own"),
    Difference(
        "/api/v2/workspaceagents/{agent}/listening-ports", 200, "asked of the agent itself, which the replay plays not"
    ),
    Difference("/api/v2/workspaceagents/{id}/pty", 0, "attached to the agent itself, which the replay plays not"),
    Difference("/api/v2/workspaceagents/{agent}/pty", 0, "attached to the agent itself, which the replay plays not"),
)


def difference(flow: str, step: dict[str, Any]) -> str:
    """Return why an exchange of a flow is not compared, or nothing."""
    if step.get("host") == "app":
        return "hosts of apps have tests of their own"
    for each in DIFFERENCES:
        fits = step["route"] == each.route or (each.route.endswith("*") and step["route"].startswith(each.route[:-1]))
        if fits and each.status in {0, step["status"]} and each.flow in {"", flow}:
            return each.reason
    return ""
