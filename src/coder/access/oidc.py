"""Who a provider's identity token speaks of, and whether they may come in (OpenID Connect Core 1.0, section 5.1)."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coder.access import names
from coder.errors import CoderError

MAX_SUBJECT = 255
"""Most characters of a subject, by the standard."""


class NotLetInError(CoderError):
    """The provider knows the person, the deployment does not let them in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the deployment asks of an identity."""

    email_field: str = "email"
    username_field: str = "preferred_username"
    domains: Sequence[str] = ()
    """Domains of addresses that may come in; none: all. Compared whole, not by their ends."""
    ignore_verified: bool = False
    """Whether an address counts that the provider has not proved."""


@dataclass(frozen=True, slots=True)
class Person:
    """Whom the provider has let in."""

    subject: str
    email: str
    username: str
    """A name made of what they are called there; it may be taken."""
    name: str


def person(claims: Mapping[str, Any], policy: Policy) -> Person:
    """Read the claims of a token that was verified. Raises NotLetInError.

    An address that is not proved by a true `email_verified` may be anybody's; the text "true" is no proof.
    """
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject or len(subject) > MAX_SUBJECT:
        raise NotLetInError("The provider sent no subject.", remedy="Ask whoever runs the provider.")
    email = claims.get(policy.email_field)
    if not isinstance(email, str) or names.email_problem(email):
        raise NotLetInError(
            f"The provider sent no e-mail address in {policy.email_field!r}.",
            remedy="Ask for the scope `email`, or name the field that holds it (--oidc-email-field).",
        )
    if claims.get("email_verified") is not True and not policy.ignore_verified:
        raise NotLetInError(
            "Your e-mail address is not verified at the provider.",
            remedy="Verify it there, or have --oidc-ignore-email-verified set where the provider never says so.",
        )
    domain = email.rpartition("@")[2].lower()
    if policy.domains and domain not in {each.lstrip("@").lower() for each in policy.domains}:
        raise NotLetInError(f"Addresses of {domain} are not let in here.", remedy="Sign in with another account.")
    wished = claims.get(policy.username_field)
    username = username_of(wished if isinstance(wished, str) and wished else email)
    full = claims.get("name")
    return Person(subject, email, username, _line(full) if isinstance(full, str) else "")


def username_of(text: str) -> str:
    """Make a user name of any text; of an address the part before the @."""
    plain = unicodedata.normalize("NFKD", text.partition("@")[0]).encode("ascii", "ignore").decode()
    made = re.sub("[^a-zA-Z0-9]+", "-", plain)[: names.MAX_NAME].strip("-")
    return "user" if names.username_problem(made) else made


def _line(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:128]


def own_path(wished: str) -> str:
    """Return a path of this site to go on to, `/` for anything that a browser could take for another site."""
    plain = (
        wished.startswith("/") and not wished.startswith(("//", "/\\")) and wished.isascii() and wished.isprintable()
    )
    return wished if plain and "\\" not in wished and len(wished) <= 1024 else "/"
