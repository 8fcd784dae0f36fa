"""`coder ssh`."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coder.cli import output, shared
from coder.cli.context import Globals
from coder.cli.errors import LOST, line
from coder.cli.options import AssignedFlags, Duration, workspace_argument
from coder.errors import Closed, CoderError

if TYPE_CHECKING:
    from coder.cli.waiting import Wait

EXIT_FAILED = 255
"""Our own failures, as in OpenSSH: every other code is the remote command's."""

TERMINAL = "xterm-256color"
"""What a terminal is taken for that does not say."""


@click.command("ssh", cls=AssignedFlags, context_settings={"allow_interspersed_args": False})
@workspace_argument()
@click.argument("command", nargs=-1)
@click.option(
    "--stdio", is_flag=True, envvar="CODER_SSH_STDIO", help="Speak SSH on standard input and output, as a ProxyCommand."
)
@click.option("-t", "terminal", flag_value="yes", help="Give a command a terminal, even without one here.")
@click.option("-T", "terminal", flag_value="no", help="No terminal, even for the login shell.")
@click.option(
    "--ssh-host-prefix", envvar="CODER_SSH_SSH_HOST_PREFIX", metavar="TEXT", help="Taken off the front of the name."
)
@click.option(
    "--hostname-suffix", envvar="CODER_SSH_HOSTNAME_SUFFIX", metavar="TEXT", help="Taken off the end, with its dot."
)
@click.option(
    "-A",
    "--forward-agent",
    is_flag=True,
    envvar="CODER_SSH_FORWARD_AGENT",
    help="Let the workspace use your SSH agent's keys.",
)
@click.option(
    "--identity-agent", envvar=["CODER_SSH_IDENTITY_AGENT", "SSH_AUTH_SOCK"], metavar="PATH", help="Its socket."
)
@click.option(
    "-G",
    "--forward-gpg",
    is_flag=True,
    envvar="CODER_SSH_FORWARD_GPG",
    help="Let it sign and decrypt with your GnuPG keys; needs gpg on both sides.",
)
@click.option(
    "-X", "--forward-x11", is_flag=True, envvar="CODER_SSH_FORWARD_X11", help="Let its programs use your screen (X11)."
)
@click.option(
    "--share",
    is_flag=True,
    envvar="CODER_SSH_SHARE",
    help="Use the connection an earlier command keeps open, and keep one open for the next.",
)
@click.option("--no-share", is_flag=True, help="A connection of its own, whatever CODER_SSH_SHARE says.")
@click.option(
    "--share-idle",
    type=Duration(),
    envvar="CODER_SSH_SHARE_IDLE",
    default="5m",
    show_default=True,
    help="How long it is kept open unused.",
)
@click.option(
    "-e", "--env", "variables", multiple=True, metavar="K=V", help="Set a variable in the session; repeatable."
)
@click.option(
    "-R", "--remote-forward", envvar="CODER_SSH_REMOTE_FORWARD", multiple=True, metavar="PORT:HOST:PORT",
    help="Let a port of the workspace lead here; repeatable; needs OpenSSH.",
)  # fmt: skip
@click.option(
    "--timeout", type=Duration(positive=True), default="60s", show_default=True, help="How long to wait for the agent."
)
@click.option("-l", "--log-dir", envvar="CODER_SSH_LOG_DIR", metavar="DIR", help="Where to write a log of the session.")
@click.option("--network-info-dir", metavar="DIR", help="Where to write figures of the connection, for editors.")
@click.option("--network-info-interval", type=Duration(), default="5s", show_default=True, help="How often.")
@click.option("-c", "--container", hidden=True)
@click.option(
    "--wait", type=click.Choice(["yes", "no", "auto"]), envvar="CODER_SSH_WAIT", default="auto", show_default=True,
    help="Wait for the start scripts; auto: for those that say so.  [env: CODER_SSH_WAIT]",
)  # fmt: skip
@click.option("--no-wait", is_flag=True, envvar="CODER_SSH_NO_WAIT", hidden=True)
@click.option("--workspace-poll-interval", envvar="CODER_WORKSPACE_POLL_INTERVAL", hidden=True)
@click.option(
    "--disable-autostart", is_flag=True, envvar="CODER_SSH_DISABLE_AUTOSTART",
    help="Do not start a workspace that is stopped.  [env: CODER_SSH_DISABLE_AUTOSTART]",
)  # fmt: skip
@click.option("--usage-app", envvar="CODER_SSH_USAGE_APP", default="ssh", hidden=True)
@click.option("--container-user", hidden=True)
@click.option("--force-new-tunnel", is_flag=True, hidden=True)
@click.pass_obj
def command(flags: Globals, /, workspace: str, command: tuple[str, ...], **given: Any) -> int:
    """Open a shell in a workspace, or run a command there.

    At the start of a line `~.` ends the connection. Exits with the remote exit code, and with 255 for failures of the
    connection itself.
    """
    name = strip_host(workspace, prefix=given["ssh_host_prefix"], suffix=given["hostname_suffix"])
    if command[:1] == ("--",):
        command = command[1:]
    elif command and command[0].startswith("-"):
        raise click.UsageError(
            f"options go before the workspace: coder ssh {command[0]} ... {workspace}."
            f" A command that begins so goes behind --: coder ssh {workspace} -- {command[0]} ..."
        )
    stdio, agent = given["stdio"], given["identity_agent"] if given["forward_agent"] else None
    if stdio and (command or given["remote_forward"]):
        raise click.UsageError("--stdio goes without a command and without --remote-forward")
    if given["forward_agent"] and not agent:
        raise click.UsageError("--forward-agent needs a running SSH agent: SSH_AUTH_SOCK is not set")
    if stdio and (given["forward_gpg"] or given["forward_x11"]):
        raise click.UsageError("with --stdio the SSH client decides what is forwarded")
    if given["container"]:
        raise click.UsageError("--container is not supported")
    session = Session(
        command=" ".join(command) or None,
        terminal=None if stdio else _terminal(given["terminal"], has_command=bool(command)),
        variables=[_pair(text) for text in given["variables"]],
        agent=agent,
        backwards=given["remote_forward"],
        display=given["forward_x11"],
        gpg=given["forward_gpg"],
    )
    sharing = _sharing(flags, name, given, session)
    try:
        if sharing is not None and (borrowed := shared.take(sharing)) is not None:
            return _use(*borrowed, None if stdio else session)
        import asyncio

        from coder.cli.sessions import Run

        with _log(given["log_dir"], stdio=stdio) as log:
            figures = _directory(given["network_info_dir"])
            waits: Wait = "no" if given["no_wait"] else given["wait"]
            run = Run(
                flags, name, given["timeout"], log, figures, given["network_info_interval"], given["usage_app"], waits,
                start=not given["disable_autostart"],
                reached=lambda: _share(name, sharing, given["share_idle"]),
            )  # fmt: skip
            return asyncio.run(run.stdio() if stdio else run.session(session))
    except CoderError as error:
        output.note(f"error: {line(error)}")
        return EXIT_FAILED


