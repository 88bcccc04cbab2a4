"""The curves of a soak: memory above, tasks and connections below, and a mark for all that went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from conformance.lab.svg import COLOURS, PALE, Picture

WIDTH, HEIGHT = 860, 460
LEFT, RIGHT, TOP, GAP = 60, 20, 50, 40
MARKED = {"worker killed": 0, "backend killed": 1}
"""Those that a curve shows; the others are a pale tick."""


class Sampled(Protocol):
    @property
    def at(self) -> float: ...
    @property
    def memory(self) -> float: ...
    @property
    def tasks(self) -> float: ...
    @property
    def connections(self) -> float: ...


def draw(samples: Sequence[Sampled], moments: Sequence[tuple[float, str]]) -> str:
    made = Picture(WIDTH, HEIGHT, "A soak: memory and tasks while everything goes wrong")
    last = max((one.at for one in samples), default=1.0)
    tall = (HEIGHT - TOP - 2 * GAP) / 2
    across = (WIDTH - LEFT - RIGHT) / last
    made.text(LEFT, 24, "Resident memory of all processes, MB", size=14)
    _curve(made, [(one.at, one.memory / 1e6) for one in samples], (across, TOP, tall), COLOURS[0])
    second = TOP + tall + GAP
    made.text(LEFT, second - 10, "Tasks (orange), connections of clients (green)", size=14)
    most = max((one.tasks for one in samples), default=1.0)
    tasks = [(one.at, one.tasks) for one in samples]
    _curve(made, tasks, (across, second, tall), COLOURS[1], most)
    there = [(one.at, one.connections) for one in samples]
    _curve(made, there, (across, second, tall), COLOURS[2], most)
    for at, what in moments:
        x = LEFT + at * across
        known = MARKED.get(what)
        length, colour = (8, COLOURS[3]) if known is not None else (4, PALE)
        made.line(x, HEIGHT - GAP, x, HEIGHT - GAP + length, colour=colour)
    for minute in range(int(last // 60) + 1):
        x = LEFT + minute * 60 * across
        made.text(x, HEIGHT - 8, f"{minute} min", size=11, anchor="middle", pale=True)
    return made.render()


def _curve(
    made: Picture,
    points: Sequence[tuple[float, float]],
    frame: tuple[float, float, float],
    colour: str,
    most: float | None = None,
) -> None:
    across, top, tall = frame
    most = most or max((value for _, value in points), default=1.0) or 1.0
    for share in (0.0, 0.5, 1.0):
        y = top + tall * (1 - share)
        made.line(LEFT, y, WIDTH - RIGHT, y)
        made.text(LEFT - 6, y + 4, f"{most * share:.0f}", size=11, anchor="end", pale=True)
    drawn = [(LEFT + at * across, top + tall * (1 - value / most)) for at, value in points]
    made.path(drawn, colour)
