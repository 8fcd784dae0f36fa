"""What commands that list things share: columns made by functions, and left out where a terminal is narrow."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coder.cli import output


@dataclass(frozen=True, slots=True)
class Listing:
    """The columns of a table: what stands in them for an entry of the API."""

    cells: Mapping[str, Callable[[Any], str]]
    default: Sequence[str]
    least: Sequence[str] = ()
    """What is left out first where a terminal is too narrow."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns there are."""
        return tuple(self.cells)

    def pick(self, chosen: str | None, default: Sequence[str] = ()) -> list[str]:
        """Resolve `-c name,name`. Raises click.BadParameter naming the columns there are."""
        return output.pick(self.columns, chosen, default or self.default)

    def print(self, found: Sequence[Any], columns: Sequence[str], form: str, nothing: str) -> None:
        """Print entries as JSON or as a table; `nothing` tells a person that there are none."""
        if form == "json":
            output.out(output.json_text(list(found)))
        elif not found:
            output.note(nothing)
        else:
            output.out(self.table(found, columns))

    def table(self, found: Sequence[Any], columns: Sequence[str]) -> str:
        """Lay out entries; columns that were not asked for go until they fit the terminal."""
        rows = [[self.cells[column](one) for column in columns] for one in found]
        return fitted(columns, rows, self.least if list(columns) == list(self.default) else ())


def fitted(columns: Sequence[str], rows: Iterable[Sequence[str]], least: Sequence[str] = (), cut: str = "") -> str:
    """Lay out a table; on a terminal columns go, in the order of `least`, until it fits. In a pipe all stay.

    What is then still too wide is shortened in the last column, if that is `cut`.
    """
    kept, lines = list(columns), [list(row) for row in rows]
    text, width = output.table(kept, lines), _width()
    for name in least:
        if width is None or _widest(text) <= width:
            return text
        if name in kept:
            at = kept.index(name)
            lines = [[*row[:at], *row[at + 1 :]] for row in lines]
            kept.pop(at)
            text = output.table(kept, lines)
    if cut and kept[-1] == cut and width is not None:
        return "\n".join(line if len(line) <= width else line[: width - 1] + "…" for line in text.splitlines())
    return text


def _widest(text: str) -> int:
    return max(map(len, text.splitlines()))


def _width() -> int | None:
    if not sys.stdout.isatty():
        return None
    import shutil

    return shutil.get_terminal_size().columns
