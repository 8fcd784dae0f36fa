"""The program `coder`: global flags, the table of commands, and how every failure is told.

Start-up time is felt at each call, so a command's module is imported when it runs and never before.
"""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from coder.cli import output
from coder.cli.context import Globals, HeaderPair

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS: dict[str, tuple[str, str]] = {
    "agent": ("agent", "Connect this machine to its workspace; runs until stopped."),
    "agents": ("agents", "Renew the token of a workspace's agent."),
    "audit": ("audit", "List who did what on the server."),
    "completion": ("completion", "Print the completion script of a shell."),
    "config-ssh": ("config_ssh", "Let ssh, scp, git and editors reach your workspaces by name."),
    "connections": ("connections", "List who was connected to workspaces."),
    "create": ("create", "Create a workspace, of a template or on a machine that you bring."),
    "delete": ("delete", "Delete a workspace."),
    "derpmap": ("derpmap", "Check and show DERP maps, which tell clients where the relays are."),
    "doctor": ("doctor", "Examine the way to a workspace, and what would make it direct."),
    "list": ("list", "List workspaces."),
    "login": ("login", "Sign in to a server, or create its first user."),
    "logout": ("logout", "Sign out and forget the session."),
    "logs": ("logs", "Show what a workspace's build, agents and scripts printed."),
    "netcheck": ("netcheck", "Report on relays and this machine's network."),
    "ping": ("ping", "Ping a workspace and say over which path."),
    "port-forward": ("port_forward", "Reach ports of a workspace as ports of this machine."),
    "port-share": ("port_share", "Share ports of a workspace with others."),
    "relay": ("relay", "Run a relay on its own, for a region of its own."),
    "reset-password": ("reset_password", "Give a user a new password, on the server's own machine."),
    "restart": ("restart", "Stop a workspace and start it again."),
    "schedule": ("schedule", "Show and change when a workspace starts and stops by itself."),
    "server": ("server", "Run the server."),
    "show": ("show", "Show a workspace and its agents."),
    "speedtest": ("speedtest", "Measure the throughput to a workspace."),
    "ssh": ("ssh", "Open a shell in a workspace, or run a command there."),
    "start": ("start", "Start a workspace."),
    "stop": ("stop", "Stop a workspace."),
    "templates": ("templates", "List, show and change what workspaces are made of."),
    "tokens": ("tokens", "Create, list and remove the tokens that programs sign in with."),
    "update": ("update", "Start a workspace anew, as its template is now."),
    "users": ("users", "Create users, list them, and change what they may do."),
    "version": ("version", "Print the version."),
    "whoami": ("whoami", "Say who is signed in, and where."),
}
"""Name -> module below `coder.cli.commands`, and the line in the help."""

HIDDEN = {"connect": ("connect", ""), "share": ("share", "")}
"""Commands that programs call, not people."""

ALIASES = {
    "ls": "list",
    "rm": "delete",
    "tunnel": "port-forward",
    "template": "templates",
    "token": "tokens",
    "user": "users",
}

EXIT_INTERRUPTED = 128 + 2  # a shell's number for death by SIGINT
EXIT_PIPE = 128 + 13  # and by SIGPIPE: whoever read our output has seen enough


