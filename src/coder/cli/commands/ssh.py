"""`coder ssh`."""

import asyncio
import os
import sys
from collections.abc import Sequence

import click

from coder.cli import output
from coder.cli.context import Globals
from coder.cli.errors import line
from coder.cli.options import Duration
from coder.errors import CoderError, Unreachable

SSH_PORT = 1
"""The agent's SSH server inside the tunnel."""

EXIT_FAILED = 255
"""Our own failures, as in OpenSSH: every other code is the remote command's."""

TERMINAL = "xterm-256color"
"""What a terminal is taken for that does not say."""


@click.command("ssh", context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.argument("workspace")
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
    "-e", "--env", "variables", multiple=True, metavar="K=V", help="Set a variable in the session; repeatable."
)
@click.option("--timeout", type=Duration(), default="60s", show_default=True, help="How long to wait for the agent.")
@click.option("--wait", type=click.Choice(["yes", "no", "auto"]), envvar="CODER_SSH_WAIT", default="auto", hidden=True)
@click.option("--disable-autostart", is_flag=True, envvar="CODER_SSH_DISABLE_AUTOSTART", hidden=True)
@click.option("--usage-app", envvar="CODER_SSH_USAGE_APP", default="ssh", hidden=True)
@click.pass_obj
def command(
    flags: Globals,
    *,
    workspace: str,
    command: tuple[str, ...],
    stdio: bool,
    terminal: str | None,
    ssh_host_prefix: str | None,
    hostname_suffix: str | None,
    forward_agent: bool,
    identity_agent: str | None,
    variables: Sequence[str],
    timeout: float,
    wait: str,
    disable_autostart: bool,
    usage_app: str,
) -> int:
    """Open a shell in a workspace, or run a command there.

    At the start of a line `~.` ends the connection. Exits with the remote exit code, and with 255 for failures of the
    connection itself.
    """
    del (
        wait,
        disable_autostart,
        usage_app,
    )  # these clients' flags have no meaning for workspaces that bring their machine
    name = strip_host(workspace, prefix=ssh_host_prefix, suffix=hostname_suffix)
    if stdio and command:
        raise click.UsageError("--stdio goes without a command")
    pairs = [_pair(text) for text in variables]
    if forward_agent and not identity_agent:
        raise click.UsageError("--forward-agent needs a running SSH agent: SSH_AUTH_SOCK is not set")
    try:
        if stdio:
            return asyncio.run(_stdio(flags, name, timeout))
        session = Session(
            command=" ".join(command) or None,
            terminal=_terminal(terminal, has_command=bool(command)),
            variables=pairs,
            agent=identity_agent if forward_agent else None,
        )
        return asyncio.run(_session(flags, name, timeout, session))
    except CoderError as error:
        output.note(f"error: {line(error)}")
        return EXIT_FAILED


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


class Session:
    """What to ask the agent's SSH server for."""

    __slots__ = ("agent", "command", "terminal", "variables")

    def __init__(
        self, *, command: str | None, terminal: str | None, variables: list[tuple[str, str]], agent: str | None
    ) -> None:
        self.command = command
        self.terminal = terminal
        self.variables = variables
        self.agent = agent


async def _stdio(flags: Globals, workspace: str, patience: float) -> int:
    from coder.cli.connect import connect
    from coder.dataplane.ssh import join_stdio

    async with connect(flags, workspace, patience=patience) as connection:
        await connection.reach(patience)
        await join_stdio(await connection.node.connect(connection.address, SSH_PORT))
    return 0


async def _session(flags: Globals, workspace: str, patience: float, session: Session) -> int:
    from coder.cli.connect import connect
    from coder.dataplane.ssh import run_session

    async with connect(flags, workspace, patience=patience) as connection:
        await connection.reach(patience)
        stream = await connection.node.connect(connection.address, SSH_PORT)
        code, how = await run_session(
            stream,
            command=session.command,
            terminal=session.terminal,
            variables=session.variables,
            agent=session.agent,
        )
    if how == "lost":
        raise Unreachable(f"the connection to {workspace} was lost")
    return code
