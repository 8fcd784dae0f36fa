"""What can go wrong for a person at the command line, each with the way out, in one line."""
# ruff: noqa: D401 - each function is named after a misfortune, and its docstring says which

from collections.abc import Sequence
from typing import Any, Self

from coder.cli import output
from coder.errors import CoderError, Conflict, NotFound, NotSignedIn, TimedOut, Unreachable

CONFLICT = 409

LOST = "'coder doctor' says how far the workspace can be reached now."
"""What to do about a connection that was lost."""


class ApiError(CoderError):
    """The server refused a request. `code` is the HTTP status, `fields` those of the request that it objects to."""

    def __init__(self, message: str, *, code: int, remedy: str | None = None, fields: Sequence[str] = ()) -> None:
        super().__init__(message, remedy=remedy)
        self.code = code
        self.fields = tuple(fields)

    @classmethod
    def from_answer(cls, url: str, code: int, body: dict[str, Any]) -> Self:
        """Make one line of an error body: message, validations, detail."""
        message = str(body.get("message") or f"{url} answered with status {code} and no explanation")
        told = body.get("validations")
        faults = [one for one in (told if isinstance(told, list) else ()) if isinstance(one, dict)]
        detail = str(body.get("detail") or "")
        if faults and code != CONFLICT:  # there the message says it all: the field is "taken"
            detail = "; ".join(map(_fault, faults))
        remedy = "Sign in with 'coder login'." if code == 401 else None
        text = " ".join(f"{message.rstrip('.:')}: {detail}".split()) if detail else message
        return cls(text, code=code, remedy=remedy, fields=[str(one.get("field")) for one in faults])


_MISSING = ("field required", "missing", "required")


def _fault(fault: dict[str, Any]) -> str:
    """Say in a person's words what is wrong with a field: `token_name` is the token name."""
    field, detail = str(fault.get("field") or ""), str(fault.get("detail") or "").rstrip(".")
    words = " ".join(field.removeprefix("settings.").replace("_", " ").split())
    name = f"setting {words!r}" if field.startswith("settings.") else words
    if detail.lower() in _MISSING:
        return f"the {name} is missing"
    return f"{name}: {detail}" if name else detail


def line(error: CoderError) -> str:
    """Return message and remedy as one line, without what a terminal may act on: some of it is other people's."""
    return output.printable(" ".join(error.in_full().split()))


# Reaching the server


def bad_url(text: str) -> CoderError:
    """No address of a server."""
    return CoderError(f"{text!r} is not the address of a server", remedy="Write it like https://coder.example.com.")


def no_server_named() -> CoderError:
    """`login` without an address."""
    return CoderError("no server is named", remedy="Say which one: coder login <url>.")


def unreachable(url: str, why: str) -> Unreachable:
    """Nobody answered at the address."""
    return Unreachable(
        f"cannot reach the server at {url}: {why}", remedy="Check the address, and that the server runs (coder server)."
    )


def redirected(url: str, to: str | None) -> Unreachable:
    """The server is to be reached under another address."""
    return Unreachable(f"{url} sends us on to {to or 'nowhere'}", remedy="Use that server's address instead.")


def no_such_region(wanted: str, regions: Sequence[str]) -> NotFound:
    """The region that is to be home is not in the map."""
    return NotFound(
        f"there is no relay region {wanted!r}", remedy=f"For --prefer-region there are: {', '.join(regions)}."
    )


def bad_answer(url: str) -> Unreachable:
    """Somebody answered, but it was no server of ours."""
    return Unreachable(f"{url} does not answer like a Coder server", remedy="Check address and port.")


# Signing in


def not_signed_in(url: str | None) -> NotSignedIn:
    """No server or no session is known."""
    return NotSignedIn("you are not signed in", remedy=f"Try 'coder login {url or '<url>'}'.")


def session_invalid(url: str, *, given: bool = False) -> NotSignedIn:
    """The server does not know the session (any more); `given`: by flag or variable, which go before a login's."""
    if given:
        return NotSignedIn(
            "the session token is not valid or has expired",
            remedy="CODER_SESSION_TOKEN or --token gives it: leave it out, or make another with 'coder tokens create'.",
        )
    return NotSignedIn("your session is not valid or has expired", remedy=f"Sign in again: coder login {url}.")


def keyring_silent(why: str) -> NotSignedIn:
    """The session is in the keyring, and that does not give it."""
    return NotSignedIn(
        f"your session is in the keyring, and cannot be had from there: {why}",
        remedy="Unlock the keyring, or keep the session in a file: coder --no-keyring login.",
    )


def token_refused() -> NotSignedIn:
    """A token somebody gave us does not work."""
    return NotSignedIn(
        "the server does not accept this token", remedy="Check that it was copied whole, or make a new one."
    )


def wrong_password(message: str) -> NotSignedIn:
    """E-mail and password do not fit."""
    return NotSignedIn(message, remedy="Try again: coder login.")


def first_user_needs_input(options: Sequence[str]) -> CoderError:
    """A first user is to be made, and nobody is there to say who."""
    return CoderError(
        "this server has no users yet and nobody is here to answer questions",
        remedy=f"Pass {', '.join(options)} (or set their CODER_FIRST_USER_ variables).",
    )