def _sharing(flags: Globals, name: str, given: dict[str, Any], session: "Session") -> Path | None:
    """Return where a shared connection is to be had, if this call wants one and it has all that the call asks for."""
    own = (
        session.backwards or given["log_dir"] or given["network_info_dir"] or flags.verbose or given["force_new_tunnel"]
    )
    return shared.place(flags, name) if given["share"] and not given["no_share"] and not own else None


def _share(name: str, path: Path | None, idle: float) -> None:
    """Have a process keep a connection for the next call, if this one wants it."""
    if path is not None:
        from coder.cli.reverse import environment

        with suppress(OSError):
            shared.start(environment(click.get_current_context()), name, path, idle)


def _use(stream: socket.socket, held: socket.socket, session: "Session | None") -> int:
    """Use a stream of a shared connection, for a session or, without one, as standard input and output."""
    from coder.dataplane import blocking

    with held:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no loop of ours waits for it
        try:
            if session is None:
                blocking.join_stdio(stream)
                return 0
            code, how, killer = blocking.ssh_session(
                stream,
                command=session.command,
                terminal=session.terminal,
                variables=session.variables,
                agent=session.agent,
                **session.lent(),
            )
        except OSError as error:
            raise Closed(f"the shared connection broke: {error}", remedy=LOST) from None
    if how == "lost":
        raise Closed("the shared connection was lost, or the agent stopped", remedy=LOST)
    if how == "signal":
        output.note(output.printable(f"The remote process was ended by signal {killer}."))
    return code


