"""`coder agent`."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coder import BUILD_VERSION
from coder.cli.context import Globals, HeaderPair, normal_url
from coder.cli.options import Duration
from coder.errors import CoderError
from coder.ids import Secret

if TYPE_CHECKING:
    from coder.agent.settings import AgentSettings

SHORTEST_SILENCE = 3.0
"""Seconds; a shorter time means that clients may be silent for ever, as with other agents of the protocol."""


@click.command("agent")
@click.option("--auth", type=click.Choice(["token"]), envvar="CODER_AGENT_AUTH", default="token", hidden=True)
@click.option(
    "--agent-url", envvar="CODER_AGENT_URL", metavar="URL", help="The server.  [env: CODER_AGENT_URL; default: --url]"
)
@click.option(
    "--agent-token-file", "token_file", envvar="CODER_AGENT_TOKEN_FILE", metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Read the token from this file, unless CODER_AGENT_TOKEN holds it.  [env: CODER_AGENT_TOKEN_FILE]",
)  # fmt: skip
@click.option(
    "--tailnet-listen-port", "port", envvar="CODER_AGENT_TAILNET_LISTEN_PORT", type=click.IntRange(0, 65535), default=0,
    show_default=True, help="UDP port of the tunnel; 0: any.  [env: CODER_AGENT_TAILNET_LISTEN_PORT]",
)  # fmt: skip
@click.option(
    "--agent-header", "headers", envvar="CODER_AGENT_HEADER", multiple=True, type=HeaderPair(), metavar="KEY=VALUE",
    help="Header added to every request; repeatable.  [env: CODER_AGENT_HEADER, comma-separated]",
)  # fmt: skip
@click.option(
    "--agent-header-command", "header_command", envvar="CODER_AGENT_HEADER_COMMAND", metavar="COMMAND",
    help="Command whose output, lines of key=value, are headers too.  [env: CODER_AGENT_HEADER_COMMAND]",
)  # fmt: skip
@click.option(
    "--log-human", envvar="CODER_AGENT_LOGGING_HUMAN", metavar="FILE", default="/dev/stderr", show_default=True,
    help="Where to log, for people.  [env: CODER_AGENT_LOGGING_HUMAN]",
)  # fmt: skip
@click.option(
    "--log-json", envvar="CODER_AGENT_LOGGING_JSON", metavar="FILE",
    help="Log there instead, a JSON object a line.  [env: CODER_AGENT_LOGGING_JSON]",
)  # fmt: skip
@click.option(
    "--log-dir", envvar="CODER_AGENT_LOG_DIR", metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
    help="Keep the output of scripts there too.  [env: CODER_AGENT_LOG_DIR]",
)  # fmt: skip
@click.option(
    "--script-data-dir", envvar="CODER_AGENT_SCRIPT_DATA_DIR", metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where scripts keep data and programs; default: below ~/.cache.  [env: CODER_AGENT_SCRIPT_DATA_DIR]",
)  # fmt: skip
@click.option(
    "--ssh-max-timeout", "silence", envvar="CODER_AGENT_SSH_MAX_TIMEOUT", type=Duration(), default="72h",
    show_default=True, metavar="TIME",
    help="End SSH sessions whose client answers nothing for so long; 0: never.  [env: CODER_AGENT_SSH_MAX_TIMEOUT]",
)  # fmt: skip
@click.option(
    "--block-file-transfer", envvar="CODER_AGENT_BLOCK_FILE_TRANSFER", is_flag=True,
    help="Refuse SFTP and the commands scp, rsync and nc.  [env: CODER_AGENT_BLOCK_FILE_TRANSFER]",
)  # fmt: skip
@click.option("--no-reap", is_flag=True, hidden=True)
@click.option("--subsystem", "subsystems", envvar="CODER_AGENT_SUBSYSTEM", default="", hidden=True)
@click.pass_obj
def command(
    flags: Globals,
    *,
    auth: str,
    agent_url: str | None,
    token_file: Path | None,
    port: int,
    headers: tuple[tuple[str, str], ...],
    header_command: str | None,
    log_human: str,
    log_json: str | None,
    log_dir: Path | None,
    script_data_dir: Path | None,
    silence: float,
    block_file_transfer: bool,
    no_reap: bool,
    subsystems: str,
) -> None:
    """Connect this machine to its workspace; runs until stopped.

    The token comes from CODER_AGENT_TOKEN or a file, never from an option, which other users of the machine could
    read. The agent dials the server for ever; SIGTERM ends it properly.
    """
    del auth, no_reap  # there is one way in, and no other process is waited for
    from coder import descriptors, log
    from coder.agent.settings import AgentSettings
    from coder.cli.headers import from_command

    given = agent_url or flags.url
    if given is None:
        raise CoderError("no server is named", remedy="Set CODER_AGENT_URL.")
    url = normal_url(given)
    printed = from_command(header_command, url) if header_command else {}
    settings = AgentSettings(
        url=url,
        token=_token(token_file),
        headers={**flags.headers(url), **dict(headers), **printed},
        outbound=flags.outbound,
        prefer_region=flags.prefer_region,
        listen_port=port,
        block_direct=flags.disable_direct,
        map_ports=flags.map_ports,
        log_directory=log_dir,
        script_directory=script_data_dir,
        ssh_silence=silence if silence >= SHORTEST_SILENCE else None,
        block_file_transfer=block_file_transfer,
        subsystems=tuple(name.strip() for name in subsystems.split(",") if name.strip()),
        version=BUILD_VERSION,
    )
    descriptors.raise_limit()
    style, place = ("json", log_json) if log_json else ("human", log_human)
    with Path(place).open("a", encoding="utf-8", buffering=1) as stream:
        level = "debug" if flags.verbose else "info"
        log.configure(style=style, level=level, stream=stream, colors=not flags.no_color)
        asyncio.run(_run(settings))


def _token(file: Path | None) -> Secret:
    import os

    from coder.ids import uuid_from_text

    text = os.environ.get("CODER_AGENT_TOKEN") or ""
    if not text and file is not None:
        text = file.read_text(encoding="utf-8")
    if not text.strip():
        raise CoderError(
            "this agent has no token", remedy="Set CODER_AGENT_TOKEN or CODER_AGENT_TOKEN_FILE, as 'coder create' says."
        )
    try:
        return Secret(str(uuid_from_text(text.strip())))
    except CoderError:
        raise CoderError(
            "the agent's token is not complete", remedy="It is a UUID; copy it again from 'coder create'."
        ) from None


async def _run(settings: "AgentSettings") -> None:
    import signal
    import uuid

    from coder.agent.agent import INSTANCE, Agent
    from coder.agent.calls import VERSION
    from coder.dataplane.engine import Engine
    from coder.peering import WebSocketDial

    dial = WebSocketDial(
        url=settings.url,
        path="/api/v2/workspaceagents/me/rpc",
        version=VERSION,
        token=settings.token,
        headers={**settings.headers, INSTANCE: str(uuid.uuid4())},
        outbound=settings.outbound,
    )
    async with Engine() as engine:
        agent = Agent(settings, engine, dial)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, agent.stop)
        await agent.run()
