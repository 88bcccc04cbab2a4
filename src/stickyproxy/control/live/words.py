"""Figures for people: short, and of the same width as far as that goes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any


def rate(value: float) -> str:
    return f"{value:.1f}" if 0 < value < 10 else f"{value:,.0f}"


def millis(value: float | None) -> str:
    """Nothing was measured: a dash."""
    if value is None:
        return "-"
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


def duration(seconds: float) -> str:
    """From seconds to days, the two largest units."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def size(octets: float) -> str:
    return f"{octets / (1 << 20):,.0f} MiB"


def clock(unix: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(unix))


def state_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """`ok` or `bad`, and in words why; with what is said of connections that are not well."""
    said = [row["reason"]] if row["reason"] else []
    said += row["doubts"]
    return ("bad", "; ".join(said)) if said else ("ok", "healthy")


def problem_of(one: Mapping[str, Any]) -> str:
    """Of a cluster as a whole; "" if there is nothing to say."""
    return one["problem"] or ("" if one["endpoints"] else "it has no endpoints")


def live_workers(now: Mapping[str, Any]) -> int:
    """How many take traffic."""
    return sum(one["state"] == "LIVE" for one in now["workers"])


def figures(row: Mapping[str, Any]) -> Iterator[str]:
    """What page and terminal show of an endpoint or a cluster behind its name and state."""
    yield share(row["share"])
    yield rate(row["rate"])
    yield rate(row["errors"])
    yield millis(row["p50"])
    yield millis(row["p99"])
    yield f"{row['streams']:,}"
    yield f"{row['connections']:,}"
