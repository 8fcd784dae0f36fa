"""Who may open an app: levels, their ceilings, and which pages may ask."""

from enum import StrEnum


class Level(StrEnum):
    """With whom an app is shared, from the closest to the most open."""

    OWNER = "owner"
    ORGANIZATION = "organization"
    AUTHENTICATED = "authenticated"
    PUBLIC = "public"

    @property
    def openness(self) -> int:
        """Order of the levels."""
        return list(Level).index(self)


def capped(level: Level, *ceilings: Level) -> Level:
    """Return the level that counts where none may exceed the ceilings, whoever declared the app."""
    return min((level, *ceilings), key=lambda each: each.openness)


def admits(level: Level, *, signed_in: bool, member: bool, connects: bool) -> bool:
    """Say whether somebody may open an app of that level.

    `member`: of the workspace's organization; `connects`: may open tunnels to the workspace anyway.
    """
    match level:
        case Level.PUBLIC:
            return True
        case Level.AUTHENTICATED:
            return signed_in
        case Level.ORGANIZATION:
            return signed_in and member
        case Level.OWNER:
            return signed_in and connects


def may_ask(*, level: Level, own_origin: bool, siblings: bool, by_cookie: bool, upgrade: bool, safe: bool) -> bool:
    """Say whether a page may make its browser send this request.

    Cookies go along whichever page asks: an app of another user is of the same site. So a page of another origin
    (`own_origin` false) that is neither the dashboard's nor of an app of the same user (`siblings`) opens no WebSocket
    and changes nothing (`safe` false) with them. What it merely loads it cannot read.
    """
    if own_origin or siblings or not by_cookie or level is Level.PUBLIC:
        return True
    return safe and not upgrade
