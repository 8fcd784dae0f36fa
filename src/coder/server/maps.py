"""The DERP map of this deployment: loaded at the start, handed out in both forms, announced when it changes."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import structlog
import truststore

from coder.config import DerpSettings
from coder.errors import CoderError
from coder.server.changes import Changes
from coder.tailnet import derpmap
from coder.wire import derpmap as wire
from coder.wire import derpmap_json
from coder.wire.derpmap import DerpMap
from coder.wire.proto import tailnet_pb2 as pb

log = structlog.get_logger(__name__)

FETCH_TIMEOUT = 10.0
"""Seconds for the whole document at `--derp-config-url`."""
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

    def replace(self, derp_map: DerpMap) -> None:
        """Take another map; it goes out to everyone unless it means the same."""
        if not derpmap.same(self._current, derp_map):
            self._current = derp_map
            self._changes.announce(self)

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


async def load(settings: DerpSettings, access_url: str, stun_ports: tuple[int, ...]) -> DerpMaps:
    """Build the map from the settings. `stun_ports` are the embedded server's. Raises MapError."""
    base = await _base(settings)
    embedded = derpmap.EmbeddedRegion(
        access_url=access_url,
        id=settings.region_id,
        code=settings.region_code,
        name=settings.region_name,
        stun_ports=stun_ports,
    )
    try:
        built = derpmap.build(
            embedded=embedded if settings.enable else None,
            stun_addresses=settings.stun_addresses,
            base=base,
            block_direct=settings.block_direct,
        )
    except CoderError as problem:
        raise MapError(f"Cannot build the DERP map: {problem}.", remedy=problem.remedy) from None
    if settings.relay_url:
        log.warning("derp.relay_url_unused", reason="there is no other replica")
    return DerpMaps(built)


async def _base(settings: DerpSettings) -> DerpMap | None:
    if settings.config_url and settings.config_path:
        raise MapError("Give --derp-config-url or --derp-config-path, not both.")
    if settings.config_path:
        return _parse(await asyncio.to_thread(_read, settings.config_path), settings.config_path)
    if settings.config_url:
        return _parse(await _fetch(settings.config_url), settings.config_url)
    return None


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            document = file.read(MAX_DOCUMENT + 1)
    except OSError as problem:
        raise MapError(f"Cannot read the DERP map in {path}: {problem.strerror}.") from None
    return _bounded(document, path)


async def _fetch(url: str) -> bytes:
    # Redirects are not followed: the document is asked for where the operator said, and nowhere else.
    try:
        async with asyncio.timeout(FETCH_TIMEOUT), _client() as client, client.stream("GET", url) as response:
            if response.status_code != 200:
                raise MapError(f"Cannot fetch the DERP map from {url}: it answered {response.status_code}.")
            document = b""
            async for chunk in response.aiter_bytes():
                document = _bounded(document + chunk, url)
            return document
    except TimeoutError:
        raise MapError(f"Cannot fetch the DERP map from {url}: no answer in {FETCH_TIMEOUT:g} seconds.") from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as problem:
        raise MapError(f"Cannot fetch the DERP map from {url}: {str(problem) or type(problem).__name__}.") from None


def _client() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        verify=truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT), timeout=FETCH_TIMEOUT, follow_redirects=False
    )


def _bounded(document: bytes, place: str) -> bytes:
    if len(document) > MAX_DOCUMENT:
        raise MapError(f"The DERP map in {place} is larger than {MAX_DOCUMENT >> 20} MiB.")
    return document


def _parse(document: bytes, place: str) -> DerpMap:
    try:
        return derpmap_json.loads(document)
    except CoderError as problem:
        raise MapError(f"The DERP map in {place} cannot be used: {problem}.") from None
