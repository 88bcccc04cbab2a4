"""Connections of each replica over time, stacked; a panel for each age."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from conformance.lab.svg import COLOURS, INK, Picture

PANEL, GAP, LEFT, TOP, TALL = 390, 30, 46, 74, 210


def draw(runs: Sequence[tuple[int, Sequence[Sequence[int]]]], grows_at: int) -> str:
    width = LEFT + (PANEL + GAP) * len(runs)
    picture = Picture(
        width, TOP + TALL + 70, "Client connections of each replica, from one to three"
    )
    picture.text(16, 26, picture.title, size=15)
    for number, (age, seconds) in enumerate(runs):
        _panel(picture, LEFT + number * (PANEL + GAP), age, seconds, grows_at)
    for index in range(len(runs[0][1][0])):
        x = LEFT + index * 110
        picture.dot(x + 4, TOP + TALL + 54, COLOURS[index], radius=5)
        picture.text(x + 14, TOP + TALL + 58, f"replica {index + 1}", pale=True)
    return picture.render()


def _panel(
    picture: Picture, left: float, age: int, seconds: Sequence[Sequence[int]], grows_at: int
) -> None:
    most = max(sum(moment) for moment in seconds)
    wide = PANEL / (len(seconds) - 1)

    def place(second: int, count: int) -> tuple[float, float]:
        return left + second * wide, TOP + TALL - TALL * count / most

    name = f"--max-connection-age {age}" if age else "without --max-connection-age"
    picture.text(left, TOP - 22, name)
    levels = [[0, *accumulate(moment)] for moment in seconds]
    for index in range(len(seconds[0])):
        upper = [place(n, level[index + 1]) for n, level in enumerate(levels)]
        lower = [place(n, level[index]) for n, level in enumerate(levels)]
        picture.band([*upper, *reversed(lower)], COLOURS[index])
        picture.path(upper, COLOURS[index])
    picture.line(left, TOP + TALL, left + PANEL, TOP + TALL)
    for count in range(0, most + 1, 16):
        picture.text(left - 6, place(0, count)[1] + 4, str(count), size=11, anchor="end", pale=True)
    for second in range(0, len(seconds), 10):
        x = place(second, 0)[0]
        picture.text(x, TOP + TALL + 18, f"{second} s", size=11, anchor="middle", pale=True)
    x = place(grows_at, 0)[0]
    picture.line(x, TOP, x, TOP + TALL, colour=INK, dashed=True)
    picture.text(x, TOP - 6, "two replicas added", size=11, anchor="middle", pale=True)
