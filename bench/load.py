"""What a load generator says about one block."""

from __future__ import annotations

from dataclasses import dataclass, field


class LoadError(Exception):
    """A load generator did not do its work; the message says why."""


@dataclass(slots=True)
class Load:
    """One block. `seconds` of wall time; `latencies` of single calls in microseconds, if asked for.

    `messages` is set where a call carries many; `extra` holds figures of one case only.
    """

    calls: int
    failed: int
    seconds: float
    latencies: list[float] = field(default_factory=list)
    messages: int = 0
    extra: dict[str, float] = field(default_factory=dict)
