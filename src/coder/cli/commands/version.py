"""`coder version`."""

import platform

import click

from coder import __version__
from coder.cli import output
from coder.cli.options import output_option


def text() -> str:
    """Return the line for people."""
    return f"Coder v{__version__} (Python {platform.python_version()}, {platform.system()} {platform.machine()})"


@click.command("version")
@output_option("text", "json")
def command(form: str) -> None:
    """Print the version."""
    if form == "json":
        output.out(output.json_text({"version": f"v{__version__}", "python": platform.python_version()}))
    else:
        output.out(text())
