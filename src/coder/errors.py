# ruff: noqa: N818 - an error is named after what went wrong; that it is an error, its place says
"""Every error the project raises on purpose.

    CoderError
    ├── Misuse               our own code broke a contract
    ├── Malformed            a text, a file or a message does not say what its format demands (`where` names the place)
    ├── NotSignedIn          no credential, or one that is not valid (any more)
    ├── Forbidden            the credential is fine, the permission is missing
    ├── NotFound             no such thing, or none that the caller may see
    ├── Conflict             the thing exists already, or is not in a state that allows this
    ├── TooMany              a limit is reached: try again later
    ├── PeerMisbehaved       the other end broke the protocol: drop it and count it
    ├── PeerUnsupported      the other end is too old or too new for this
    ├── Unreachable          nothing answered: no server, no relay, no peer
    │   └── UpgradeRefused   a server answered, but not by opening the WebSocket (`http_status`, `body`)
    ├── TimedOut             somebody is there but did not answer in time
    ├── Closed               the connection, stream or engine has ended
    │   └── StreamReset      the other end cut it off
    └── RpcError             the other end answered a call with an error (`code`, `text`)
        └── RpcUnimplemented it does not know the call

A class exists only where some caller acts differently on it.
"""

from typing import ClassVar


class CoderError(Exception):
    """What happened, as one sentence for a person; `remedy` says what that person can do about it."""

    remedy: str = ""
    """What to try next; may be empty."""
    exit_code: ClassVar[int] = 1
    """The process's exit status when this error ends a command."""
    status: ClassVar[int] = 500
    """The HTTP status that tells a client of this error."""

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if remedy is not None:
            self.remedy = remedy

    def __str__(self) -> str:
        return self.message

    def in_full(self) -> str:
        """Return message and remedy as sentences."""
        message = self.message.rstrip(".")
        if not self.remedy:
            return message
        return f"{message} {self.remedy}" if message.endswith(("?", "!")) else f"{message}. {self.remedy}"


class Misuse(CoderError):
    """A contract inside the project was broken: a bug of ours, never of a user or a peer."""

    remedy = "This is a bug. Please report it together with what you did."
    exit_code = 70


class Malformed(CoderError):
    """A text, a file or a message does not follow its format."""

    exit_code = 2
    status = 400

    def __init__(self, message: str, *, where: str = "", remedy: str | None = None) -> None:
        super().__init__(f"{where}: {message}" if where else message, remedy=remedy)
        self.where = where
        """The place of the fault inside the document, such as `Regions.1.Nodes[0].DERPPort`; empty for the whole."""


class NotSignedIn(CoderError):
    """No credential was given, or the one given is not valid (any more)."""

    remedy = "Sign in with `coder login <url>`."
    status = 401


class Forbidden(CoderError):
    """The caller is known and lacks the permission."""

    status = 403


class NotFound(CoderError):
    """No such thing, or none that the caller may know of."""

    status = 404


class Conflict(CoderError):
    """The thing exists already, or its state does not allow this."""

    status = 409


class TooMany(CoderError):
    """A limit is reached."""

    remedy = "Try again in a moment."
    status = 429


class PeerMisbehaved(CoderError):
    """The other end sent what the protocol does not allow. Drop the connection and count it."""

    status = 502


class PeerUnsupported(CoderError):
    """The other end speaks a version, or lacks a feature, that this needs."""

    remedy = "Use the same version on both ends."
    status = 501


class Unreachable(CoderError):
    """Nothing answered at the other end."""

    remedy = "Check the address and that no firewall is in between."
    status = 503


class UpgradeRefused(Unreachable):
    """A server answered the request for a WebSocket with something else."""

    def __init__(self, http_status: int, body: bytes) -> None:
        super().__init__(f"the server answered {http_status} instead of opening the connection")
        self.http_status = http_status
        """Status of the answer: 400, 401, 403, 404, 409 and 500 will not change by trying again."""
        self.body = body
        """The answer's body (its first part), usually JSON with `message`, `detail` and `validations`."""


class TimedOut(CoderError):
    """The other end did not answer in time."""

    status = 504


class Closed(CoderError):
    """The connection, stream or engine has ended, so this cannot be done on it any more."""

    status = 503


class StreamReset(Closed):
    """The other end cut the stream off without finishing it."""


class RpcError(CoderError):
    """The other end answered a call with an error."""

    status = 502

    def __init__(self, text: str, *, code: int = 0) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        """dRPC error code: 0 = unspecified, 12 = unimplemented."""


class RpcUnimplemented(RpcError):
    """The other end does not know the call (dRPC error code 12)."""

    CODE: ClassVar[int] = 12

    def __init__(self, text: str = "Unimplemented") -> None:
        super().__init__(text, code=self.CODE)
