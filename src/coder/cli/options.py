"""Option types and decorators that several commands share."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1,
    "m": 60,
    "h": 3600,
    "d": 86400,
    "w": 604800,
}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h|d|w)")


def parse_duration(text: str) -> float:
    """Read `5s`, `1m30s`, `250ms`, `8d` or a bare number of seconds. Raises ValueError on anything else."""
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration such as 5s or 1m30s")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """Write a duration of whole seconds as people do: `5s`, `1m30s`; fractions as `2.5s`."""
    if seconds < 60:
        return f"{seconds:g}s"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    parts = ((hours, "h"), (minutes, "m"), (rest, "s"))
    return "".join(f"{value:g}{unit}" for value, unit in parts if value)


def format_latency(seconds: float) -> str:
    """Write a round trip with useful digits at every scale: `0.26ms`, `3.4ms`, `29ms`, `1.20s`."""
    ms = seconds * 1e3
    if ms < 1:
        return f"{ms:.2f}ms"
    if ms < 10:
        return f"{ms:.1f}ms"
    return f"{ms:.0f}ms" if ms < 1000 else f"{seconds:.2f}s"


class Duration(click.ParamType[float]):
    """A click parameter in Go's duration syntax; the value is seconds. A `positive` one is more than none."""

    name = "duration"

    def __init__(self, *, positive: bool = False) -> None:
        self._positive = positive

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Turn the text into seconds."""
        if isinstance(value, (int, float)):
            return float(value)
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if self._positive and seconds <= 0:
            self.fail(f"{value!r} is no time at all; give it a second or more", param, ctx)
        return seconds


class Moment(click.ParamType[str]):
    """A day or time, or how long ago: `2030-01-31`, `2030-01-31T08:00`, `2h`; the value is RFC 3339, in UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Turn the text into a time; days and times without a zone are this machine's."""
        try:
            ago = timedelta(seconds=parse_duration(value))
            moment = datetime.now(UTC) - ago
        except (ValueError, OverflowError):
            try:
                moment = datetime.fromisoformat(value).astimezone(UTC)
            except (ValueError, OverflowError):
                self.fail(f"{value!r} is neither a day such as 2030-01-31, nor a duration such as 2h", param, ctx)
        return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


_TRUE = frozenset({"1", "t", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "false", "FALSE", "False"})


class AssignedFlags(click.Command):
    """A command whose flags may be written `--flag=true` and `--flag=false`, as other programs call it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Make plain flags of such words, as far as options may stand."""
        options = {name: one for one in self.get_params(ctx) if isinstance(one, click.Option) for name in one.opts}
        made, rest = [], list(args)
        while rest and rest[0] != "--":
            if not rest[0].startswith("-") or rest[0] == "-":
                if not ctx.allow_interspersed_args:
                    break
                made.append(rest.pop(0))
                continue
            word = rest.pop(0)
            name, equals, value = word.partition("=")
            option = options.get(name)
            if option is not None and option.is_flag and equals and value in _TRUE | _FALSE:
                made += [name] if value in _TRUE else []
                continue
            made.append(word)
            if option is not None and not option.is_flag and not equals and rest:
                made.append(rest.pop(0))
        return super().parse_args(ctx, made + rest)


class Group(click.Group):
    """Commands below a command, some under several names; the help page has each one's first sentence whole."""

    def __init__(self, *arguments: Any, aliases: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._aliases = aliases or {}

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name; None when there is none."""
        return super().get_command(ctx, self._aliases.get(cmd_name, cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.get_short_help_str(_WHOLE)) for name, one in sorted(self.commands.items())])


_WHOLE = 1000
"""More signs than a first sentence has."""


def workspace_argument(**more: Any) -> Callable[[F], F]:
    """Add the workspace that a command is about, which a shell can complete."""
    return click.argument("workspace", shell_complete=_workspaces, **more)


def _workspaces(context: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from coder.cli import complete

    return complete.workspaces(context, param, incomplete)


def output_option(*forms: str) -> Callable[[F], F]:
    """Add `-o, --output`; the first form is the default."""
    return click.option(
        "-o", "--output", "form", type=click.Choice(forms), default=forms[0], show_default=True, help="Output format."
    )


def column_option(columns: str) -> Callable[[F], F]:
    """Add `-c, --column`, a comma-separated choice of the table's columns."""
    return click.option("-c", "--column", "chosen", metavar="NAMES", help=f"Columns to show, from: {columns}.")
