"""What a case is: its load, its figures, and what is to be reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from bench.figures import quantile
from bench.peers import Peer
from bench.scene import Block, Go, Scene, Subject

CPU = "cpu_us"
RATE = "per_second"
QUANTILES = (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))

Loads = Callable[[Scene, Subject, int], AbstractContextManager[Go]]
"""The load of one block of that many calls."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One column. `digits` after the point. `goal`: the most that it may be times Envoy's.

    `compared`: it has a column of ratios; a figure with a goal always does. `limit` is absolute.
    """

    key: str
    title: str
    digits: int = 1
    goal: float | None = None
    limit: float | None = None
    compared: bool = False


@dataclass(frozen=True, slots=True)
class Pace:
    """How long it all takes. `budget`: seconds of a proxy's CPU a block; `patience`: of wall time.

    `warm` is the calls of the first, uncounted block.
    """

    rounds: int = 5
    budget: float = 1.0
    patience: float = 6.0
    warm: int = 2000


QUICK = Pace(rounds=3, budget=0.3, patience=2.0, warm=500)


@dataclass(slots=True)
class Sample:
    """One block of one proxy: its figures, or why it does not count."""

    case: str
    name: str
    log: bool
    round: int
    figures: dict[str, float] = field(default_factory=dict)
    void: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run measures, besides the cases. `say` tells people where it is."""

    peers: Sequence[Peer]
    pace: Pace
    logs: Sequence[bool]
    tls: tuple[Path, Path]
    say: Callable[[str], None]


Alone = Callable[[Scene, "Case", Plan], list[Sample]]
Pure = Callable[[Plan], list[Sample]]


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table of cases. The first figure is the one that pictures show.

    `mode` and `body` are the backends'; `logs`: both ways, or with the access log on only.
    `least` and `most`: calls a block. `direct`: the backends are measured too, and what a proxy adds
    to them is a figure. `open_loop`: calls come at 30 % of what the slowest proxy can do. `alone`:
    the case runs its rounds itself. `only`: the peers that can do it. `pure`: it needs neither
    processes nor peers, and each of its rows is ours.
    """

    name: str
    title: str
    figures: tuple[Figure, ...]
    load: Loads | None = None
    judge: Callable[[Block], dict[str, float]] | None = None
    mode: str = "unary"
    body: int = 12
    h1: bool = False
    tls: bool = False
    timeout: float = 15.0
    logs: tuple[bool, ...] = (True,)
    direct: bool = False
    open_loop: bool = False
    least: int = 2000
    most: int = 60_000
    alone: Alone | None = None
    only: tuple[str, ...] = ()
    pure: Pure | None = None


def per_call(block: Block) -> dict[str, float]:
    """CPU in microseconds a call, calls a second of wall and of CPU time, latencies in microseconds."""
    load = block.load
    figures = {CPU: block.cpu / load.calls * 1e6, RATE: load.calls / load.seconds}
    if block.cpu:
        figures["per_core"] = load.calls / block.cpu
    ordered = sorted(load.latencies)
    for key, share in QUANTILES:
        if ordered:
            figures[key] = quantile(ordered, share)
    return figures


def per_message(block: Block) -> dict[str, float]:
    """CPU in microseconds a message, those of both directions counted."""
    load = block.load
    return {
        CPU: block.cpu / load.messages * 1e6,
        RATE: load.messages / load.seconds,
        "per_core": load.messages / block.cpu if block.cpu else 0.0,
    }


def per_megabyte(size: int) -> Callable[[Block], dict[str, float]]:
    """CPU in milliseconds for 10^6 octets of bodies of `size` octets."""

    def judge(block: Block) -> dict[str, float]:
        megabytes = block.load.calls * size / 1e6
        return {"cpu_ms": block.cpu / megabytes * 1e3, RATE: megabytes / block.load.seconds}

    return judge


def added(figures: dict[str, float], direct: dict[str, float]) -> dict[str, float]:
    """What a proxy added to the latencies of the same round without it."""
    return {
        f"added_{key}": figures[key] - direct[key]
        for key, _ in QUANTILES
        if key in figures and key in direct
    }
