"""What commands that list things share: columns made by functions, and left out where a terminal is narrow."""

import sys
from collections.abc import Callable, Mapping, Sequence
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
        """Lay out entries; columns that were not asked for go until they fit the terminal. In a pipe all stay."""
        width = _width()
        kept = list(columns)
        for name in ("", *(self.least if list(columns) == list(self.default) else ())):
            kept = [column for column in kept if column != name]
            text = output.table(kept, [[self.cells[column](one) for column in kept] for one in found])
            if width is None or max(map(len, text.splitlines())) <= width:
                break
        return text


def _width() -> int | None:
    if not sys.stdout.isatty():
        return None
    import shutil

    return shutil.get_terminal_size().columns
