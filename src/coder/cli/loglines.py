"""Lines of builds and agents as one stream, by time; and what a terminal gets of them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from coder.cli import output

_STYLES = re.compile(r"\x1b\[[0-9;:]*[mK]")
"""Colours and their like: left out, for what is left reads well without them."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line that a build or an agent printed."""

    created_at: str
    source: str
    level: str
    text: str

    def json(self) -> dict[str, str]:
        """Return what scripts are told."""
        return {"created_at": self.created_at, "source": self.source, "level": self.level, "output": self.text}

    def shown(self) -> str:
        """Return what people are told. Other people's signs do nothing to a terminal."""
        when = self.created_at[:19].replace("T", " ")
        level = f" {self.level}:" if self.level in {"warn", "error"} else ""
        return f"{output.printable(when)}  {output.printable(self.source)} |{level} {plain(self.text)}".rstrip()


def plain(text: str) -> str:
    """Return one line of somebody's output without what a terminal may act on."""
    return output.printable(_STYLES.sub("", text).replace("\t", "    ").rstrip("\r"))


def of_build(rows: Iterable[Mapping[str, Any]]) -> list[Line]:
    """Read lines of a build."""
    return [
        Line(row["created_at"], str(row.get("stage") or "build"), str(row.get("log_level") or "info"), row["output"])
        for row in rows
    ]


def of_agent(agent: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> list[Line]:
    """Read lines of an agent, each with the name of its source."""
    sources = {one.get("id"): one.get("display_name") for one in agent.get("log_sources") or []}
    return [
        Line(
            row["created_at"],
            f"{agent['name']}/{sources.get(row.get('source_id')) or 'agent'}",
            str(row.get("level") or "info"),
            row["output"],
        )
        for row in rows
    ]


def merged(*several: list[Line]) -> list[Line]:
    """Join lines by time; those of one time stay in their order."""
    return sorted((line for lines in several for line in lines), key=lambda line: _moment(line.created_at))


def _moment(text: str) -> tuple[str, str]:
    """Return what orders times of RFC 3339 in UTC, whose fractions differ in length."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return whole, fraction.ljust(9, "0")
