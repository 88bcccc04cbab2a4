"""Known attacks, from clients and from backends, with the counts that were published.

A row passes if it ends as it should, nothing of it is left, and what it cost stays within bounds: CPU,
memory, and how long a neighbour waited. The machine may be busy with something else: a row that is out
of bounds is played again, twice at the most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from conformance.attacks.rows import CPU, MEMORY, WAIT, Row, attacked, tricked
from conformance.board.results import WAYS, Run, Suite, Way
from support.attacks import ATTACKS, HOLDS
from support.attacks_upstream import TRICKS

NAME = "attacks"
TRIES = 3


def play(way: Way, folder: Path) -> Iterator[Run]:
    began = time.monotonic()
    plays: list[Callable[[], Row]] = [
        partial(attacked, attack, way, folder, hold=attack in HOLDS)
        for attack in (*ATTACKS, *HOLDS)
    ]
    plays += [partial(tricked, trick, way, folder) for trick in TRICKS]
    rows = [_best(one) for one in plays]
    (folder / f"attacks-{way.codec}.md").write_text(table(rows))
    failed = {row.name: row.complaints for row in rows if row.complaints}
    yield Run(NAME, way, len(rows), failed, time.monotonic() - began)


def _best(one: Callable[[], Row]) -> Row:
    row = one()
    for _ in range(TRIES - 1):
        if not row.complaints:
            break
        row = one()
    return row


def table(rows: Sequence[Row]) -> str:
    """In the order of the corpus, clients before backends."""
    lines = [
        f"bounds: {CPU:g} s of CPU, {MEMORY >> 20} MB, {WAIT * 1000:.0f} ms",
        "",
        "| # | attack | ends | CPU s | MB | neighbour waits, ms | before, ms |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in sorted(
        rows, key=lambda row: (row.name.startswith("backend"), int(row.number or 99))
    ):
        waits = f"{row.wait * 1000:.0f} | {row.rest * 1000:.0f}"
        cost = f"{row.cpu:.2f} | {row.growth / (1 << 20):.1f} | {waits}"
        lines.append(f"| {row.number} | {row.name} | {row.outcome} | {cost} |")
    return "\n".join(lines) + "\n"


SUITE = Suite(
    NAME,
    {NAME: "HAProxy 2.6: all absorbed or closed, up to 1.1 s of CPU"},
    tuple(way for way in WAYS if not way.tls),
    [],
    play,
)
