"""The share of calls of each pod, a dot for each pod and round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from conformance.lab.svg import COLOURS, INK, Picture

LEFT, RIGHT, TOP, ROW = 270, 30, 64, 64


def draw(ways: Sequence[tuple[str, Sequence[Counter[str]]]], pods: Sequence[str]) -> str:
    width, height = 860, TOP + ROW * len(ways) + 46
    span = width - LEFT - RIGHT
    picture = Picture(width, height, "Share of calls of each of three pods, a dot a pod and round")
    picture.text(16, 26, picture.title, size=15)
    picture.text(
        16, 44, "8 long-lived gRPC channels; what an even share would be is dashed", pale=True
    )
    bottom = TOP + ROW * len(ways)
    for percent in range(0, 101, 20):
        x = LEFT + span * percent / 100
        picture.line(x, TOP, x, bottom)
        picture.text(x, bottom + 18, f"{percent} %", anchor="middle", pale=True)
    even = LEFT + span / len(pods)
    picture.line(even, TOP, even, bottom, colour=INK, dashed=True)
    for row, (name, rounds) in enumerate(ways):
        middle = TOP + ROW * (row + 0.5)
        picture.text(LEFT - 14, middle + 4, name, anchor="end")
        for number, seen in enumerate(rounds):
            for index, pod in enumerate(pods):
                share = seen[pod] / max(1, seen.total())
                y = middle + (index - 1) * 16 + (number % 3 - 1) * 3
                picture.dot(LEFT + span * share, y, COLOURS[index])
    for index, pod in enumerate(pods):
        x = LEFT + index * 90
        picture.dot(x, bottom + 34, COLOURS[index])
        picture.text(x + 9, bottom + 38, pod, pale=True)
    return picture.render()
