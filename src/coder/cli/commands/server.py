"""`coder server`: options from the settings table, then the server's own composition."""

import asyncio
from datetime import timedelta
from typing import Any

import click

from coder import config
from coder.cli.context import Globals
from coder.config import Option


def _help(option: Option) -> str:
    shown = config.plain(option.default)
    shown = ",".join(shown) if isinstance(shown, list) else str(shown).lower() if option.kind is bool else str(shown)
    default = f"; default: {shown}" if shown and shown != "{}" else ""
    choices = f" One of {', '.join(option.choices)}." if option.choices else ""
    return f"{option.help}{choices} [env: {option.env}{default}]"


def _click_option(option: Option) -> click.Option:
    if option.kind is bool:  # `--x` alone turns it on, `--x=false` off
        return click.Option(
            [f"--{option.flag}"],
            is_flag=False,
            flag_value="true",
            default=None,
            metavar="[true|false]",
            help=_help(option),
            hidden=option.hidden,
        )
    kinds = {int: "NUMBER", timedelta: "DURATION", tuple[str, ...]: "LIST", dict[str, str]: "KEY=VALUE,.."}
    several = option.kind in {tuple[str, ...], dict[str, str]}  # in one list, or with the flag given again
    return click.Option(
        [f"--{option.flag}"],
        type=str,
        default=None,
        multiple=several,
        callback=_joined if several else None,
        help=_help(option),
        metavar=kinds.get(option.kind, "TEXT"),
        hidden=option.hidden,
    )


def _joined(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> str | None:
    return ",".join(given) if given else None


def _run(*, config_file: str | None, write_config: bool, **flags: Any) -> None:
    settings = config.load(flags=_outbound(flags), path=config_file)
    if write_config:
        click.echo(config.to_yaml(settings), nl=False)
        return
    import uvloop

    from coder import descriptors, log
    from coder.server.ending import to_its_end
    from coder.server.run import run

    descriptors.raise_limit()
    log.configure(style=settings.log.format, level=settings.log.level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(to_its_end(run(settings, announce=_announce)))


def _outbound(flags: dict[str, Any]) -> dict[str, Any]:
    """Take the flags for outgoing connections that stand before the command, where they are not given again behind."""
    outer = click.get_current_context().find_object(Globals)
    if outer is None:
        return flags
    cert, key = outer.outbound.identity or (None, None)
    given = {"ca_file": outer.outbound.ca_file, "client_tls_cert_file": cert, "client_tls_key_file": key}
    return flags | {name: value for name, value in given.items() if flags.get(name) is None and value}


def _announce(ready: Any) -> None:
    lines = [f"coder {ready.version}", f"Access URL  {ready.access_url}"]
    lines.append(f"Listening   {', '.join(ready.addresses)}{_stun(ready.stun_ports)}")
    if ready.metrics:
        lines.append(f"Metrics     {ready.metrics}")
    if ready.access_url_derived:
        lines.append("Warning     No --access-url is given, so only this machine can use the one above.")
    if ready.needs_first_user:
        lines.append(f"Next        Create the first user: coder login {ready.access_url}")
    click.echo("\n".join(lines))


def _stun(ports: tuple[int, ...]) -> str:
    return f"; STUN on UDP {', '.join(map(str, ports))}" if ports else ""


command = click.Command(
    "server",
    callback=_run,
    help="Run the server: API, relay, STUN and the coordinator.\n\n"
    "Flags win over CODER_* variables, these over the YAML file, that over the defaults.",
    params=[
        click.Option(
            ["-c", "--config", "config_file"], metavar="FILE", help=f"YAML file of settings. [env: {config.CONFIG_ENV}]"
        ),
        click.Option(["--write-config"], is_flag=True, help="Print the settings as YAML and exit."),
        *map(_click_option, config.OPTIONS),
    ],
)
