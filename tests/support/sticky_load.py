"""Users who go on calling, and on which backend each of their calls was answered."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Self

import grpc

from support.grpc_backends import PATIENCE, Metadata, connected


class Made(NamedTuple):
    """A call; times are `perf_counter`'s. `backend` is its name, "" if it failed with `error`."""

    user: str
    backend: str
    began: float
    ended: float
    error: str = ""


def by_header(user: str) -> Metadata:
    return (("x-user", user),)


class StickyLoad:
    """`clients` connections share the users; each user has one call at a time, and says who it is."""

    def __init__(
        self,
        target: str,
        users: Sequence[str],
        clients: int = 3,
        says: Callable[[str], Metadata] = by_header,
    ) -> None:
        self.users = users
        self._says = says
        self._target = target
        self._made: list[Made] = []
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._run, args=(users[n::clients],), daemon=True)
            for n in range(clients)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _run(self, users: Sequence[str]) -> None:
        with connected(self._target) as client:
            while not self._stop.is_set():
                for user in users:
                    began = time.perf_counter()
                    backend = error = ""
                    try:
                        backend = client.backend_of(self._says(user))
                    except grpc.RpcError as failed:
                        error = str(failed)
                    with self._changed:
                        self._made.append(Made(user, backend, began, time.perf_counter(), error))
                        self._changed.notify_all()

    # --- what happened ---

    def failures(self) -> list[Made]:
        with self._changed:
            return [one for one in self._made if one.error]

    def since(self, moment: float) -> list[Made]:
        """The calls that began after it."""
        with self._changed:
            return [one for one in self._made if one.began >= moment]

    def round_after(self, moment: float, rounds: int = 1) -> None:
        """Wait until every user has made so many calls that began after it."""

        def enough() -> bool:
            counts = dict.fromkeys(self.users, 0)
            for one in self._made:
                counts[one.user] += one.began >= moment
            return min(counts.values()) >= rounds

        with self._changed:
            if not self._changed.wait_for(enough, PATIENCE):
                raise AssertionError("the load stands still")

    def spreads_evenly(self, backends: Collection[str], rounds: int = 3) -> None:
        """Wait until these, and no others, share the latest calls, but for what each client has under

        way at either end of the reading.
        """

        def even() -> bool:
            latest = self._made[-rounds * len(self.users) :]
            counts = Counter(one.backend for one in latest)
            slack = 2 * len(self._threads)
            return set(counts) == set(backends) and max(counts.values()) - slack <= min(
                counts.values()
            )

        with self._changed:
            if not self._changed.wait_for(even, PATIENCE):
                raise AssertionError(f"not spread evenly over {backends}")

    def settle(self, homes: Mapping[str, str]) -> float:
        """Wait until every user's latest call was at home; when the last one to move had begun."""

        def away() -> Collection[str]:
            latest = {one.user: one for one in self._made}
            return [user for user, home in homes.items() if latest[user].backend != home]

        with self._changed:
            if not self._changed.wait_for(lambda: not away(), PATIENCE):
                raise AssertionError(f"not at home: {away()}")
            latest = {one.user: one for one in self._made}
            return max(one.began for one in latest.values())