def strip_host(name: str, *, prefix: str | None, suffix: str | None) -> str:
    """Make a workspace's name of a host name as `config-ssh` writes them.

    `coder.dev` and `coder.me--dev--main` with a prefix, `dev.coder` and `main.dev.me.coder` with a suffix: the latter
    are agent, workspace and owner.
    """
    if prefix and name.startswith(prefix):
        parts = name.removeprefix(prefix).split("--")
        return parts[0] if len(parts) == 1 else f"{parts[0]}/{'.'.join(parts[1:])}"
    ending = "." + suffix.removeprefix(".") if suffix else ""
    if ending and name.endswith(ending):
        parts = name.removesuffix(ending).split(".")
        if len(parts) == 3:
            agent, workspace, owner = parts
            return f"{owner}/{workspace}.{agent}"
        if len(parts) == 2:
            return ".".join(reversed(parts))
        return ".".join(parts)
    return name


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE", param_hint="--env")
    return name, value


def _terminal(choice: str | None, *, has_command: bool) -> str | None:
    """Return the type of the terminal to ask for, if the session should have one."""
    here = sys.stdin.isatty() and sys.stdout.isatty()
    wanted = choice == "yes" or (choice is None and here and not has_command)
    return os.environ.get("TERM") or TERMINAL if wanted else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What to ask the agent's SSH server for."""

    command: str | None
    terminal: str | None
    """Its type, to have one there."""
    variables: Sequence[tuple[str, str]]
    agent: str | None
    """The socket of a key agent to forward."""
    backwards: Sequence[str]
    """Ports of the workspace that lead here, as OpenSSH writes them."""
    display: bool = False
    """Whether it may draw on the screen of this machine …"""
    gpg: bool = False
    """… and use the GnuPG agent."""

    def lent(self) -> dict[str, Any]:
        """Find what the workspace may use of this machine. Raises CoderError when there is no such thing."""
        found: dict[str, Any] = {}
        if self.display:
            from coder.cli import x11

            screen = x11.find(os.environ)
            found["display"] = (screen.path, screen.host, screen.port, screen.screen, screen.cookie)
        if self.gpg:
            from coder.cli import gpg

            agent = gpg.find()
            found["gpg"] = (agent.socket, agent.keys, agent.trust)
        return found


def _directory(path: str | None) -> Path | None:
    if path is None:
        return None
    from coder.cli.pulse import made

    try:
        return made(path)
    except OSError as error:
        raise CoderError(f"cannot make the directory {path}: {error.strerror}") from None


@contextmanager
def _log(path: str | None, *, stdio: bool) -> Iterator[Callable[[str], None]]:
    """Give a function that writes to the session's log, if there is one."""
    if path is None:
        yield lambda _text: None
        return
    from coder.cli.pulse import LogFile

    if not stdio and not Path(path).expanduser().is_dir():  # editors expect it to be made
        raise CoderError(
            f"there is no directory {path} to write a log to",
            remedy="-l is --log-dir here; users of a workspace have no names.",
        )
    directory = _directory(path) or Path()

    try:
        file = LogFile(directory, stdio=stdio)
    except OSError as error:
        raise CoderError(f"cannot write a log to {directory}: {error.strerror}") from None
    try:
        yield file.write
    except BaseException as error:
        file.write(f"failed: {error}" if isinstance(error, CoderError) else f"ended: {type(error).__name__}")
        raise
    finally:
        file.close()
