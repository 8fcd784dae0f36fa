"""Names of apps: the first label of a host below the wildcard, or a path on the dashboard's own host.

A label is `slug--agent--workspace--user` or `port--agent--workspace--user` (`8080s--...`: the app speaks TLS). DNS
allows 63 characters; a longer one gets the short form `slug--w<workspace id>-<digest of the agent's name>`.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit
from uuid import UUID

MAX_LABEL: Final = 63
LOGOUT: Final = "coder-logout"
"""A label that once ended sessions; links to it still exist."""
LOWEST_PORT: Final = 9
"""Ports below are services of the agent itself, inside the tunnel."""

_NAME: Final = "[a-zA-Z0-9]+(?:-[a-zA-Z0-9]+)*"
_FULL: Final = re.compile(f"({_NAME})--(?:({_NAME})--)?({_NAME})--({_NAME})")
_SHORT: Final = re.compile(f"({_NAME})--w([a-z2-7]{{26}})-([0-9a-f]{{8}})")
_PORT: Final = re.compile(r"([1-9][0-9]{0,4})(s?)")
_PATH: Final = re.compile(rf"/@({_NAME})/({_NAME})(?:\.({_NAME}))?/apps/([^/]+)/")
_WILDCARD: Final = re.compile(
    r"\*(?:-[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)+(?::[0-9]{1,5})?", re.IGNORECASE
)
_LONG_SLUG: Final = 25


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a workspace's loopback."""

    number: int
    tls: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """An app by its names."""

    app: str
    """Slug or port, as it was written."""
    agent: str
    """Empty: the first agent."""
    workspace: str
    owner: str

    @property
    def port(self) -> Port | None:
        """The port, if it is one and no slug."""
        return port(self.app)


@dataclass(frozen=True, slots=True, kw_only=True)
class Short:
    """An app by the short form of its label."""

    app: str
    workspace: UUID
    agent: str
    """Digest of the agent's name."""

    @property
    def port(self) -> Port | None:
        """The port, if it is one and no slug."""
        return port(self.app)


def port(text: str) -> Port | None:
    """Read `8080` or `8080s`; None for everything else."""
    found = _PORT.fullmatch(text)
    return Port(int(found[1]), found[2] == "s") if found and int(found[1]) <= 0xFFFF else None


def parse_label(label: str) -> Named | Short | None:
    """Read the label of an app's host; text before `---` only makes an origin of its own. None: it is no app's."""
    label = label.rpartition("---")[2]
    if short := _SHORT.fullmatch(label):
        number = base64.b32decode(short[2].upper() + "======")
        return Short(app=short[1], workspace=UUID(bytes=number), agent=short[3])
    full = _FULL.fullmatch(label)
    if full is None or (full[2] is None and port(full[1])):
        return None
    return Named(app=full[1], agent=full[2] or "", workspace=full[3], owner=full[4])


def parse_path(path: str) -> Named | None:
    """Read `/@user/workspace.agent/apps/slug/`. None: it is no app's."""
    found = _PATH.fullmatch(path)
    return found and Named(app=unquote(found[4]), agent=found[3] or "", workspace=found[2], owner=found[1])


def label(named: Named, workspace: UUID) -> str:
    """Return the label of an app's host; the short form where the long one does not fit."""
    text = f"{named.app}--{named.agent}--{named.workspace}--{named.owner}"
    if len(text) <= MAX_LABEL:
        return text
    number = base64.b32encode(workspace.bytes).decode().lower().rstrip("=")
    return f"{short_slug(named.app)}--w{number}-{digest(named.agent)}"


def short_slug(slug: str) -> str:
    """Return a slug as the short form of a label has it."""
    return slug if len(slug) <= _LONG_SLUG else f"{slug[:16].rstrip('-')}-{digest(slug)}"


def digest(name: str) -> str:
    """Return what stands for a name in the short form of a label."""
    return hashlib.sha256(name.lower().encode()).hexdigest()[:8]


def wildcard_problem(text: str) -> str | None:
    """Say what is wrong with a wildcard host, or None."""
    if _WILDCARD.fullmatch(text):
        return None
    return "A wildcard host is a * and a domain below it, such as *.apps.example.com; no scheme, no path."


def wildcard_host(wildcard: str, access_url: str) -> str:
    """Return the wildcard as it stands in URLs: with the port of the access URL unless it has its own."""
    port_of_access = urlsplit(access_url).port
    return f"{wildcard}:{port_of_access}" if wildcard and ":" not in wildcard and port_of_access else wildcard


def label_of(host: str, wildcard: str) -> str | None:
    """Return the first label of a host name below the wildcard; None for all other hosts."""
    suffix = wildcard.removeprefix("*").partition(":")[0].lower()
    found = host.lower().removesuffix(suffix) if suffix and host.lower().endswith(suffix) else ""
    return found if found and "." not in found else None
