"""The lines of what changed, as they are shown: what goes on is one line that counts. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stickyproxy.control.live.words import duration

KEPT = 50
"""Lines."""
GOES_ON = 15.0
"""Seconds within which the same again is the same line: what flaps, or lasts, must not push all else out."""


@dataclass(slots=True)
class _Line:
    """`since` and `last` in Unix time; `calls` of those that went elsewhere."""

    text: str
    since: float
    last: float
    times: int = 1
    calls: int = 0

    def said(self, now: float) -> str:
        if self.calls:
            over = now - self.last > GOES_ON
            much = f" in {duration(self.last - self.since + 1)}" if over else " so far"
            return f"{self.text}: {self.calls:,} call{'s' * (self.calls != 1)}{much}"
        return f"{self.text} ({self.times} times)" if self.times > 1 else self.text


class Ticker:
    def __init__(self) -> None:
        self._lines: deque[_Line] = deque(maxlen=KEPT)

    def add(self, now: float, lines: Iterable[str], moved: Mapping[str, int]) -> None:
        """What was seen now, the most general first; `moved` are calls by why they went elsewhere."""
        found = [self._line(now, text) for text in lines]
        for text, calls in moved.items():
            line = self._line(now, text)
            line.calls += calls
            found.append(line)
        fresh = [line for line in found if line.since == now and line not in self._lines]
        self._lines.extendleft(reversed(fresh))

    def shown(self, now: float) -> tuple[tuple[float, str], ...]:
        """(Unix time at which it began, line), the newest first."""
        return tuple((line.since, line.said(now)) for line in self._lines)

    def _line(self, now: float, text: str) -> _Line:
        for line in self._lines:
            if line.text == text and now - line.last <= GOES_ON:
                line.last, line.times = now, line.times + 1
                return line
        return _Line(text, now, now)
