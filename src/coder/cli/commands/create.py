"""`coder create`."""

import os
import re
from pathlib import Path
from typing import Any

import click

from coder.cli import builds, machine_forms, output, workspaces
from coder.cli.context import Globals
from coder.cli.machine_forms import Start
from coder.cli.options import Duration
from coder.cli.store import write_private
from coder.ids import Secret

_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


@click.command("create")
@click.argument("name")
@click.option("-t", "--template", help="What it is made of: 'coder templates list' names them. [default: machine]")
@click.option(
    "--parameter", "given", multiple=True, metavar="NAME=VALUE", help="Choose a value of the template; repeatable."
)
@click.option("--stop-after", type=Duration(), help="Stop it after so much idle time, such as 8h; 0: never.")
@click.option("--start-at", metavar="SCHEDULE", help="Start it by itself, such as '30 9 * * 1-5'.")
@click.option(
    "-o", "--output", "form", type=click.Choice(machine_forms.FORMS), default="text", show_default=True,
    help="Of a machine that you bring: how its agent is started there.",
)  # fmt: skip
@click.option(
    "--run-as", default="coder", show_default=True, metavar="USER",
    help="With systemd and cloud-init: the user of the machine that sessions run as.",
)  # fmt: skip
@click.option(
    "--output-token-file", "token_file", type=click.Path(dir_okay=False, path_type=Path),
    help="Write the agent's token to this file (mode 0600) instead of printing it.",
)  # fmt: skip
@click.pass_obj
def command(
    flags: Globals, *, name: str, template: str | None, given: tuple[str, ...], stop_after: float | None,
    start_at: str | None, form: str, run_as: str, token_file: Path | None,
) -> None:  # fmt: skip
    """Create a workspace: of a template, or on a machine that you bring.

    For such a machine it prints the one line to run there, or a systemd unit, or a cloud-init document. What it prints
    may hold the agent's token, which is shown only this once: whoever has it can act as the machine. All other
    workspaces start at once; their build's log is shown until they have.
    """
    if token_file is not None:
        _check(token_file)
    if not _USER.fullmatch(run_as):
        raise click.BadParameter(f"{run_as!r} is no user's name", param_hint="--run-as")
    wanted: dict[str, Any] = {"rich_parameter_values": builds.parameters(given)} if given else {}
    if stop_after is not None:
        wanted["ttl_ms"] = round(stop_after * 1000)
    if start_at:
        wanted["autostart_schedule"] = start_at
    with flags.api() as api:
        if template:
            wanted["template_id"] = api.template(template)["id"]
        workspace, tokens = api.create_workspace(name, **wanted)
        if not tokens:
            builds.follow(api, name, workspace["latest_build"])
            _tell_started(api.workspace(workspaces.ME, name), form)
            return
        url = api.url
    _tell_machine(flags, workspace, _starts(workspace, url, tokens, token_file), form, run_as)


def _tell_started(workspace: Any, form: str) -> None:
    if form == "json":
        output.out(output.json_text(workspace))
    else:
        output.out(
            f"The workspace {workspace['name']!r} has been created. Open a shell in it: coder ssh {workspace['name']}"
        )


def _starts(workspace: Any, url: str, tokens: dict[str, Secret], token_file: Path | None) -> list[Start]:
    """Return how each agent is started; one token goes to the file, several to files named after their agents."""
    starts = []
    for agent, token in tokens.items():
        file = token_file and (token_file if len(tokens) == 1 else token_file.with_name(f"{token_file.name}-{agent}"))
        if file:
            write_private(file, token.reveal() + "\n")
        starts.append(Start(workspace["name"], agent, url, token, str(file.absolute()) if file else None))
    return starts


def _tell_machine(flags: Globals, workspace: Any, starts: list[Start], form: str, run_as: str) -> None:
    created = f"The workspace {workspace['name']!r} has been created."
    match form:
        case "json":
            output.out(output.json_text(_described(workspace, starts)))
        case "cloud-init":
            output.note(f"{created} Start a machine with this document; it holds the agent's token.")
            output.out(machine_forms.cloud_init(starts, run_as).rstrip("\n"))
        case "systemd":
            for start in starts:
                output.note(
                    f"{created if start is starts[0] else ''} Save this as /etc/systemd/system/{start.name}.service"
                )
                if start.file is None:
                    output.note(f"and this token as {start.token_file} (mode 0600): {start.token.reveal()}")
                output.out(machine_forms.unit(start, run_as).rstrip("\n"))
        case _:
            output.note(f"{created} Run this on its machine:\n")
            for start in starts:
                line = machine_forms.line(start)
                output.out(f"  {line}" if flags.watched else line)


def _described(workspace: Any, starts: list[Start]) -> dict[str, Any]:
    agents = {agent["name"]: agent["id"] for agent in workspaces.agents(workspace)}
    result: dict[str, Any] = {key: workspace[key] for key in ("id", "name", "owner_name")}
    described = []
    for start in starts:
        one = {"agent_id": agents.get(start.agent), "agent_name": start.agent, "command": machine_forms.line(start)}
        described.append(one | ({} if start.file else {"agent_token": start.token.reveal()}))
    return result | {"agent_url": starts[0].url} | described[0] | ({"agents": described} if len(described) > 1 else {})


def _check(token_file: Path) -> None:
    """Refuse a file that could not be written, before there is a token that would be lost."""
    place = token_file.absolute()
    if os.path.lexists(place):
        problem = f"{token_file} exists already and may hold another workspace's token; name another file, or remove it"
    elif not place.parent.is_dir():
        problem = f"there is no directory {place.parent}"
    elif not os.access(place.parent, os.W_OK | os.X_OK):
        problem = f"{place.parent} cannot be written to"
    else:
        return
    raise click.BadParameter(problem, param_hint="--output-token-file")
