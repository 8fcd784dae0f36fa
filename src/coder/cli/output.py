"""What commands print: tables and JSON on stdout, everything meant for a person's eyes on stderr."""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

_LINES = re.compile(r"[^\n\t]+")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out rows under upper-case headers: two spaces between columns, no borders, no trailing blanks."""
    lines = [[column.upper() for column in columns], *[[printable(cell) for cell in row] for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in padded)


def printable(text: str) -> str:
    """Return the text with a ? for each sign that a terminal may act on; names come from other people.

    Such are control characters, line breaks among them, and those that turn the direction of writing. Outside text
    that stands in a line of ours passes through here: `out` and `note` let line breaks and tabs be.
    """
    return text if text.isprintable() else "".join(sign if sign.isprintable() else "?" for sign in text)


def _harmless(text: str) -> str:
    return text if text.isprintable() else _LINES.sub(lambda found: printable(found[0]), text)


def json_text(value: Any) -> str:
    """JSON as every command prints it: indented by two spaces, other scripts' letters as they are.

    What a terminal may act on is escaped, also where JSON need not; it can only be inside of texts.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return text if text.isprintable() else _LINES.sub(lambda found: "".join(map(_escaped, found[0])), text)


def _escaped(sign: str) -> str:
    return sign if sign.isprintable() else json.dumps(sign)[1:-1]


def out(text: str = "", *, before: str = "") -> None:
    """Print a line of the command's result. `before` is our own, and may be coloured."""
    click.echo(before + _harmless(text))


def note(text: str = "", *, before: str = "", after: str = "") -> None:
    """Print a line for the person watching; scripts that read stdout never see it.

    `before` and `after` are our own, and may move a terminal's cursor.
    """
    click.echo(before + _harmless(text) + after, err=True)


def ask_secret(question: str, *, confirm: bool = False) -> str:
    """Ask for what must not be seen. Without a terminal a line of standard input is the answer, and that is fine."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it could be seen
        answer: str = click.prompt(question, hide_input=True, confirmation_prompt=confirm, err=True)
        return answer


def hang(first: str, text: str, *, to_stderr: bool = False) -> str:
    """Put a text behind its first words, wrapped at the terminal's edge to hang below itself; unwrapped in a pipe."""
    text = printable(text)
    stream = sys.stderr if to_stderr else sys.stdout
    if not stream.isatty():
        return f"{first}{text}".rstrip()
    import shutil
    import textwrap

    width = max(40, shutil.get_terminal_size().columns)
    return textwrap.fill(text, width, initial_indent=first, subsequent_indent=" " * len(first)) or first.rstrip()


def pick(columns: Sequence[str], chosen: str | None, default: Sequence[str]) -> list[str]:
    """Resolve `-c name,name` against the columns a table has, whatever the letter case.

    Raises click.BadParameter naming the columns there are.
    """
    if chosen is None:
        return list(default)
    by_name = {column.lower(): column for column in columns}
    names = [name.strip().lower() for name in chosen.split(",") if name.strip()]
    unknown = [name for name in names if name not in by_name]
    if unknown or not names:
        wrong = f"no column {', '.join(map(repr, unknown))}" if unknown else "no column named"
        raise click.BadParameter(f"{wrong}; choose from {', '.join(columns)}", param_hint="--column")
    return [by_name[name] for name in names]
