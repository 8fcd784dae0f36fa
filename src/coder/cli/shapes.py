"""What the server's answers must look like for a command to work with them; more than that may be in them.

A shape is a type, a predicate, a list of one shape, a mapping of the keys that are looked at, or a tuple of shapes of
which one must fit; None stands for null and for a key that is missing.
"""

import re
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


_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,62}[A-Za-z0-9])?")


def name(value: Any) -> bool:
    """Whether it can be the name of a workspace or agent; such are safe as parts of files and their names."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def tokens(value: Any) -> bool:
    """Whether it maps names to tokens."""
    return isinstance(value, dict) and all(name(key) and uuid(text) for key, text in value.items())


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
    "latency": ({}, None),
    "apps": ([{"slug": _TEXT, "display_name": _TEXT}], None),
    "scripts": ([{"start_blocks_login": _FLAG, "display_name": _TEXT}], None),
    "log_sources": ([{"id": _TEXT, "display_name": _TEXT}], None),
}
WORKSPACE: dict[str, Shape] = {
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
CREATED: Shape = WORKSPACE | {"name": name, "agent_token": (uuid, None), "agent_tokens": (tokens, None)}
BUILD: Shape = {"id": uuid, "job": ({"status": _TEXT, "error": _TEXT}, None)}
TEMPLATE: Shape = {"id": uuid, "name": str, "kind": _TEXT, "active_version_id": uuid}
LISTENING_PORT: Shape = {"port": int, "network": str}
CONNECTION_INFO: Shape = {"derp_map": {}, "disable_direct_connections": _FLAG, "derp_force_websockets": _FLAG}
SSH_CONFIG: Shape = {"hostname_prefix": str, "hostname_suffix": _TEXT, "ssh_config_options": ({}, None)}
