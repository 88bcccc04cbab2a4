"""Weighted turns: earliest deadline first, the schedule behind Envoy's weighted balancers.

Every endpoint waits for a deadline; the earliest is next, and its new deadline lies 1/weight after
the one it was served at. Equal weights make plain round robin of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from itertools import count

from stickyproxy.model import Endpoint


class Rotation:
    """The turns of one cluster's endpoints."""

    __slots__ = ("_heap", "_now", "_order", "endpoints", "even")

    def __init__(self, endpoints: Sequence[Endpoint], start: int) -> None:
        """`start` turns are skipped: workers that start together should not move in step."""
        self.endpoints = endpoints
        self.even = len({endpoint.weight for endpoint in endpoints}) <= 1
        self._now = 0.0
        self._order = count(len(endpoints))  # ties go to whoever waits longer
        self._heap = [(1 / e.weight, position, e) for position, e in enumerate(endpoints)]
        heapify(self._heap)
        for _ in range(start):
            self.take(lambda _: True, lambda endpoint: endpoint.weight)

    def take(
        self, admits: Callable[[Endpoint], bool], weight: Callable[[Endpoint], float]
    ) -> Endpoint | None:
        """Give the turn to the next endpoint that is admitted; None if there is none.

        Endpoints walked past are served too, as it were: they are owed nothing when they return,
        and the others keep their proportions meanwhile.
        """
        heap = self._heap
        served = []
        taken = None
        while heap and taken is None:
            self._now, _, endpoint = heappop(heap)
            served.append(endpoint)
            if admits(endpoint):
                taken = endpoint
        for endpoint in served:
            heappush(heap, (self._now + 1 / weight(endpoint), next(self._order), endpoint))
        return taken

    def waiting(self) -> list[Endpoint]:
        """All endpoints in the order of their next turns."""
        return [endpoint for _, _, endpoint in sorted(self._heap, key=lambda entry: entry[:2])]