class Lazy(click.Group):
    """A group that knows its commands by name and imports one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands, in the order of the help page."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of that name; None when there is none."""
        del ctx
        entry = COMMANDS.get(ALIASES.get(cmd_name, cmd_name)) or HIDDEN.get(cmd_name)
        if entry is None:
            return None
        command = importlib.import_module(f"coder.cli.commands.{entry[0]}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"{cmd_name} is not a command")
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Offer the commands that begin so, without importing any."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown name brings the nearest one along, and `help` stands for `--help`."""
        if args == ["help"]:
            output.out(ctx.get_help())
            ctx.exit()
        if args[:1] == ["help"]:
            args = [*args[1:], "--help"]
        if args and not self._known(args[0]) and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    @staticmethod
    def _known(name: str) -> bool:
        return name in COMMANDS or name in ALIASES or name in HIDDEN

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing any."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    del param
    if value:
        from coder.cli.commands.version import text

        output.out(text())
        ctx.exit()


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--url", envvar="CODER_URL", metavar="URL", help="The server. [env: CODER_URL; default: the one signed in to]"
)
@click.option(
    "--token", envvar="CODER_SESSION_TOKEN", metavar="TOKEN",
    help="Session token. Other users of this machine can read it here: better set CODER_SESSION_TOKEN, or let 'coder"
    " login' keep it in the file 'session' of the configuration directory. [env: CODER_SESSION_TOKEN]",
)  # fmt: skip
@click.option(
    "--global-config",
    envvar="CODER_CONFIG_DIR",
    metavar="DIR",
    help="Where url and session are kept. [env: CODER_CONFIG_DIR]",
)
@click.option(
    "--use-keyring/--no-keyring", "use_keyring", envvar="CODER_USE_KEYRING", default=True,
    help="Whether 'coder login' keeps the session in the system's keyring, if there is one that works and no"
    " --global-config; else in a file. [env: CODER_USE_KEYRING]",
)  # fmt: skip
@click.option(
    "--header", "headers", envvar="CODER_HEADER", multiple=True, type=HeaderPair(), metavar="KEY=VALUE",
    help="Header added to every HTTP request and to the relay's; repeatable. [env: CODER_HEADER, comma-separated]",
)  # fmt: skip
@click.option(
    "--header-command", envvar="CODER_HEADER_COMMAND", metavar="COMMAND",
    help="Command that prints more headers, lines of key=value; the shell runs it with CODER_URL set."
    " [env: CODER_HEADER_COMMAND]",
)  # fmt: skip
@click.option(
    "--no-version-warning", envvar="CODER_NO_VERSION_WARNING", is_flag=True,
    help="Do not warn when the server's version does not fit this one. [env: CODER_NO_VERSION_WARNING]",
)  # fmt: skip
@click.option(
    "--disable-direct-connections", envvar="CODER_DISABLE_DIRECT_CONNECTIONS", is_flag=True,
    help="Go through the relay only. [env: CODER_DISABLE_DIRECT_CONNECTIONS]",
)  # fmt: skip
@click.option(
    "--disable-port-mapping", envvar="CODER_DISABLE_PORT_MAPPING", is_flag=True,
    help="Do not ask the router (by PCP, NAT-PMP or UPnP) to forward a port. [env: CODER_DISABLE_PORT_MAPPING]",
)  # fmt: skip
@click.option(
    "--ca-file", envvar="CODER_CA_FILE", metavar="FILE",
    help="Certificate authorities to trust beside the system's, PEM; for server and relays. [env: CODER_CA_FILE]",
)  # fmt: skip
@click.option(
    "--client-tls-cert-file", envvar="CODER_CLIENT_TLS_CERT_FILE", metavar="FILE",
    help="Certificate for servers and relays that ask who we are, PEM. [env: CODER_CLIENT_TLS_CERT_FILE]",
)  # fmt: skip
@click.option(
    "--client-tls-key-file", envvar="CODER_CLIENT_TLS_KEY_FILE", metavar="FILE",
    help="Its private key, if that is not in the same file. [env: CODER_CLIENT_TLS_KEY_FILE]",
)  # fmt: skip
@click.option(
    "--prefer-region", envvar="CODER_PREFER_REGION", metavar="REGION",
    help="Relay region (id, code or name) to be reached at, however far, while it answers. [env: CODER_PREFER_REGION]",
)  # fmt: skip
@click.option("-v", "--verbose", envvar="CODER_VERBOSE", is_flag=True, help="Say more on stderr. [env: CODER_VERBOSE]")
@click.option(
    "--force-tty", envvar="CODER_FORCE_TTY", is_flag=True, help="Behave as on a terminal. [env: CODER_FORCE_TTY]"
)
@click.option("--no-color", is_flag=True, help="No colours. [env: NO_COLOR]")
@click.option("--version", is_flag=True, callback=_version, expose_value=False, is_eager=True, help="Say the version.")
@click.pass_context
def group(ctx: click.Context, /, **flags: Any) -> None:
    """Reach your workspaces: directly where the networks allow it, through a relay where they do not."""
    ctx.obj = Globals.from_flags(
        sources={name: _source(ctx, name) for name in ("url", "token")},
        **flags,
    )


def _source(ctx: click.Context, name: str) -> str:
    source = ctx.get_parameter_source(name)
    return {"ENVIRONMENT": "environment", "COMMANDLINE": "flag"}.get(source.name if source else "", "config")


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit status; every failure is one line on stderr, none a traceback."""
    try:
        result = group.main(args=list(argv), prog_name="coder", standalone_mode=False)
    except click.ClickException as error:
        if isinstance(error, click.NoSuchOption) and (moved := _moved(error, list(argv))) is not None:
            return run(moved)
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        return _stopped(error)
    except SystemExit:  # click's way out when nobody reads any more
        return EXIT_PIPE
    except Exception as error:  # noqa: BLE001 - told apart below
        return _failed(error)
    return result if isinstance(result, int) else 0


def _moved(error: click.NoSuchOption, argv: list[str]) -> list[str] | None:
    """Put a flag of all commands that stands behind its command before it; None when the flag is none of those."""
    ours = {
        name: param
        for param in group.params
        if isinstance(param, click.Option)
        for name in [*param.opts, *param.secondary_opts]
    }
    param = ours.get(error.option_name)
    if param is None or error.ctx is None or error.ctx.command is group or param.name == "version":
        return None
    for at, word in reversed(list(enumerate(argv))):
        if word.partition("=")[0] == error.option_name:
            end = at + (1 if param.is_flag or "=" in word else 2)
            return argv[at:end] + argv[:at] + argv[end:]
    return None


def _stopped(error: BaseException) -> int:
    """Say why no answer came, if it was not for Ctrl-C."""
    if not isinstance(error.__context__, EOFError):
        return EXIT_INTERRUPTED
    from coder.cli.errors import answer_expected, line

    output.note(f"error: {line(answer_expected())}", before="\n")  # behind the question
    return 1


def _failed(error: Exception) -> int:
    """Tell an error with its remedy. What is no error of ours is a defect, and its traceback the report."""
    from coder.errors import CoderError

    if isinstance(error, CoderError):
        from coder.cli.errors import line

        output.note(f"error: {line(error)}")
        return error.exit_code
    if isinstance(error, OSError):
        output.note(f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        return 1
    if isinstance(error, UnicodeEncodeError) and any("\udc80" <= sign <= "\udcff" for sign in error.object):
        output.note("error: an argument or a variable holds bytes that are not text in UTF-8. Write it in UTF-8.")
        return 1
    raise error
