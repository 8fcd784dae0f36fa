"""`coder completion`."""

import click

from coder.cli import output


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of a shell.

    For bash: add `eval "$(coder completion bash)"` to ~/.bashrc.
    """
    from click.shell_completion import get_completion_class

    from coder.cli.main import group

    complete = get_completion_class(shell)
    if complete is None:
        raise click.BadParameter(f"no completion for {shell}")
    output.out(complete(group, {}, "coder", "_CODER_COMPLETE").source())
