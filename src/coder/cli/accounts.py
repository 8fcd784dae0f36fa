"""Users, tokens and logs over the REST API; each function is one call, and raises as `Api` does."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from coder.cli import errors, shapes
from coder.cli.api import Api, Json
from coder.cli.errors import ApiError
from coder.cli.shapes import Shape
from coder.errors import NotFound
from coder.ids import Secret

_LONGEST_NAME = 32
_NS = 1_000_000_000


def _user(user: str, *rest: str) -> str:
    return "/".join(["/api/v2/users", *(quote(part, safe="") for part in (user, *rest))])


def _list(api: Api, path: str, key: str, shape: Shape, query: Mapping[str, Any]) -> list[Json]:
    return list(api.ask(f"{path}?{urlencode(query)}", {key: [shape]})[key])


@contextmanager
def _known(name: str) -> Iterator[None]:
    """Raise NotFound with the user's name when there is none of that name."""
    try:
        yield
    except ApiError as error:
        if error.code == HTTPStatus.NOT_FOUND:
            raise errors.user_unknown(name) from error
        raise


def users(api: Api, query: str) -> list[Json]:
    """Return the users a search finds."""
    return _list(api, "/api/v2/users", "users", shapes.USER, {"q": query})


def user(api: Api, name: str) -> Json:
    """Return a user."""
    with _known(name):
        return api.ask(_user(name), shapes.USER)


def create_user(api: Api, *, username: str, email: str, name: str, password: Secret | None) -> Json:
    """Make a user, a member; without a password one who signs in through the provider."""
    way = {"password": password.reveal(), "login_type": "password"} if password else {"login_type": "oidc"}
    body = {"username": username, "email": email, "name": name} | way
    with_place = body | {"organization_ids": api.me().get("organization_ids") or []}
    return api.checked(api.call("POST", "/api/v2/users", with_place), shapes.USER)


def set_status(api: Api, name: str, verb: str) -> Json:
    """Carry out `suspend` or `activate`."""
    with _known(name):
        return api.call("PUT", _user(name, "status", verb))


def set_browser_only(api: Api, name: str, *, only: bool) -> Json:
    """Hold a user to the browser, or let them have tunnels."""
    with _known(name):
        return api.call("PUT", _user(name, "browser-only"), {"browser_only": only})


def delete_user(api: Api, name: str) -> None:
    """Delete a user."""
    with _known(name):
        api.call("DELETE", _user(name))


def set_roles(api: Api, name: str, roles: Sequence[str]) -> Json:
    """Give a user exactly these roles."""
    with _known(name):
        return api.checked(api.call("PUT", _user(name, "roles"), {"roles": list(roles)}), shapes.USER)


def set_password(api: Api, name: str, *, old: Secret, new: Secret) -> None:
    """Set a password; the old one is needed for one's own."""
    with _known(name):
        api.call("PUT", _user(name, "password"), {"old_password": old.reveal(), "password": new.reveal()})


def create_token(api: Api, name_of_user: str, *, name: str, lifetime: float, scope: str) -> Secret:
    """Make a token that lives so many seconds, 0 for the server's default."""
    body = {"token_name": name, "lifetime": int(lifetime) * _NS, "scope": scope}
    with _known(name_of_user):
        answer = api.call("POST", _user(name_of_user, "keys", "tokens"), body)
    made = answer.get("key") if isinstance(answer, dict) else None
    if not isinstance(made, str) or not made:
        raise errors.bad_answer(api.url)
    return Secret(made)


def tokens(api: Api, *, everyone: bool) -> list[Json]:
    """Return one's own tokens, or everybody's."""
    path = f"{_user('me', 'keys', 'tokens')}?include_all={str(everyone).lower()}"
    return list(api.ask(path, ([shapes.TOKEN], None)) or [])  # null is an empty list of some servers


def find_token(api: Api, text: str) -> Json:
    """Return the token that a name, an id or the token itself stands for. Raises NotFound."""
    ways: list[tuple[str, ...]] = [("keys", text.partition("-")[0])]
    if len(text) <= _LONGEST_NAME:  # a whole token is longer, and must not stand in a path that servers log
        ways.insert(0, ("keys", "tokens", text))
    for way in ways:
        try:
            return api.ask(_user("me", *way), shapes.TOKEN)
        except ApiError as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise
    raise NotFound("there is no such token", remedy="'coder tokens list' shows yours.")


def remove_token(api: Api, token_id: str) -> None:
    """End a token, and what is connected with it."""
    api.call("DELETE", _user("me", "keys", token_id))


def audit(api: Api, query: str, limit: int) -> list[Json]:
    """Return the newest entries of the audit log that a search finds."""
    return _list(api, "/api/v2/audit", "audit_logs", shapes.AUDIT_LOG, {"q": query, "limit": limit, "offset": 0})


def connections(api: Api, query: str, limit: int) -> list[Json]:
    """Return the newest connections that a search finds."""
    asked = {"q": query, "limit": limit, "offset": 0}
    return _list(api, "/api/v2/connectionlog", "connection_logs", shapes.CONNECTION_LOG, asked)


def generated_password() -> Secret:
    """Make a password of 119 bits."""
    import secrets
    import string

    return Secret("".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(20)))
