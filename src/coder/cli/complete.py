"""What a shell may offer in place of an unfinished word. Never an error: nothing is a fine answer too."""

import click

PATIENCE = 2.0
"""Seconds for each step of asking the server; somebody waits at the prompt."""


def workspaces(context: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Name one's workspaces, and their agents where one has to be chosen."""
    del param
    from coder.cli import workspaces
    from coder.cli.context import Globals
    from coder.cli.output import printable

    told = context.find_root().params | {"no_version_warning": True}
    try:
        with Globals.from_flags(sources={"url": "flag", "token": "flag"}, **told).api(PATIENCE) as api:
            found = api.workspaces("owner:me")
    except Exception:  # noqa: BLE001 - a message would land in the line that is being typed
        return []
    names = []
    for one in found:
        agents = workspaces.agents(one)
        names += [one["name"], *(f"{one['name']}.{agent['name']}" for agent in agents if len(agents) > 1)]
    return [name for name in map(printable, names) if name.startswith(incomplete)]
