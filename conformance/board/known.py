"""The dated list of known failures: it may only become shorter.

A failure that is not in it fails the run; an entry whose case passes on all of its ways is to go.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from conformance.board.results import Run

FILE = Path(__file__).parents[1] / "known_failures.yaml"


class Known(NamedTuple):
    """A case of a row that fails; `ways` empty: on each of them."""

    row: str
    case: str
    since: dt.date
    reason: str
    ways: Sequence[str] = ()

    def covers(self, run: Run) -> bool:
        return run.row == self.row and (not self.ways or str(run.way) in self.ways)


def read(file: Path = FILE) -> list[Known]:
    """Raises TypeError for an entry without its day, or whatever else it lacks."""
    entries = yaml.safe_load(file.read_text()) or []
    for entry in entries:
        if not isinstance(entry.get("since"), dt.date):
            raise TypeError(f"{entry.get('case')}: since which day?")
    return [Known(**entry) for entry in entries]


class Judgement(NamedTuple):
    """`unknown`: failures that nobody expected; `cured`: entries that nothing failed by any more."""

    unknown: list[str]
    cured: list[Known]


def judge(runs: Iterable[Run], known: Iterable[Known]) -> Judgement:
    runs, known = list(runs), list(known)
    unknown = [
        f"{run.row} ({run.way}): {case}: {why}"
        for run in runs
        for case, why in run.failed.items()
        if not any(entry.covers(run) and entry.case == case for entry in known)
    ]
    return Judgement(unknown, [entry for entry in known if _cured(entry, runs)])


def _cured(entry: Known, runs: Sequence[Run]) -> bool:
    asked = [run for run in runs if entry.covers(run)]
    return bool(asked) and not any(entry.case in run.failed for run in asked)
