"""What one worker found out about an endpoint is passed on to the others.

So a session goes to the same endpoint whichever worker has its connection, and every endpoint is checked
by one worker only. Who begins later is told which checks fail; an ejection it finds out by itself, or not
at all: it is soon over.
"""

from __future__ import annotations

from collections.abc import Mapping

from stickyproxy.control.workers import orders
from stickyproxy.control.workers.hand import Hand
from stickyproxy.health.changes import What
from stickyproxy.model import Snapshot

_FOR_ALL = frozenset((What.EJECTED, What.RETURNED, What.CHECK_FAILED, What.CHECK_PASSED))


class Gossip:
    """`hands` are the workers that there are, by number."""

    def __init__(self, hands: Mapping[int, Hand]) -> None:
        self._hands = hands
        self._failing: dict[tuple[str, str], orders.News] = {}

    def heard(self, number: int, news: orders.News) -> None:
        """From the worker of this number."""
        change = news.change
        if change.what not in _FOR_ALL:
            return
        place = (change.cluster, change.endpoint)
        if change.what is What.CHECK_FAILED:
            self._failing[place] = news
        elif change.what is What.CHECK_PASSED:
            self._failing.pop(place, None)
        for other, hand in self._hands.items():
            if other != number:
                hand.bus.send(news)

    def tell_all(self, hand: Hand) -> None:
        """To a new worker, after what it begins with."""
        for news in self._failing.values():
            hand.bus.send(news)

    def keep(self, snapshot: Snapshot) -> None:
        """Forget checks of endpoints that are not checked any more."""
        checked = {
            (name, endpoint.key)
            for name, cluster in snapshot.clusters.items()
            if self._failing and cluster.spec.upkeep.health_checks
            for endpoint in cluster.endpoints
        }
        self._failing = {place: n for place, n in self._failing.items() if place in checked}
