"""`outlier_detection` and `slow_start`: `off`, or what differs from the default, as `name=value`.

One text for flag, variable, our own document and Mapping, because Ambassador's definition of a Mapping
has `outlier_detection` as a text (and nothing behind it).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

from stickyproxy.config.text.durations import parse_duration
from stickyproxy.rules import OutlierDetection, SlowStart

Tuned = TypeVar("Tuned", OutlierDetection, SlowStart)

NO_OUTLIERS = OutlierDetection(max_ejection_percent=0)
NO_SLOW_START = SlowStart(window=0.0)

_OFF = ("off", "false", "no", "0")
_ON = ("on", "true", "yes", "1")
_BOUNDS = {
    "percent": (0, 100),
    "enforcing": (0, 100),
    "aggression": (0.01, 100),
    "window": (0, 86_400),
}
"""By a part of the name; all others are from 0 to a million."""


def outlier_detection(text: str) -> OutlierDetection:
    """`ValueError` says what is wrong."""
    return _read(text, OutlierDetection(), NO_OUTLIERS, "consecutive_5xx=5, interval=5s")


def slow_start(text: str) -> SlowStart:
    """A duration or a number alone is the window. `ValueError` says what is wrong."""
    if parse_duration(text) is not None or text.replace(".", "", 1).isdecimal():
        text = f"window={text}"
    return _read(text, SlowStart(), NO_SLOW_START, "30s, or window=30s, aggression=2")


def show(tuned: OutlierDetection | SlowStart) -> str:
    """As it would be said."""
    if tuned in (NO_OUTLIERS, NO_SLOW_START):
        return "off"
    default = type(tuned)()
    names = [field.name for field in fields(tuned)]
    differing = [name for name in names if getattr(tuned, name) != getattr(default, name)]
    return ", ".join(f"{name}={getattr(tuned, name):g}" for name in differing) or "on"


def _read(text: str, default: Tuned, off: Tuned, right: str) -> Tuned:
    if text.strip().lower() in _OFF:
        return off
    if text.strip().lower() in _ON:
        return default
    known = {field.name: getattr(default, field.name) for field in fields(default)}
    found: dict[str, Any] = {}
    for part in re.split(r"[,\s]+", text.strip()):
        name, _, value = part.partition("=")
        if name not in known or not value:
            raise ValueError(f"`{part}` is not known; right would be off, or {right}")
        found[name] = _value(name, value, _reader(known[name]))
    return replace(default, **found)


def _reader(like: float) -> Callable[[str], float]:
    if isinstance(like, bool):
        return _flag
    return _whole if isinstance(like, int) else _number


def _value(name: str, text: str, read: Callable[[str], float]) -> float:
    low, high = next((b for part, b in _BOUNDS.items() if part in name), (0, 1_000_000))
    try:
        value = read(text)
    except ValueError:
        value = -1
    if not low <= value <= high:
        raise ValueError(f"{name}: `{text}` is no value for it; right would be {low:g} to {high:g}")
    return value


def _flag(text: str) -> bool:
    if text.lower() not in _ON + _OFF:
        raise ValueError(text)
    return text.lower() in _ON


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(text)
    return int(text[:12])


def _number(text: str) -> float:
    """Seconds where it is a duration."""
    return seconds if (seconds := parse_duration(text)) is not None else float(text)
