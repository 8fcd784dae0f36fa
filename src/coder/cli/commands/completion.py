"""`coder completion`."""

import click

from coder.cli import output


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish", "powershell"]))
def command(shell: str) -> None:
    """Print the completion script of a shell: commands, options, and the names of your workspaces.

    \b
    bash        eval "$(coder completion bash)"           in ~/.bashrc
    zsh         eval "$(coder completion zsh)"            in ~/.zshrc, behind compinit
    fish        coder completion fish | source            in ~/.config/fish/config.fish
    powershell  coder completion powershell | Out-String | Invoke-Expression    in $PROFILE
    """  # noqa: D301 - click reads the sign itself
    from click.shell_completion import get_completion_class

    from coder.cli.main import group

    complete = get_completion_class(shell)
    if complete is None:
        raise click.BadParameter(f"no completion for {shell}")
    output.out(complete(group, {}, "coder", "_CODER_COMPLETE").source())
