"""Roles as data: role x action x resource, and the functions that read the table.

Every user may do what `OWN` says with what is theirs; a role adds what its row of `ANYWHERE` says with everybody's.
What no row names is refused. Without the right to read a thing one is not told that it is there.
"""

from collections.abc import Iterable, Mapping
from enum import Enum, StrEnum, auto

OWNER, USER_ADMIN, AUDITOR, MEMBER = "owner", "user-admin", "auditor", "member"


class Action(StrEnum):
    """What can be done with a thing."""

    CREATE = "create"
    READ = "read"
    UPDATE = "update"
    DELETE = "delete"
    CONNECT = "connect"
    """Open tunnels to it."""


class Resource(StrEnum):
    """What can be acted on."""

    USER = "user"
    SESSION = "session"
    """A login, of a browser or of a command line."""
    TOKEN = "token"  # noqa: S105
    WORKSPACE = "workspace"
    """With its builds and agents."""
    AUDIT_LOG = "audit_log"
    CONNECTION_LOG = "connection_log"
    DEPLOYMENT = "deployment"
    """The server itself: whoever may change it is bound by no rate limit of requests."""


class Decision(Enum):
    """The answer to whether something may be done."""

    ALLOWED = auto()
    FORBIDDEN = auto()
    """No, and the caller may know that the thing is there."""
    HIDDEN = auto()
    """No, and to this caller the thing is not there."""


Grants = Mapping[Resource, frozenset[Action]]

_ALL = frozenset(Action)
_READ = frozenset({Action.READ})

OWN: Grants = {
    Resource.USER: frozenset({Action.READ, Action.UPDATE}),
    Resource.SESSION: _ALL,
    Resource.TOKEN: _ALL,
    Resource.WORKSPACE: _ALL,
    Resource.CONNECTION_LOG: _READ,
}
"""What everybody may do with their own things."""

ANYWHERE: Mapping[str, Grants] = {
    OWNER: dict.fromkeys(Resource, _ALL) | {Resource.SESSION: frozenset({Action.READ, Action.DELETE})},
    USER_ADMIN: {Resource.USER: _ALL},
    AUDITOR: {Resource.USER: _READ, Resource.AUDIT_LOG: _READ, Resource.CONNECTION_LOG: _READ},
    MEMBER: {},
}
"""What a role may do with everybody's things. A session is started by its own user only: it acts in their name."""

ASSIGNABLE: Mapping[str, frozenset[str]] = {OWNER: frozenset(ANYWHERE)}
"""Which roles the holder of a role may give and take. Everybody has `member`, so that one needs no leave."""

DISPLAY = {OWNER: "Owner", USER_ADMIN: "User Admin", AUDITOR: "Auditor", MEMBER: "Member"}


def allowed(roles: Iterable[str], action: Action, resource: Resource, *, own: bool = False) -> bool:
    """Say whether somebody with these roles may do that, with a thing that is theirs (`own`) or with anybody's."""
    if own and action in OWN.get(resource, frozenset()):
        return True
    return any(action in ANYWHERE.get(role, {}).get(resource, frozenset()) for role in roles)


def decide(roles: Iterable[str], action: Action, resource: Resource, *, own: bool = False) -> Decision:
    """Say whether it may be done and, if not, whether the caller may know that the thing is there."""
    roles = frozenset(roles)
    if allowed(roles, action, resource, own=own):
        return Decision.ALLOWED
    return Decision.FORBIDDEN if allowed(roles, Action.READ, resource, own=own) else Decision.HIDDEN


def may_assign(roles: Iterable[str], wanted: Iterable[str]) -> bool:
    """Say whether somebody with these roles may give and take all those."""
    assignable = frozenset({MEMBER}).union(*(ASSIGNABLE.get(role, frozenset()) for role in roles))
    return assignable.issuperset(wanted)


def may_act_on(roles: Iterable[str], theirs: Iterable[str]) -> bool:
    """Say whether somebody may change the account of a user with the roles `theirs`.

    Whoever sets a password can sign in with it, so nobody changes an account that has more than they could give.
    """
    return may_assign(roles, theirs)


def unknown(roles: Iterable[str]) -> list[str]:
    """Return those that are no roles, in order."""
    return sorted(set(roles) - ANYWHERE.keys())
