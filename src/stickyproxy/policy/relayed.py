"""What the head and the trailers of an answer come to on their way to the client.

Answers are mostly the same each time, and what comes again is one object (`model.Section`): so it is worked
out once, and a call pays a look-up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from stickyproxy.model import Headers, Section
from stickyproxy.policy.grpc import needs_translation, status_of
from stickyproxy.policy.headers import clean_trailers

_KEPT = 256  # a Plan, and the process; the sections exist anyway


class RelayedHead:
    """`foreign`: no gRPC client would understand it. `received` keeps its `id` from being used again."""

    __slots__ = ("foreign", "headers", "received", "status")

    def __init__(self, received: Headers, headers: Headers) -> None:
        self.received = received
        self.headers = headers
        self.status = int(received[0][1])
        self.foreign = needs_translation(self.status, received)


class RelayedEnd:
    """`grpc_status` None: they have none."""

    __slots__ = ("grpc_status", "headers", "received")

    def __init__(self, received: Headers) -> None:
        self.received = received
        self.headers = clean_trailers(received)
        self.grpc_status = status_of(received)


_Relayed = TypeVar("_Relayed", RelayedHead, RelayedEnd)


class RelayedHeads:
    """Of one Plan, whose rules for a response `turn` knows."""

    __slots__ = ("_known", "_turn")

    def __init__(self, turn: Callable[[Headers], Headers]) -> None:
        self._turn = turn
        self._known: dict[int, RelayedHead] = {}

    def of(self, received: Headers) -> RelayedHead:
        found = self._known.get(id(received))
        if found is not None:
            return found
        found = RelayedHead(received, self._turn(received))
        if type(received) is Section:
            _keep(self._known, found)
        return found


def end_of(received: Headers) -> RelayedEnd:
    """What trailers come to, under any Plan."""
    found = _ends.get(id(received))
    if found is not None:
        return found
    found = RelayedEnd(received)
    if type(received) is Section:
        _keep(_ends, found)
    return found


_ends: dict[int, RelayedEnd] = {}


def _keep(known: dict[int, _Relayed], found: _Relayed) -> None:
    if len(known) >= _KEPT:
        known.clear()
    known[id(found.received)] = found
