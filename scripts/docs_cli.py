"""Writes docs/reference/cli.md from the commands themselves; `--check` only says whether it is up to date."""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from coder.cli.main import COMMANDS, group

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"

HEAD = """# The command `coder`

Flags of all commands may stand before or behind the command. A flag wins over its variable, that over what
`coder login` has kept. `-o json` prints what the API says, for scripts; tables leave out columns where a terminal is
too narrow, and `-c` chooses them. Results go to standard output, all else to standard error. Colours and counters that
move are for terminals only; `NO_COLOR` and `--no-color` turn colours off.

| exit code | means |
| --- | --- |
| 0 | it is done |
| 1 | it failed; one line on standard error says why and what to do |
| 2 | the command was not understood |
| 130, 143 | Ctrl-C, SIGTERM |
| 141 | nobody reads the output any more |
| 255 | of `coder ssh`: the connection failed; its other codes are the remote command's |

`coder doctor`, `coder ping`, `coder netcheck` and `coder derpmap check` have their own, [listed here](doctor.md).

This page is made by `scripts/docs_cli.py`.
"""

_NOTED = re.compile(r"\s*\[(env|default): [^]]*\]")


def commands() -> Iterator[tuple[list[str], click.Command]]:
    """List every command with its names, groups before their members."""
    context = click.Context(group, info_name="coder")
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        yield [name], command
        if isinstance(command, click.Group):
            yield from (([name, part], each) for part, each in command.commands.items())


def options(command: click.Command) -> list[click.Option]:
    """List the options people are to know."""
    return [each for each in command.params if isinstance(each, click.Option) and not each.hidden]


def _row(option: click.Option) -> str:
    names = [f"`{name}`" for name in (*option.opts, *option.secondary_opts)]
    value = "" if option.is_flag or option.count else f" {_cell(option.make_metavar(click.Context(group)))}"
    variables = [option.envvar] if isinstance(option.envvar, str) else option.envvar or []
    if option.name == "no_color":
        variables = ["NO_COLOR"]
    told = option.help or ""
    default = re.search(r"\[default: ([^]]*)\]", told)
    text = _NOTED.sub("", told).strip()
    shown = default[1] if default else _default(option)
    cells = [", ".join(names) + value, ", ".join(f"`{name}`" for name in variables), _cell(text), _cell(shown)]
    return f"| {' | '.join(cells)} |"


def _paragraph(text: str) -> str:
    """Write a paragraph of a help text; click leaves the lines of those with a mark as they are."""
    lines = text.removeprefix("\b\n") if text.startswith("\b\n") else None
    return text.replace("<", "&lt;") if lines is None else "\n".join(f"    {line}" for line in lines.splitlines())


def _default(option: click.Option) -> str:
    value = option.default
    known = isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""
    return f"`{value}`" if known and not option.is_flag else ""


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def _table(command: click.Command) -> str:
    rows = "\n".join(map(_row, options(command)))
    return f"\n| option | variable | what it does | default |\n| --- | --- | --- | --- |\n{rows}\n" if rows else ""


def _entry(names: list[str], command: click.Command) -> str:
    context = click.Context(command, info_name=" ".join(["coder", *names]))
    text = "\n\n".join(map(_paragraph, inspect.cleandoc(command.help or "").split("\n\n")))
    usage = " ".join(["coder", *names, *(word for word in command.collect_usage_pieces(context))])
    title = f"\n##{'#' * (len(names) - 1)} `coder {' '.join(names)}`\n\n{text}\n\n    {usage}\n"
    if names == ["server"]:
        return f"{title}\nIts options are [the settings of the server](configuration.md).\n"
    return title + ("" if isinstance(command, click.Group) else _table(command))


def page() -> str:
    """Write the whole page."""
    entries = "".join(_entry(names, command) for names, command in commands())
    return f"{HEAD}\n## Flags of all commands\n{_table(group)}{entries}"


def main() -> int:
    if "--check" in sys.argv:
        fresh = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page()
        print(f"{PAGE} is {'up to date' if fresh else 'stale: run scripts/docs_cli.py'}")
        return not fresh
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
