"""Which region is home, as people ask for it and as they are told.

A node goes by latency times a factor of the map. A wish is a factor so small that the region wins whenever it answers;
where it does not, the nearest other one is home.
"""

from collections.abc import Mapping
from typing import Final

from coder.wire.derpmap import DerpMap, Region

PIN: Final = 1e-6
"""The factor that is a wish. Nodes then move at once, without the margin they otherwise ask for."""


_LONGEST: Final = 10  # digits of a region's number: peers may write anything, and far longer ones are no numbers to us


def relays(derp_map: DerpMap) -> list[Region]:
    """Return the regions that can be home."""
    return [one for one in derp_map.regions.values() if not all(node.stun_only for node in one.nodes)]


def find(derp_map: DerpMap, wanted: str) -> Region | None:
    """Return the region with a relay that goes by that id, code or name."""
    words = wanted.strip().lower()
    keys = (lambda one: str(one.id), lambda one: one.code.lower(), lambda one: one.name.lower())
    return next((one for key in keys for one in relays(derp_map) if key(one) == words), None)


def pinned(derp_map: DerpMap, wanted: str | None) -> DerpMap:
    """Return the map with the wish in it; the same map where nothing is wished or no region goes by that name."""
    region = find(derp_map, wanted) if wanted else None
    if region is None:
        return derp_map
    scores = {**derp_map.home_scores, region.id: PIN}
    return DerpMap(regions=derp_map.regions, home_scores=scores, omit_default_regions=derp_map.omit_default_regions)


def by_region(latencies: Mapping[str, float]) -> dict[int, float]:
    """Return the best of both families by region, from what a node tells by `<region>-v4` and `-v6`."""
    best: dict[int, float] = {}
    for key, seconds in latencies.items():
        region, _, _family = key.partition("-")
        if region.isdecimal() and len(region) < _LONGEST:
            best[int(region)] = min(seconds, best.get(int(region), seconds))
    return best


def why(derp_map: DerpMap, home: int, latencies: Mapping[int, float], wanted: str | None) -> str:
    """Say which region is home and why, in one line without a full stop. `latencies` are seconds by region."""
    region = derp_map.regions.get(home)
    if region is None:
        return "no region: no relay answers" if home == 0 else f"region {home}, which the map has no more"
    named = f"{_name(region)}{_ms(latencies.get(home))}"
    if wanted:
        asked = find(derp_map, wanted)
        if asked is not None and asked.id == home:
            return f"{named}: it was asked for"
        return f"{named}: {wanted!r} was asked for, but {'is not in the map' if asked is None else 'has not answered'}"
    return f"{named}: {_beside_others(derp_map, home, latencies)}"


def _beside_others(derp_map: DerpMap, home: int, latencies: Mapping[int, float]) -> str:
    """Say why a region was chosen that nobody asked for."""
    others = sorted((latencies[one.id], one.id) for one in relays(derp_map) if one.id != home and one.id in latencies)
    if len(relays(derp_map)) == 1:
        return "the only one with a relay"
    if home not in latencies:
        return "its relay was the first to answer"
    if not others:
        return "no other one answers"
    seconds, next_best = others[0]
    other = f"{_name(derp_map.regions[next_best])}{_ms(seconds)}"
    if latencies[home] <= seconds:
        return f"the nearest; next is {other}"
    return (
        f"as the map weighs them; {other} is nearer"
        if derp_map.home_scores
        else f"{other} is nearer, but not by enough"
    )


def _name(region: Region) -> str:
    return f"region {region.id} ({region.code or region.name})"


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return ""
    ms = seconds * 1e3
    return f", {ms:.0f} ms" if ms >= 10 else f", {ms:.1f} ms" if ms >= 0.1 else ", below 0.1 ms"
