"""The DERP map of this deployment: loaded at the start, handed out in both forms, kept as file or URL have it."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from coder.clock import Clock
from coder.config import DerpSettings
from coder.errors import CoderError
from coder.outbound import Outbound
from coder.server.changes import Changes
from coder.tailnet import derpmap
from coder.wire import derpmap as wire
from coder.wire import derpmap_json
from coder.wire.derpmap import DerpMap
from coder.wire.proto import tailnet_pb2 as pb

log = structlog.get_logger(__name__)

FETCH_TIMEOUT = 10.0
"""Seconds for the whole document at `--derp-config-url`."""
FETCH_EVERY = 300.0
"""Seconds between two looks there."""
LOOK_EVERY = 2.0
"""Seconds between two looks at whether the file has changed."""
MAX_DOCUMENT = 4 << 20
"""Bytes of a DERP map document."""


class MapError(CoderError):
    """There is no usable DERP map."""


class DerpMaps:
    """The current map, and its changes."""

    def __init__(self, derp_map: DerpMap) -> None:
        self._changes = Changes()
        self._current = derp_map

    @property
    def current(self) -> DerpMap:
        """The map now."""
        return self._current

    def replace(self, derp_map: DerpMap) -> bool:
        """Take another map; it goes out to everyone unless it means the same, which is told."""
        if derpmap.same(self._current, derp_map):
            return False
        self._current = derp_map
        self._changes.announce(self)
        return True

    def json(self) -> dict[str, Any]:
        """Return the map as JSON has it."""
        return derpmap_json.dump(self._current)

    def json_text(self) -> str:
        """Return the map as a JSON text."""
        return json.dumps(self.json(), separators=(",", ":"))

    def protobuf(self) -> pb.DERPMap:
        """Return the map as calls carry it."""
        return wire.to_proto(self._current)

    def region_names(self) -> dict[int, str]:
        """Return the regions' names by id."""
        return {region.id: region.name for region in self._current.regions.values()}

    async def each(self) -> AsyncIterator[pb.DERPMap]:
        """Yield the map now and after each change, for ever."""
        with self._changes.watch(self) as changed:
            while True:
                yield self.protobuf()
                await changed.wait()
                changed.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What the map is made of."""

    settings: DerpSettings
    access_url: str
    stun_ports: tuple[int, ...]
    """UDP ports of the embedded STUN server."""
    outbound: Outbound = field(default_factory=Outbound)
    kept: Path | None = None
    """Where the last usable document of the URL is kept, for a start while the URL does not answer."""

    async def build(self, *, starting: bool = False) -> DerpMap:
        """Build the map from file or URL and the settings; at the start from a kept document if need be.

        Raises MapError.
        """
        base, settings = await self._base(starting=starting), self.settings
        embedded = derpmap.EmbeddedRegion(
            access_url=self.access_url,
            id=settings.region_id,
            code=settings.region_code,
            name=settings.region_name,
            stun_ports=self.stun_ports,
        )
        try:
            return derpmap.build(
                embedded=embedded if settings.enable else None,
                stun_addresses=settings.stun_addresses,
                base=base,
                block_direct=settings.block_direct,
            )
        except CoderError as problem:
            raise MapError(f"Cannot build the DERP map: {problem}.", remedy=problem.remedy) from None

    async def changed(self, clock: Clock, stamp: object) -> object:
        """Return when the map may have to be built anew, for a file with its new stamp."""
        if self.settings.config_url:
            await clock.sleep(FETCH_EVERY)
            return None
        while True:
            await clock.sleep(LOOK_EVERY)
            if (now := self.stamp()) != stamp:
                return now

    def stamp(self) -> object:
        """Return what changes when the file does; None where there is none."""
        try:
            found = Path(self.settings.config_path).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    @property
    def is_fixed(self) -> bool:
        """Whether neither file nor URL is involved."""
        return not self.settings.config_path and not self.settings.config_url

    async def _base(self, *, starting: bool) -> DerpMap | None:
        path, url = self.settings.config_path, self.settings.config_url
        if url and path:
            raise MapError("Give --derp-config-url or --derp-config-path, not both.")
        if path:
            return _parse(await asyncio.to_thread(_read, path), path)
        if url:
            return await asyncio.to_thread(self._from_url, url, starting=starting)
        return None

    def _from_url(self, url: str, *, starting: bool) -> DerpMap:
        try:
            document = _fetch(self.outbound, url, link_local=self.settings.config_url_link_local)
            found = _parse(document, url)
        except MapError as problem:
            kept = self._recall(url) if starting else None
            if kept is None:
                raise
            log.warning("derp.map_kept", reason=str(problem))
            return kept
        self._keep(url, document)
        return found

    def _keep(self, url: str, document: bytes) -> None:
        """Keep a usable document, together with where it came from."""
        if self.kept is None:
            return
        fresh = self.kept.with_suffix(".new")
        try:
            fresh.write_bytes(url.encode() + b"\n" + document)
            fresh.replace(self.kept)
        except OSError as problem:
            log.warning("derp.map_not_kept", path=str(self.kept), reason=problem.strerror)

    def _recall(self, url: str) -> DerpMap | None:
        """Return the map of the document that was kept of this URL."""
        try:
            came_from, _, document = (self.kept.read_bytes() if self.kept else b"").partition(b"\n")
            return _parse(document, url) if came_from == url.encode() else None
        except (OSError, MapError):
            return None


async def load(recipe: Recipe) -> DerpMaps:
    """Build the map. Raises MapError."""
    if recipe.settings.relay_url:
        log.warning("derp.relay_url_unused", reason="there is no other replica")
    return DerpMaps(await recipe.build(starting=True))


async def follow(maps: DerpMaps, recipe: Recipe, clock: Clock) -> None:
    """Keep the map as file or URL have it, for ever. What cannot be used is told once, and the map stays as it was."""
    stamp, told = recipe.stamp(), ""
    while not recipe.is_fixed:
        stamp = await recipe.changed(clock, stamp)
        try:
            fresh = await recipe.build()
        except MapError as problem:
            if str(problem) != told:
                told = str(problem)
                log.warning("derp.map_kept", reason=told)
            continue
        told = ""
        if maps.replace(fresh):
            log.info("derp.map_changed", regions=sorted(fresh.regions))


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            document = file.read(MAX_DOCUMENT + 1)
    except OSError as problem:
        raise MapError(f"Cannot read the DERP map in {path}: {problem.strerror}.") from None
    return _bounded(document, path)


def _fetch(outbound: Outbound, url: str, *, link_local: bool) -> bytes:
    # Redirects are not followed: the document is asked for where the operator said, and nowhere else.
    if not url.startswith(("http://", "https://")):
        raise MapError(f"Cannot fetch the DERP map from {url}: it is no URL.", remedy="Start it with https://.")
    try:
        found = outbound.fetch(url, timeout=FETCH_TIMEOUT, limit=MAX_DOCUMENT, link_local=link_local)
        return _bounded(found, url)
    except MapError:
        raise
    except CoderError as problem:
        raise MapError(f"Cannot fetch the DERP map: {problem}.", remedy=problem.remedy) from None


def _bounded(document: bytes, place: str) -> bytes:
    if len(document) > MAX_DOCUMENT:
        raise MapError(f"The DERP map in {place} is larger than {MAX_DOCUMENT >> 20} MiB.")
    return document


def _parse(document: bytes, place: str) -> DerpMap:
    try:
        return derpmap_json.loads(document)
    except CoderError as problem:
        raise MapError(f"The DERP map in {place} cannot be used: {problem}.") from None
