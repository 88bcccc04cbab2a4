"""What a suite is, what it was run on, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from conformance.board.tools import Tool


class Way(NamedTuple):
    """How a suite reaches what it tests: `codec` "" is without us, `tls` is how clients come."""

    codec: str
    tls: bool = False

    @property
    def direct(self) -> bool:
        return not self.codec

    def __str__(self) -> str:
        return "direct" if self.direct else f"{self.codec}, {'TLS' if self.tls else 'cleartext'}"


WAYS = tuple(Way(codec, tls) for codec in ("fast", "reference") for tls in (False, True))
DIRECT = Way("")


@dataclass
class Run:
    """One row on one way: `failed` leads from a case to what was wrong with it."""

    row: str
    way: Way
    cases: int
    failed: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def passed(self) -> int:
        return self.cases - len(self.failed)


class Suite(NamedTuple):
    """`anchors` says for each of its rows what the best peer measured came to, and which it was.

    `play` takes a way and a folder for what it writes.
    """

    name: str
    anchors: Mapping[str, str]
    ways: Sequence[Way]
    tools: Sequence[Tool]
    play: Callable[[Way, Path], Iterator[Run]]

    def missing(self) -> list[str]:
        return [reason for tool in self.tools if (reason := tool.missing())]
