"""Long-lived gRPC clients (grpcio): some channels, many users, calls one after the other."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from conformance.lab.pod import WHO

LIMIT = 20.0
"""Seconds for one call."""


def who_at(channel: grpc.aio.Channel) -> Any:
    """Typed as Any: the stubs want serializers for messages that are bytes."""
    make: Any = channel.unary_unary
    return make(WHO)


@dataclass
class Seen:
    """What some calls met. Latencies in milliseconds."""

    pods: Counter[str] = field(default_factory=Counter)
    of_user: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def share(self, pod: str) -> float:
        return self.pods[pod] / max(1, self.pods.total())

    def percentile(self, percent: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

    @property
    def pinned(self) -> float:
        """The share of users, of those with three calls and more, whom one pod answered always."""
        often = [met for met in self.of_user.values() if met.total() >= 3]
        return sum(len(met) == 1 for met in often) / max(1, len(often))


class Clients:
    """`channels` connections to each target; leave them open as long as they should live."""

    def __init__(self, targets: Sequence[str], channels: int, users: int, seed: int) -> None:
        # Without a pool of its own grpcio lets channels to one target share a connection.
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [
            grpc.aio.insecure_channel(targets[n % len(targets)], options=options)
            for n in range(channels)
        ]
        self._calls = [who_at(channel) for channel in self._channels]
        self._users = users
        self._random = random.Random(seed)

    async def call(self, count: int, at_once: int) -> Seen:
        """`count` calls by users at random over channels at random, `at_once` under way."""
        seen, left = Seen(), iter(range(count))

        async def work() -> None:
            for _ in left:
                await self._call(seen)

        await asyncio.gather(*(work() for _ in range(at_once)))
        return seen

    async def call_until(self, stop: asyncio.Event, at_once: int, seen: Seen) -> None:
        async def work() -> None:
            while not stop.is_set():
                await self._call(seen)

        await asyncio.gather(*(work() for _ in range(at_once)))

    async def _call(self, seen: Seen) -> None:
        user = f"user-{self._random.randrange(self._users)}"
        call = self._random.choice(self._calls)
        begun = time.perf_counter()
        try:
            pod = await call(b"", metadata=(("x-user", user),), timeout=LIMIT)
        except grpc.aio.AioRpcError as error:
            seen.failures.append(f"{error.code().name}: {error.details()}")
            return
        seen.latencies.append((time.perf_counter() - begun) * 1000)
        seen.pods[pod.decode()] += 1
        seen.of_user[user][pod.decode()] += 1

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close(None)
