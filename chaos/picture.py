"""The picture of a run: latency over time, of Envoy as it comes and of us, across a dead connection."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from chaos.peers import BASE, OURS
from chaos.samples import Sample
from conformance.lab.svg import COLOURS, INK, Picture

SHOWN = "bh-conn"

BIN = 100.0  # ms of time in which the worst and the median call are shown
LOWEST, HIGHEST = 5.0, 40_000.0  # ms: the axis of latency
TICKS = {10: "10 ms", 100: "100 ms", 1000: "1 s", 10_000: "10 s"}
WIDTH, PANEL, LEFT, RIGHT, TOP, GAP = 820, 190, 70, 20, 64, 52


@dataclass(frozen=True, slots=True)
class Bin:
    """Calls due in the same BIN: its middle in ms, their median and worst latency, how many failed."""

    at: float
    median: float
    worst: float
    failed: int


def bins(sample: Sample) -> list[Bin]:
    groups: dict[int, list[tuple[float, str]]] = {}
    for due, latency, status, _ in sample.rows:
        groups.setdefault(int(due // BIN), []).append((latency, status))
    return [
        Bin(
            (at + 0.5) * BIN,
            statistics.median(latency for latency, _ in group),
            max(latency for latency, _ in group),
            sum(1 for _, status in group if status != "200"),
        )
        for at, group in sorted(groups.items())
    ]


def chosen(samples: Sequence[Sample], names: Sequence[str] = (BASE, OURS)) -> list[Sample]:
    """For each name one run of SHOWN: the first that both have, or none."""
    runs = {(s.peer, s.number): s for s in samples if s.scenario == SHOWN and not s.void}
    numbers = sorted({number for _, number in runs})
    for number in numbers:
        if all((name, number) in runs for name in names):
            return [runs[name, number] for name in names]
    return []


def draw(samples: Sequence[Sample]) -> str:
    """A panel for each of `samples`, on one axis of time. Raises ValueError without one."""
    last = max(row[0] for sample in samples for row in sample.rows)
    height = TOP + len(samples) * (PANEL + GAP)
    title = "One connection to a backend dies, its host stays well: latency of each call"
    picture = Picture(WIDTH, height, title)
    picture.text(10, 22, title, size=15)
    words = (
        "line: median of the calls due in 0.1 s; area: the worst of them; dots above: some failed"
    )
    picture.text(10, 42, words, pale=True)
    for at, sample in enumerate(samples):
        colour = COLOURS[0] if sample.peer == OURS else COLOURS[1]
        _panel(picture, sample, TOP + at * (PANEL + GAP), last, colour)
    return picture.render()


def _x(ms: float, last: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * ms / last


def _y(latency: float, top: float) -> float:
    share = math.log(max(latency, LOWEST) / LOWEST) / math.log(HIGHEST / LOWEST)
    return top + PANEL * (1 - min(share, 1.0))


def _panel(picture: Picture, sample: Sample, top: float, last: float, colour: str) -> None:
    found = bins(sample)
    floor = top + PANEL
    for tick, words in TICKS.items():
        picture.line(LEFT, _y(tick, top), WIDTH - RIGHT, _y(tick, top))
        picture.text(LEFT - 6, _y(tick, top) + 4, words, anchor="end", pale=True)
    for second in range(0, int(last / 1e3) + 1, 2):
        picture.text(_x(second * 1e3, last), floor + 15, f"{second} s", anchor="middle", pale=True)
    worst = [(_x(one.at, last), _y(one.worst, top)) for one in found]
    picture.band([(worst[0][0], floor), *worst, (worst[-1][0], floor)], colour)
    picture.path([(_x(one.at, last), _y(one.median, top)) for one in found], colour)
    for one in found:
        if one.failed:
            picture.dot(_x(one.at, last), top + 3, INK, radius=2)
    if sample.began_ms is not None:
        x = _x(sample.began_ms, last)
        picture.line(x, top, x, floor, dashed=True, colour=colour)
    bad = sum(1 for row in sample.rows if row[2] != "200" or row[1] > 1000)
    slow = f"{bad:,} of {len(sample.rows):,} calls failed or took more than 1 s"
    picture.text(LEFT + 6, top - 6, f"{sample.peer}: {slow}")
