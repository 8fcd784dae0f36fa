"""What was measured: printed at the end of the whole lab, and written to build/lab.json."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

BUILD = Path(__file__).resolve().parents[2] / "build"

FIRST_BYTE = 1.0
"""Seconds from the start of the client to its first byte that a user should have to wait at most."""
DIRECT = 3.0
"""Seconds from the first packet to a direct path."""
GUESS = 8.0
"""Seconds in which guessing ports has led to a direct path, or will not."""
HANG = 10
"""A test fails only at so many times a bound: the bounds are figures to look at, not what a busy machine decides."""


ALLOWED = {"direct": {"direct"}, "relay": {"relay"}, "guess": {"direct", "relay"}}
"""Verdict -> what may be seen."""


@dataclass(slots=True, kw_only=True)
class Cell:
    """A pair of kinds."""

    client: str
    agent: str
    expected: str
    seen: str = "nothing"
    first_byte: float | None = None
    """Seconds since the client was started …"""
    first_packet: float | None = None
    """… as are these: when it knew its peer, which is when it sends the first packet."""
    direct: float | None = None
    """Seconds from the first packet to the direct path."""
    stall: float | None = None
    """The longest wait for the next byte while the stream ran."""


@dataclass(slots=True, kw_only=True)
class Fault:
    """Something that went wrong on purpose."""

    name: str
    bound: float
    seconds: float | None = None
    note: str = ""


@dataclass(slots=True)
class Figures:
    cells: list[Cell] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def cell(self, client: str, agent: str, expected: str) -> Cell:
        self.cells.append(Cell(client=client, agent=agent, expected=expected))
        return self.cells[-1]

    def fault(self, name: str, bound: float) -> Fault:
        self.faults.append(Fault(name=name, bound=bound))
        return self.faults[-1]

    def guessed(self) -> dict[str, int]:
        """How often guessing led to a direct path."""
        guesses = [cell for cell in self.cells if cell.expected == "guess"]
        return {"pairs": len(guesses), "direct": sum(cell.seen == "direct" for cell in guesses)}

    def write(self) -> Path:
        BUILD.mkdir(exist_ok=True)
        path = BUILD / "lab.json"
        bounds = {"first_byte": FIRST_BYTE, "direct": DIRECT}
        path.write_text(json.dumps({"bounds": bounds, "guessed": self.guessed()} | asdict(self), indent=1) + "\n")
        return path

    def lines(self) -> list[str]:
        """Tables for people; `!` marks what is not as it should be."""
        shown = [
            f"{'client':>10} {'agent':<10} {'expected':8} {'seen':8} {'first byte':>10} {'direct':>7} {'stall':>6}"
        ]
        for cell in sorted(self.cells, key=lambda cell: (cell.client, cell.agent)):
            late = over(cell.first_byte, FIRST_BYTE) or (cell.expected == "direct" and over(cell.direct, DIRECT))
            shown.append(
                f"{cell.client:>10} {cell.agent:<10} {cell.expected:8} {cell.seen:8} {seconds(cell.first_byte):>10}"
                f" {seconds(cell.direct):>7} {seconds(cell.stall):>6}"
                f"{' !' if late or cell.seen not in ALLOWED[cell.expected] else ''}"
            )
        guessed = self.guessed()
        shown += ["", f"{guessed['direct']} of {guessed['pairs']} pairs became direct by guessing ports"]
        if self.faults:
            shown += ["", f"{'seconds':>8} {'bound':>6}  fault"]
        for fault in sorted(self.faults, key=lambda fault: fault.name):
            late = over(fault.seconds, fault.bound)
            note = f" ({fault.note})" if fault.note else ""
            shown.append(
                f"{seconds(fault.seconds):>8} {seconds(fault.bound):>6}  {fault.name}{note}{' !' if late else ''}"
            )
        return shown


def over(value: float | None, bound: float) -> bool:
    return value is None or value > bound


def seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
