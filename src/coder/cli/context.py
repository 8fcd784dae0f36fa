"""What the global flags come to: which server, as whom, and how to behave. Flags win over environment and files."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coder.cli import errors
from coder.cli.store import ConfigDir, default_dir, is_plain
from coder.errors import CoderError
from coder.ids import Secret
from coder.outbound import Outbound

if TYPE_CHECKING:
    from coder.cli.api import Api


class HeaderPair(click.ParamType[tuple[str, str]]):
    """`key=value`; several in one environment variable are separated by commas."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Split at the first equals sign. The message never repeats the value: it may be a credential."""
        if isinstance(value, tuple):
            return value
        key, equals, text = value.partition("=")
        if not equals or not key.strip() or not is_plain(value):
            self.fail("a header is written key=value, in printable ASCII", param, ctx)
        return key.strip(), text.strip()

    def split_envvar_value(self, rv: str) -> list[str]:
        """Split the variable's text at commas."""
        return [part for part in rv.split(",") if part.strip()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Globals:
    """The global flags, resolved. `token` was given or is in a file; `session` also finds it in the keyring.

    Headers are kept out of the repr, for they may hold credentials.
    """

    url: str | None
    url_source: str
    """`flag`, `environment` or `config`."""
    token: Secret | None = field(repr=False)
    token_source: str
    config: ConfigDir
    use_keyring: bool
    """Whether a login may keep its session in the keyring."""
    given_headers: Mapping[str, str] = field(repr=False)
    header_command: str | None = field(repr=False)
    version_warning: bool
    disable_direct: bool
    map_ports: bool
    outbound: Outbound
    prefer_region: str | None
    verbose: bool
    force_tty: bool
    no_color: bool
    _printed: dict[str, Mapping[str, str]] = field(default_factory=dict, repr=False, init=False)
    """What the header command printed for which server."""
    _kept: dict[str, Secret] = field(default_factory=dict, repr=False, init=False)
    """What the keyring had in which entry."""

    @classmethod
    def from_flags(cls, *, sources: Mapping[str, str], **flags: Any) -> "Globals":
        """Fill in what flags and environment left open from the config directory."""
        config = ConfigDir(Path(flags["global_config"]).expanduser() if flags["global_config"] else default_dir())
        url, token = flags["url"], flags["token"]
        return cls(
            url=url or config.read("url"),
            url_source=sources["url"] if url else "config",
            token=_secret(token or config.read("session")),
            token_source=sources["token"] if token else "config",
            config=config,
            use_keyring=flags["use_keyring"] is not False and not flags["global_config"],
            given_headers=dict(flags["headers"]),
            header_command=flags["header_command"] or None,
            version_warning=not flags["no_version_warning"],
            disable_direct=flags["disable_direct_connections"],
            map_ports=not flags["disable_port_mapping"],
            outbound=Outbound.of(flags["ca_file"], flags["client_tls_cert_file"], flags["client_tls_key_file"]),
            prefer_region=flags["prefer_region"] or None,
            verbose=flags["verbose"],
            force_tty=flags["force_tty"],
            no_color=flags["no_color"] or bool(os.environ.get("NO_COLOR")),
        )

    @property
    def fresh_token(self) -> Secret | None:
        """The token given for this call, as opposed to the one kept from an earlier login."""
        return None if self.token_source == "config" else self.token  # noqa: S105 - a place, not a token

    @property
    def interactive(self) -> bool:
        """Whether someone is there to answer a question."""
        return self.force_tty or sys.stdin.isatty()

    @property
    def watched(self) -> bool:
        """Whether stderr is a terminal, where a line may be rewritten."""
        return self.force_tty or sys.stderr.isatty()

    @property
    def colour(self) -> bool:
        """Whether stderr may be coloured."""
        return self.watched and not self.no_color

    def api(self, timeout: float = 30.0) -> "Api":
        """Return a client signed in to the server. Raises NotSignedIn when there is no server or no session."""
        from coder.cli.api import Api

        if self.url is None:
            raise errors.not_signed_in(None)
        url, token = normal_url(self.url), self.session()
        return Api(
            url,
            token=token,
            headers=self.headers(url),
            timeout=timeout,
            outbound=self.outbound,
            on_build=self.hear_build,
            token_given=self.fresh_token is not None,
        )

    def headers(self, url: str) -> dict[str, str]:
        """Return what is added to each request to that server; the header command runs once a server.

        Raises CoderError when that command fails.
        """
        if self.header_command is None:
            return dict(self.given_headers)
        if url not in self._printed:
            from coder.cli.headers import from_command

            self._printed[url] = from_command(self.header_command, url)
        return {**self.given_headers, **self._printed[url]}

    def hear_build(self, build: str, ask: Callable[[], Any]) -> None:
        """Warn when the server's version may not suit this program's."""
        from coder.cli import output, versions

        if not self.version_warning or not versions.mismatch(build):
            return
        try:
            info = ask()
        except CoderError:
            info = {}  # the command itself will say what is wrong
        output.note(versions.warning(build, info if isinstance(info, dict) else {}))

    def session(self) -> Secret:
        """Return the session token, asking the keyring if it is there. Raises NotSignedIn."""
        if self.token is not None:
            return self.token
        entry = self.config.read("keyring")
        if entry is None or self.url is None or not entry.startswith(f"{normal_url(self.url)} "):
            raise errors.not_signed_in(self.url)
        if entry not in self._kept:
            from coder.cli import keychain

            self._kept[entry] = keychain.find(entry)
        return self._kept[entry]


def _secret(text: str | None) -> Secret | None:
    return Secret(text) if text else None


def normal_url(text: str) -> str:
    """Complete an address as people type it: plain HTTP for `localhost`, else HTTPS. Raises CoderError."""
    from urllib.parse import urlsplit

    url = text.strip()
    if "://" not in url:
        url = ("http://" if url.startswith("localhost") else "https://") + url
    url = url.rstrip("/")
    try:
        parts = urlsplit(url)
        _ = parts.port
        if not url.isascii():
            (parts.hostname or "").encode("idna")
    except ValueError:
        raise errors.bad_url(text) from None
    blank = any(sign.isspace() for sign in url)
    if blank or parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise errors.bad_url(text)
    return url
