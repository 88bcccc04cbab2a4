"""The one table: a row a suite, a column a way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from conformance.board.known import Known
from conformance.board.results import DIRECT, WAYS, Run, Way


def table(runs: Iterable[Run], anchors: Mapping[str, str], known: Sequence[Known]) -> str:
    """Markdown."""
    runs = list(runs)
    head = ["suite", *map(str, (DIRECT, *WAYS)), "best anchor", "known failures"]
    lines = [head, ["---"] * len(head)]
    lines += [
        [
            row,
            *(_score(runs, row, way) for way in (DIRECT, *WAYS)),
            anchors.get(row, ""),
            str(sum(entry.row == row for entry in known)),
        ]
        for row in dict.fromkeys(run.row for run in runs)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _score(runs: Iterable[Run], row: str, way: Way) -> str:
    """Several runs of the same kind are all told."""
    found = [f"{run.passed}/{run.cases}" for run in runs if (run.row, run.way) == (row, way)]
    return ", ".join(found)
