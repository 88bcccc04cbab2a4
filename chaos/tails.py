"""Tails: counts with intervals, since one run's p99.9 is six calls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.figures import quantile

Z = 1.96  # standard deviations to either side: 95 % of a normal distribution


@dataclass(frozen=True, slots=True)
class Count:
    """`found` of `all`, and within which shares of `all` the true one lies with 95 % confidence."""

    found: int
    all: int
    least: float
    most: float


def count(found: int, of: int) -> Count:
    """Wilson's interval, which holds for none and for few too. Raises ValueError for none at all."""
    if of <= 0:
        raise ValueError("no calls")
    share = found / of
    spread = Z * math.sqrt(share * (1 - share) / of + Z * Z / (4 * of * of))
    middle = share + Z * Z / (2 * of)
    scale = 1 + Z * Z / of
    least = 0.0 if not found else (middle - spread) / scale
    most = 1.0 if found == of else (middle + spread) / scale
    return Count(found, of, least, most)


def quantiles(latencies: Sequence[float]) -> dict[str, float]:
    """Of all runs together. Raises ValueError without a latency."""
    ordered = sorted(latencies)
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    return {name: quantile(ordered, share) for name, share in shares.items()}
