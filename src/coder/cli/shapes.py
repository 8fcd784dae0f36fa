"""What the server's answers must look like for a command to work with them; more than that may be in them.

A shape is a type, a predicate, a list of one shape, a mapping of the keys that are looked at, or a tuple of shapes of
which one must fit; None stands for null and for a key that is missing.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias
from uuid import UUID

Shape: TypeAlias = "type | Callable[[Any], bool] | list[Shape] | Mapping[str, Shape] | tuple[Shape, ...] | None"


def fits(value: Any, shape: Shape) -> bool:
    """Whether a decoded JSON value has the shape."""
    match shape:
        case None:
            return value is None
        case tuple():
            return any(fits(value, one) for one in shape)
        case Mapping():
            return isinstance(value, dict) and all(fits(value.get(key), one) for key, one in shape.items())
        case list():
            return isinstance(value, list) and all(fits(one, shape[0]) for one in value)
        case type():
            return type(value) is shape
        case _:
            return shape(value)


def uuid(value: Any) -> bool:
    """Whether it is a UUID in its usual form."""
    try:
        return isinstance(value, str) and str(UUID(value)) == value.lower()
    except ValueError:
        return False


_TEXT: Shape = (str, None)
_FLAG: Shape = (bool, None)
_HEALTH: Shape = ({"healthy": _FLAG}, None)

USER: Shape = {"id": str, "username": str, "roles": ([{"name": str}], None), "organization_ids": ([str], None)}
TOKEN: Shape = {"id": str}
AUDIT_LOG: Shape = {"user": ({}, None)}
CONNECTION_LOG: Shape = {"ssh_info": ({}, None)}
AGENT: Shape = {
    "id": uuid,
    "name": str,
    "status": str,
    "operating_system": _TEXT,
    "architecture": _TEXT,
    "health": _HEALTH,
    "lifecycle_state": _TEXT,
    "scripts": ([{"start_blocks_login": _FLAG}], None),
    "log_sources": ([{"id": _TEXT, "display_name": _TEXT}], None),
}
WORKSPACE: Shape = {
    "id": uuid,
    "name": str,
    "owner_name": str,
    "health": _HEALTH,
    "latest_build": {
        "id": _TEXT,
        "transition": str,
        "status": _TEXT,
        "job": ({}, None),
        "resources": ([{"type": str, "name": str, "agents": ([AGENT], None)}], None),
    },
}
LOG_LINE: Shape = {
    "id": int,
    "created_at": str,
    "output": str,
    "level": _TEXT,
    "log_level": _TEXT,
    "stage": _TEXT,
    "source_id": _TEXT,
}
LISTENING_PORT: Shape = {"port": int, "network": str}
CONNECTION_INFO: Shape = {"derp_map": {}, "disable_direct_connections": _FLAG, "derp_force_websockets": _FLAG}
SSH_CONFIG: Shape = {"hostname_prefix": str, "hostname_suffix": _TEXT, "ssh_config_options": ({}, None)}
