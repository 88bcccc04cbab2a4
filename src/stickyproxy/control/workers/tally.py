"""What all workers together have counted, those that are gone included."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from stickyproxy.control.workers import orders
from stickyproxy.control.workers.hand import Hand
from stickyproxy.counters import WorkerStats
from stickyproxy.health.changes import Seen
from stickyproxy.metrics import Metrics


class Tally:
    """`restarts` by number. What a worker counted since its last report is lost when it crashes."""

    def __init__(self, hands: Mapping[int, Hand], count: int) -> None:
        self.restarts = [0] * count
        self._hands = hands
        self._past = Metrics()
        self._past_requests = [0] * count
        self._version = 0
        self._told: set[int] = set()
        self._applied: list[float] = []
        self._spread = 0.0

    @property
    def serving(self) -> bool:
        """Whether anybody takes connections."""
        return any(hand.started.is_set() and not hand.ended for hand in self._hands.values())

    @property
    def panicking(self) -> Collection[str]:
        """Clusters of which some worker uses all endpoints, because too few are left."""
        return frozenset[str]().union(*(hand.report.panicking for hand in self._hands.values()))

    def seen(self, cluster: str, key: str) -> Seen | None:
        """What some worker has against an endpoint, and which ones if it is not all of them."""
        said = {
            number + 1: found
            for number, hand in sorted(self._hands.items())
            if (found := hand.report.suspected.get((cluster, key))) is not None
        }
        if not said:
            return None
        flags = {flag: None for found in said.values() for flag in found.flags.split("/") if flag}
        words = {word: None for found in said.values() for word in found.reason.split("; ")}
        reason = "; ".join(words)
        if len(said) < len(self._hands):
            numbers = ", ".join(map(str, said))
            reason += f" (worker {numbers} of {len(self._hands)})"
        return Seen("".join(f"/{flag}" for flag in flags), reason)

    def whole(self, own: Metrics, members: Mapping[str, Collection[str]]) -> Metrics:
        """With the supervisor's own; endpoints that are no members any more are left out."""
        self._past.prune(members)
        parts = [hand.report.metrics for hand in self._hands.values() if hand.report.metrics]
        whole = Metrics.from_dicts(own.as_dict(), self._past.as_dict(), *parts)
        whole.prune(members)
        whole.workers = {str(n + 1): self._worker(n) for n in range(len(self.restarts))}
        whole.process.config_snapshot_spread_seconds = self._spread
        return whole

    def _worker(self, number: int) -> WorkerStats:
        hand = self._hands.get(number)
        stats = WorkerStats(
            restarts_total=self.restarts[number], requests_total=self._past_requests[number]
        )
        if hand is not None:
            stats.connections = hand.giver.connections
            stats.requests_total += _requests(hand)
            stats.snapshot_version = hand.version
        return stats

    def workers(self) -> Sequence[Mapping[str, Any]]:
        """For people: each place and who is there."""
        return [
            {
                "worker": number + 1,
                "pid": hand.process.pid,
                "state": "LIVE" if hand.started.is_set() else "STARTING",
                "connections": hand.giver.connections,
                "snapshot_version": hand.version,
                "restarts": self.restarts[number],
            }
            for number, hand in sorted(self._hands.items())
        ]

    # --- what happens ---

    def parted(self, hand: Hand) -> None:
        self._told.discard(hand.number)
        if hand.report.metrics:
            self._past.add(Metrics.counted(hand.report.metrics))
            self._past_requests[hand.number] += _requests(hand)

    def published(self, version: int) -> None:
        """It is on its way to all that serve; who begins later begins with it."""
        self._version = version
        self._told = {number for number, hand in self._hands.items() if hand.started.is_set()}
        self._applied = []

    def applied(self, number: int, said: orders.Applied) -> None:
        if said.version == self._version and number in self._told:
            self._told.discard(number)
            self._applied.append(said.at)
            self._spread = max(self._applied) - min(self._applied)


def _requests(hand: Hand) -> int:
    counted = hand.report.metrics.get("process", {})
    return int(counted.get("downstream_streams_total", 0))
