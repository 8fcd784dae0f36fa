"""`coder derpmap`: looks at maps of relays before anyone depends on them."""

import sys
from pathlib import Path
from typing import Any

import click

from coder.cli import output
from coder.cli.context import Globals
from coder.cli.listing import fitted
from coder.cli.options import Group, output_option
from coder.errors import CoderError, Malformed

MAX_DOCUMENT = 4 << 20
"""Bytes of a document."""
FETCH_TIMEOUT = 10.0
"""Seconds for each step of fetching one."""


@click.group("derpmap", cls=Group)
def command() -> None:
    """Check and show DERP maps, which tell clients where the relays are."""


@command.command("validate")
@click.argument("source", metavar="FILE|URL")
@output_option("text", "json")
@click.pass_obj
def validate(flags: Globals, *, source: str, form: str) -> None:
    """Name every fault of a DERP map with its line, column and path; `-` reads standard input.

    Comments are allowed, and commas behind the last value. Ends with status 1 if the map has faults, with 0 if it has
    only warnings.
    """
    from coder.wire.derpmap_check import check

    faults = check(_read(flags, source))
    errors = sum(not fault.warning for fault in faults)
    if form == "json":
        output.out(output.json_text([_as_json(fault) for fault in faults]))
    else:
        for fault in faults:
            output.out(f"{source}:{fault}")
    if errors:
        faulty = f"{errors} fault{'s' if errors > 1 else ''}"
        raise CoderError(f"{source} has {faulty}", remedy="Correct what is named above.")
    if form != "json":
        output.note(f"{source}: right" + (f", {len(faults)} warnings" if faults else ""))


@command.command("show")
@click.argument("source", metavar="[FILE|URL]", required=False)
@output_option("table", "json")
@click.pass_obj
def show(flags: Globals, *, source: str | None, form: str) -> None:
    """Show the regions and nodes of a DERP map: of a file, of a URL, or the one the server hands out."""
    from coder.wire import derpmap_json

    if source is None:
        with flags.api() as api:
            document: Any = api.any_connection_info().get("derp_map")
        derp_map = derpmap_json.load(document)
    else:
        derp_map = _load(source, _read(flags, source))
    if form == "json":
        output.out(output.json_text(derpmap_json.dump(derp_map)))
        return
    rows = [_row(region, node) for region in derp_map.regions.values() for node in region.nodes]
    columns = ["region", "code", "name", "node", "host", "relay", "stun", "notes"]
    output.out(fitted(columns, rows, ("name", "code"), cut="notes"))


def _load(source: str, text: str) -> Any:
    """Read a map. Raises Malformed that names file, line and column."""
    from coder.wire import derpmap_check, derpmap_json

    try:
        return derpmap_json.loads(text)
    except Malformed as error:
        faults = (str(fault) for fault in derpmap_check.check(text) if not fault.warning)
        raise Malformed(next(faults, str(error)), where=source) from None


def _row(region: Any, node: Any) -> list[str]:
    from coder.wire.derpmap import DEFAULT_DERP_PORT, DEFAULT_STUN_PORT

    relay = "-" if node.stun_only else str(node.derp_port or DEFAULT_DERP_PORT)
    stun = "-" if node.stun_port < 0 else str(node.stun_port or DEFAULT_STUN_PORT)
    notes = {
        "the server itself": region.embedded,
        "avoided": region.avoid,
        "no TLS": node.force_http,
        "certificate not checked": node.insecure,
        "certificate pinned": node.cert_name.startswith("sha256-raw:"),
        "no IPv4": bool(node.ipv4) and ":" not in node.ipv4 and "." not in node.ipv4,
        "no IPv6": bool(node.ipv6) and ":" not in node.ipv6,
    }
    said = ", ".join(note for note, holds in notes.items() if holds)
    return [str(region.id), region.code, region.name, node.name, node.host, relay, stun, said]


def _as_json(fault: Any) -> dict[str, Any]:
    return {
        "path": fault.path,
        "line": fault.line,
        "column": fault.column,
        "message": fault.message,
        "severity": "warning" if fault.warning else "error",
    }


def _read(flags: Globals, source: str) -> str:
    if source.startswith(("http://", "https://")):
        document = flags.outbound.fetch(source, timeout=FETCH_TIMEOUT, limit=MAX_DOCUMENT)
    elif source == "-":
        document = sys.stdin.buffer.read(MAX_DOCUMENT + 1)
    else:
        with Path(source).open("rb") as file:
            document = file.read(MAX_DOCUMENT + 1)
    if len(document) > MAX_DOCUMENT:
        raise Malformed(f"{source} is larger than {MAX_DOCUMENT >> 20} MiB, so it is no DERP map")
    try:
        return document.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Malformed(f"{source} is no text: byte {error.start} is not UTF-8") from None
