"""What became of each document of a cluster, and what is remembered of it for the next time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from stickyproxy.config.cluster.objects import Decoded, Object, ObjectKey
from stickyproxy.config.load import Settings
from stickyproxy.config.mappings.draft import Draft
from stickyproxy.config.resources.items import Item

RUNNING, INACTIVE, ERROR = "Running", "Inactive", "Error"
"""In use; good by itself but another one stands in its way; broken."""

CURRENT, LAST_GOOD, UNAVAILABLE, NOTHING = "current", "last good", "503", "nothing"
"""Which version is in effect: this one; an older one; none, so that its prefix answers 503; none."""


class PieceKey(NamedTuple):
    """One document: of which object (None: of a file), and what it calls itself."""

    owner: ObjectKey | None
    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Status:
    """`origin` is where the document stands, `reason` everything that is wrong with it, in one line.

    `generation` is the object's, `served_generation` that of the version in effect (0: none).
    """

    key: PieceKey
    origin: str
    state: str = RUNNING
    reason: str = ""
    serves: str = CURRENT
    generation: int = 0
    served_generation: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Good:
    """A document as it was when it was last good."""

    item: Item[Any]
    generation: int
    draft: Draft | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """Handed from one load to the next. `decoded` saves work, `good` keeps what works."""

    decoded: Mapping[ObjectKey, tuple[Object, Decoded]] = field(default_factory=dict, repr=False)
    good: Mapping[PieceKey, Good] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Combined:
    """Files and cluster as one. `problems` are complete lines; they stop nothing else."""

    settings: Settings
    statuses: tuple[Status, ...]
    problems: tuple[str, ...]
    memory: Memory
