"""`coder doctor`."""

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import click

from coder.cli import output
from coder.cli.context import Globals
from coder.cli.options import Duration, format_latency, output_option, workspace_argument

if TYPE_CHECKING:
    from coder.cli.checkup import Checkup
    from coder.cli.stages import Stage

EXIT_RELAYED = 3
"""Connected, but not directly. 1 is no connection, 2 a usage error as everywhere."""

SIGNS = {"ok": ("✔", "green"), "warn": ("!", "yellow"), "fail": ("✘", "red"), "skipped": ("-", None)}

INDENT = 15


@click.command("doctor")
@workspace_argument(required=False)
@click.option(
    "-t",
    "--timeout",
    type=Duration(positive=True),
    default="10s",
    show_default=True,
    help="How long each stage may take at most.",
)
@output_option("text", "json")
@click.pass_obj
def command(flags: Globals, *, workspace: str | None, timeout: float, form: str) -> int:
    """Examine the way to a workspace, stage by stage, and say what would make it direct.

    Without a workspace: the way to the server and its relays, and what this machine's network allows.

    Exits with 0 when the connection is direct (without a workspace: when server and relay can be reached), 3 when it is
    relayed, 1 when there is none.
    """
    from coder.cli import checkup

    tell = functools.partial(_tell, colour=not flags.no_color) if form == "text" else _silent
    found = asyncio.run(checkup.examine(flags, workspace, patience=timeout, tell=tell))
    if form == "json":
        output.out(output.json_text(_json(found)))
    else:
        _conclude(found)
    return {"direct": 0, "ok": 0, "relayed": EXIT_RELAYED}.get(found.status, 1)


def _silent(_stage: "Stage") -> None: ...


def _tell(stage: "Stage", *, colour: bool) -> None:
    sign, hue = SIGNS[stage.status]
    took = f" ({format_latency(stage.seconds)})" if stage.seconds is not None else ""
    text = output.hang(" " * (INDENT + 2), (stage.text or "not tried") + took).lstrip()
    output.out(f" {stage.name.ljust(INDENT)}{text}", before=click.style(sign, fg=hue) if colour else sign)
    if stage.remedy:
        output.out(output.hang(" " * (INDENT + 2), stage.remedy))


def _conclude(found: "Checkup") -> None:
    from coder.cli import diagnose

    if found.findings is None:
        return
    output.out()
    for name, text in diagnose.lines(found.findings):
        output.out(output.hang(f"  {name.ljust(INDENT)}", text))
    verdict = found.findings.verdict
    output.out()
    words = {"direct": "Direct", "relayed": "Relayed"}.get(found.status, "Not connected")
    output.out(output.hang(f"{words}: ", f"{verdict.text}."))
    if verdict.remedy:
        output.out(output.hang("What to change: ", verdict.remedy))


def _json(found: "Checkup") -> dict[str, Any]:
    from coder.cli import diagnose

    return {
        "schema": 1,
        "workspace": found.workspace,
        "status": found.status,
        "stages": [stage.json() for stage in found.stages],
        "path": found.path,
        "diagnosis": None if found.findings is None else diagnose.findings_json(found.findings),
    }
