"""Statistics of a measurement: medians, spreads, quantiles, ratios of paired blocks."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some rounds, and the least and the most of them."""

    median: float
    least: float
    most: float
    rounds: int


def spread(values: Sequence[float]) -> Spread:
    """Raises ValueError without values."""
    if not values:
        raise ValueError("no round counted")
    return Spread(statistics.median(values), min(values), max(values), len(values))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which that share of the sorted values lies (nearest rank).

    Raises ValueError without values.
    """
    if not ordered:
        raise ValueError("no values")
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def paired_ratio(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Spread | None:
    """Ratios within each round that both have, since only neighbours in time compare."""
    ratios = [ours[at] / theirs[at] for at in sorted(ours.keys() & theirs.keys()) if theirs[at] > 0]
    return spread(ratios) if ratios else None


def block_size(
    *, cpu: float, wall: float, budget: float, patience: float, least: int, most: int
) -> int:
    """How many calls make a block of about `budget` seconds of the proxy's CPU.

    `cpu` and `wall` are seconds a call in the warm-up; a block longer than `patience` seconds of
    wall time would no longer be a neighbour of the next one.
    """
    size = budget / cpu if cpu > 0 else most
    if wall > 0:
        size = min(size, patience / wall)
    return int(max(least, min(most, size)))
