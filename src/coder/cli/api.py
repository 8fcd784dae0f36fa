"""The REST API as the commands use it: blocking, one connection, kept open between calls.

On the standard library's `http.client`, not the project's usual HTTP client: the start-up time of `ping` and `ssh` is
felt at every call, and here the usual one took 14 ms to import and 30 to 60 ms to make a client, against 7 ms. An
`Api` is for one thread at a time; `asyncio` callers run it in a worker thread.
"""

import http.client
import json
from collections.abc import Callable, Mapping
from email.message import Message
from typing import Any, Never, Self
from urllib.parse import quote, urlencode, urlsplit

from coder import __version__
from coder.cli import errors, racing, shapes
from coder.cli.errors import ApiError
from coder.cli.store import is_plain
from coder.ids import Secret
from coder.outbound import Outbound, failure

MAX_BODY = 32 << 20
"""Bytes of an answer we are willing to hold."""

TOKEN_HEADER = "Coder-Session-Token"  # noqa: S105
BUILD_HEADER = "X-Coder-Build-Version"

Json = Any

OnBuild = Callable[[str, Callable[[], Json]], None]


class Api:
    """One server, optionally as one user.

    `timeout` is seconds for each step of a call; `on_build` hears the server's build with the first answer, and a
    function that asks for more about it. Every method raises `ApiError` when the server refuses,
    `NotSignedIn` on 401 with a token, and `Unreachable` when there is no server to talk to.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Secret | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        outbound: Outbound | None = None,
        on_build: "OnBuild | None" = None,
        token_given: bool = False,
    ) -> None:
        """`token_given`: for this call, so that signing in would not replace it."""
        self.url = url
        self._token_given = token_given
        self._parts = urlsplit(url)
        self._token = token
        self._headers = dict(headers or {})
        self._timeout = timeout
        self._outbound = outbound or Outbound()
        self._on_build = on_build
        self._connection: http.client.HTTPConnection | None = None

    def __repr__(self) -> str:
        return f"Api({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def signed_in(self, token: Secret) -> "Api":
        """Return a client of the same server with this token."""
        return Api(self.url, token=token, headers=self._headers, timeout=self._timeout, outbound=self._outbound)

    def build_info(self) -> Json:
        """Ask, as nobody, which build the server is."""
        with Api(self.url, headers=self._headers, timeout=self._timeout, outbound=self._outbound) as nobody:
            return nobody.ask("/api/v2/buildinfo", {})

    # Users and sessions

    def has_first_user(self) -> bool:
        """Whether somebody has set this server up already. Raises Unreachable when it is not one of ours."""
        status, headers, body = self._exchange("GET", "/api/v2/users/first")
        if status == http.client.NOT_FOUND and headers.get(BUILD_HEADER):
            return False
        self._parse(status, headers, body)
        return True

    def create_first_user(self, *, email: str, username: str, name: str, password: str, trial: bool) -> None:
        """Make the server's first user, its owner."""
        body = {"email": email, "username": username, "name": name, "password": password, "trial": trial}
        self.call("POST", "/api/v2/users/first", body)

    def sign_in(self, email: str, password: str) -> Secret:
        """Return a new session token."""
        answer = self.call("POST", "/api/v2/users/login", {"email": email, "password": password})
        return self._secret(answer, "session_token")

    def sign_out(self) -> None:
        """End the session on the server."""
        self.call("POST", "/api/v2/users/logout")

    def new_key(self) -> Secret:
        """Return a session key of our own, so that the one we were given may be revoked without us."""
        return self._secret(self.call("POST", "/api/v2/users/me/keys"), "key")

    def me(self) -> Json:
        """Return the user this token belongs to."""
        return self.ask("/api/v2/users/me", shapes.USER)

    # Workspaces

    def workspaces(self, query: str) -> list[Json]:
        """Return the workspaces a search finds."""
        path = "/api/v2/workspaces?" + urlencode({"q": query})
        return list(self.ask(path, {"workspaces": [shapes.WORKSPACE]})["workspaces"])

    def workspace(self, owner: str, name: str) -> Json:
        """Return one workspace by name."""
        path = f"/api/v2/users/{quote(owner, safe='')}/workspace/{quote(name, safe='')}?include_deleted=false"
        return self.ask(path, shapes.WORKSPACE)

    def create_workspace(self, name: str, **wanted: Any) -> tuple[Json, dict[str, Secret]]:
        """Make a workspace of one's own; return it, and its agents' tokens where their user starts them.

        Those are told only this once. `wanted` are further fields of the request.
        """
        made = self.checked(self.call("POST", "/api/v2/users/me/workspaces", {"name": name, **wanted}), shapes.CREATED)
        only, several = made.pop("agent_token", None), made.pop("agent_tokens", None) or {}
        if only is None:
            return made, {}
        return made, {agent: Secret(text) for agent, text in (several or {"main": only}).items()}

    def template(self, name: str) -> Json:
        """Return a template by its name."""
        path = f"/api/v2/organizations/default/templates/{quote(name, safe='')}"
        try:
            return self.ask(path, shapes.TEMPLATE)
        except ApiError as error:
            if error.code == http.client.NOT_FOUND:
                raise errors.template_unknown(name) from error
            raise

    def delete_workspace(self, workspace: str) -> Json:
        """Ask for the deletion of a workspace, by id, in the way every server of this API knows. Returns the build."""
        return self.call("POST", f"/api/v2/workspaces/{workspace}/builds", {"transition": "delete"})

    def start_workspace(self, workspace: str) -> None:
        """Have a stopped workspace started, by id, as it was."""
        self.call("POST", f"/api/v2/workspaces/{workspace}/builds", {"transition": "start"})

    def note_usage(self, workspace: str, agent: str, app: str | None) -> None:
        """Tell that a workspace is in use, so that the server does not stop it; by which app, if that has a name."""
        body = {"agent_id": agent, "app_name": app} if app is not None else None
        self.call("POST", f"/api/v2/workspaces/{workspace}/usage", body)

    def connection_info(self, agent: str) -> Json:
        """Return the relay map and the rules for connecting to an agent."""
        return self.ask(f"/api/v2/workspaceagents/{agent}/connection", shapes.CONNECTION_INFO)

    def any_connection_info(self) -> Json:
        """Return the relay map and the rules for connecting to any agent."""
        return self.ask("/api/v2/workspaceagents/connection", shapes.CONNECTION_INFO)

    def agent(self, agent: str) -> Json:
        """Return an agent's state."""
        return self.ask(f"/api/v2/workspaceagents/{agent}", shapes.AGENT)

    def agent_logs(self, agent: str, after: int) -> list[Json]:
        """Return what an agent and its scripts printed after the line of that number."""
        return list(self.ask(f"/api/v2/workspaceagents/{agent}/logs?after={after}", ([shapes.LOG_LINE], None)) or [])

    def build_logs(self, build: str, after: int) -> list[Json]:
        """Return what a build printed after the line of that number."""
        path = f"/api/v2/workspacebuilds/{quote(build, safe='')}/logs?after={after}"
        return list(self.ask(path, ([shapes.LOG_LINE], None)) or [])

    def renew_agent_token(self, agent: str) -> Secret:
        """Give an agent another token and return it; the old one is worth nothing from now on."""
        return self._secret(self.call("POST", f"/api/v2/workspaceagents/{agent}/token"), "agent_token")

    def listening_ports(self, agent: str) -> list[Json]:
        """Return what listens in the workspace."""
        path = f"/api/v2/workspaceagents/{agent}/listening-ports"
        return list(self.ask(path, {"ports": ([shapes.LISTENING_PORT], None)}).get("ports") or [])

    def ssh_config(self) -> Json:
        """Return what the server wants clients' SSH configurations to hold."""
        return self.ask("/api/v2/deployment/ssh", shapes.SSH_CONFIG)

    # Exchange

    def call(self, method: str, path: str, body: Json = None) -> Json:
        """Send one request; return the decoded answer, {} when it has no body."""
        return self._parse(*self._exchange(method, path, body))

    def ask(self, path: str, shape: shapes.Shape) -> Json:
        """Send a question; return the decoded answer. Raises Unreachable when that has another shape."""
        return self.checked(self.call("GET", path), shape)

    def checked(self, answer: Json, shape: shapes.Shape) -> Json:
        """Return an answer that has the shape. Raises Unreachable for any other."""
        if not shapes.fits(answer, shape):
            raise errors.bad_answer(self.url)
        return answer

    def _exchange(self, method: str, path: str, body: Json = None) -> tuple[int, Message, bytes]:
        """Send on the open connection; when the server had closed that one meanwhile, once more on a new one.

        Only questions are repeated. What changes something goes out on a new connection, so that it is sent once.
        """
        if method != "GET":
            self.close()
        reused = self._connection is not None
        try:
            return self._once(method, path, body)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
            self.close()
            if not reused:
                raise errors.unreachable(self.url, "it closed the connection") from error
            return self._exchange(method, path, body)
        except http.client.HTTPException as error:
            self.close()
            raise errors.bad_answer(self.url) from error
        except OSError as error:
            self.close()
            raise failure(self.url, self._outbound.proxy(self.url), error) from error
        except BaseException:
            self.close()
            raise

    def _once(self, method: str, path: str, body: Json) -> tuple[int, Message, bytes]:
        if self._connection is None:
            self._connection = self._connect()
        headers = {"Accept": "application/json", "User-Agent": f"coder/{__version__}", **self._headers}
        if self._token is not None:
            if not is_plain(self._token.reveal()):
                raise errors.session_invalid(self.url, given=self._token_given)
            headers[TOKEN_HEADER] = self._token.reveal()
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        self._connection.request(method, self._parts.path.rstrip("/") + path, body=payload, headers=headers)
        response = self._connection.getresponse()
        data = response.read(MAX_BODY + 1)
        if len(data) > MAX_BODY:
            raise errors.bad_answer(self.url)
        self._heard(response.headers.get(BUILD_HEADER))
        return response.status, response.headers, data

    def _connect(self) -> http.client.HTTPConnection:
        return self._outbound.connection(self.url, self._timeout, racing.create_connection)

    def _heard(self, build: str | None) -> None:
        if build and self._on_build is not None:
            tell, self._on_build = self._on_build, None
            tell(build, self.build_info)

    def _secret(self, answer: Json, key: str) -> Secret:
        value = answer.get(key) if isinstance(answer, dict) else None
        if not isinstance(value, str) or not value:
            raise errors.bad_answer(self.url)
        return Secret(value)

    def _parse(self, status: int, headers: Message, body: bytes) -> Json:
        is_json = (headers.get("Content-Type") or "").partition(";")[0].strip().lower() == "application/json"
        value: Json = {}
        if is_json and body:
            try:
                value = json.loads(body, parse_constant=_refuse)
            except (ValueError, RecursionError):
                raise errors.bad_answer(self.url) from None
        if status < 300:
            if body and not is_json:
                raise errors.bad_answer(self.url)
            return value
        if status < 400:
            raise errors.redirected(self.url, headers.get("Location"))
        if status == http.client.NOT_FOUND and not is_json and not headers.get(BUILD_HEADER):
            raise errors.bad_answer(self.url)
        if status == http.client.UNAUTHORIZED and self._token is not None:
            raise errors.session_invalid(self.url, given=self._token_given)
        raise ApiError.from_answer(self.url, status, value if isinstance(value, dict) else {})


def _refuse(constant: str) -> Never:
    """Refuse what Python reads as a number, and JSON does not."""
    raise ValueError(constant)