def login_needs_input(url: str) -> CoderError:
    """A login without credentials and without a terminal."""
    return CoderError(
        f"no credentials for {url}",
        remedy="Nobody is here to answer questions: set CODER_SESSION_TOKEN, or CODER_FIRST_USER_EMAIL and"
        " CODER_FIRST_USER_PASSWORD.",
    )


def answer_expected() -> CoderError:
    """A question was asked, and standard input had ended."""
    return CoderError(
        "an answer is needed, and standard input has ended", remedy="Give it there, or by an option or variable."
    )


# Workspaces and agents


def bad_name(text: str) -> CoderError:
    """No workspace argument."""
    user, _, rest = text.partition("@")
    if user and rest:
        return CoderError(f"{text!r} names no workspace", remedy=f"Users of a workspace have no names: write {rest}.")
    return CoderError(f"{text!r} names no workspace", remedy="Write [owner/]workspace[.agent].")


def workspace_unknown(name: str) -> NotFound:
    """No such workspace, or not ours to see."""
    return NotFound(f"there is no workspace {name!r}", remedy="'coder list' shows yours, 'coder create' makes one.")


def whole_workspace(name: str, agent: str) -> CoderError:
    """A single agent cannot be started, stopped or deleted."""
    return CoderError(f"this is done to a whole workspace, not to its agent {agent!r}", remedy=f"Name it only: {name}.")


def no_such_workspace(name: str) -> NotFound:
    """No workspace of anybody that we may see has that name."""
    return NotFound(f"there is no workspace {name!r}", remedy="'coder list --all' shows those that you may see.")


def user_unknown(name: str) -> NotFound:
    """There is no such user, or we may not know of them."""
    return NotFound(
        f"there is no user {name!r}, or you may not see them", remedy="'coder users list' names those you may."
    )


def template_unknown(name: str) -> NotFound:
    """There is no template of that name."""
    return NotFound(f"there is no template {name!r}", remedy="'coder templates list' names those there are.")


def not_started(name: str) -> Conflict:
    """The workspace is stopped or going away."""
    return Conflict(f"the workspace {name!r} is not started", remedy=f"Start it: coder start {name}.")


def build_failed(name: str, why: str) -> Conflict:
    """A build came to no good end."""
    return Conflict(f"the workspace {name!r} could not be started: {why}", remedy=f"See 'coder logs {name}'.")


def agent_shuts_down(name: str, state: str) -> Unreachable:
    """Nobody may come in any more."""
    return Unreachable(
        f"the agent of {name} is {state.replace('_', ' ')}", remedy=f"'coder show {name}' says when it is back."
    )


def introduction_refused(name: str, status: int, said: str) -> CoderError:
    """The server introduces us to the agent no longer, or not at all: `said` is what it answered."""
    what = f"the agent of {name!r} cannot be reached: {said}"
    if status == 401:
        return NotSignedIn(what, remedy="Sign in again: coder login.")
    if status in {403, 404}:
        return NotFound(what, remedy=f"'coder show {name}' says how the workspace is, and whether it is still yours.")
    return Unreachable(what, remedy=f"'coder doctor {name}' says how far it can be reached.")


def workspace_stopped(name: str) -> Unreachable:
    """It was stopped while we were in it."""
    return Unreachable(f"the workspace {name!r} was stopped", remedy=f"Start it again: coder start {name}.")


def workspace_rebuilt(name: str) -> Unreachable:
    """It was built anew while we were in it."""
    return Unreachable(f"the workspace {name!r} was started anew", remedy="Connect again.")


def no_agents(name: str) -> Conflict:
    """Nothing to connect to."""
    return Conflict(f"the workspace {name!r} has no agents", remedy="Its template defines none, so there is no way in.")


def agent_unknown(agent: str, names: Sequence[str]) -> NotFound:
    """The workspace has other agents."""
    return NotFound(f"there is no agent {agent!r} in this workspace", remedy=f"It has: {', '.join(names)}.")


def ambiguous_agent(name: str, agents: Sequence[str]) -> Conflict:
    """Several agents, none named."""
    return Conflict(
        f"the workspace {name!r} has several agents: {', '.join(agents)}",
        remedy=f"Name one, such as {name}.{agents[0]}.",
    )


def agent_not_connected(name: str, since: str) -> Unreachable:
    """The machine's side is not running, or cannot reach the server."""
    return Unreachable(
        f"the agent of workspace {name!r} {since}",
        remedy=f"On a machine of yours, start it: CODER_AGENT_URL=<url> CODER_AGENT_TOKEN=<token> coder agent. "
        f"One that the server starts is begun anew by 'coder restart {name}'; 'coder logs {name}' says how it went.",
    )


def no_answer(name: str, seconds: str, problem: str) -> TimedOut:
    """The server introduced us, but nothing came back through the tunnel."""
    return TimedOut(
        f"the agent of workspace {name!r} did not answer within {seconds}" + (f" ({problem})" if problem else ""),
        remedy=f"See 'coder show {name}', and give it longer with --timeout.",
    )
