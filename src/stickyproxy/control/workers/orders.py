"""What supervisor and worker say to each other on the bus. Seconds are from now: clocks differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from stickyproxy.config.process.settings import ProcessSettings
from stickyproxy.control.workers.publication import Publication
from stickyproxy.edge import ListenerSpec, Pem, ServerTls
from stickyproxy.health.changes import Change, Seen

BEAT = 1.0
"""Seconds between two signs of life."""
HUNG = 5.0
"""Seconds without one until a worker is held to hang, and is replaced."""
REPORT_EVERY = 5.0
"""Seconds between reports that nobody asked for: what a worker counted since the last one is lost with
it when it crashes. One takes 5 ms with 1,000 endpoints."""


class Keys(NamedTuple):
    """What handshakes are made with. `default` is the pair of `--tls-cert` and `--tls-key`."""

    default: tuple[Pem, Pem] | None
    tls: tuple[ServerTls, ...]


class DoorSpec(NamedTuple):
    """A port that the supervisor has open, by the number that connections are handed over with."""

    number: int
    protocol: str
    spec: ListenerSpec | None


class News(NamedTuple):
    """What a worker found out about an endpoint; the supervisor passes it on to the others."""

    change: Change


# --- from the supervisor ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """First of all: everything that a worker needs to serve. `number` counts from 0."""

    settings: ProcessSettings
    number: int
    workers: int
    phase: float
    keys: Keys
    publication: Publication
    doors: tuple[DoorSpec, ...]


class OpenDoor(NamedTuple):
    door: DoorSpec


class ChangeDoor(NamedTuple):
    door: DoorSpec


class CloseDoor(NamedTuple):
    """All that came in there was handed over; whoever still runs in `seconds` is ended."""

    number: int
    seconds: float


class SendAway(NamedTuple):
    """So many clients' connections are to go: another worker has fewer."""

    connections: int


class Drain(NamedTuple):
    """No connection comes any more; what still runs in `seconds` is ended."""

    seconds: float


class Stop(NamedTuple):
    """Now."""


class Ask(NamedTuple):
    """For a report with this serial."""

    serial: int


# --- from a worker ----------------------------------------------------------------------------------


class Started(NamedTuple):
    """It has its first Snapshot and takes connections."""


class Beat(NamedTuple):
    """Its loop turns."""


class Applied(NamedTuple):
    """A Snapshot is in effect since `at` (CLOCK_MONOTONIC, the same for all processes)."""

    version: int
    at: float


class Report(NamedTuple):
    """`serial` 0: nobody asked. `suspected` has what speaks against endpoints, by (cluster, endpoint);

    of the clusters in `panicking` all are used all the same.
    """

    serial: int
    metrics: Mapping[str, Any]
    suspected: Mapping[tuple[str, str], Seen]
    panicking: frozenset[str] = frozenset()
