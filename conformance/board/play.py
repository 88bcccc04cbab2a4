"""All suites, or those asked for, on all of their ways: one table, and whether it is as expected."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from conformance.board import known
from conformance.board.results import Run, Suite
from conformance.board.table import table

MISSING = 3


def main(suites: Mapping[str, Suite], asked: Sequence[str], folder: Path) -> int:
    """0 if nothing failed that is not known to; 3 where something was missing, and 1 where it was not."""
    chosen = [suites[name] for name in asked or suites]
    runs: list[Run] = []
    absent: list[str] = []
    for suite in chosen:
        reasons = suite.missing()
        absent += [f"{suite.name} needs {reason}" for reason in reasons]
        if not reasons:
            runs += _played(suite, folder)
    anchors = {row: text for suite in chosen for row, text in suite.anchors.items()}
    _write(_text(runs, anchors, chosen), runs, folder)
    return _tell(runs, absent)


def _played(suite: Suite, folder: Path) -> Iterator[Run]:
    for tool in suite.tools:
        tool.build()
    for way in suite.ways:
        began = time.monotonic()
        for run in suite.play(way, folder):
            took = time.monotonic() - began
            print(f"{run.row} ({way}): {run.passed}/{run.cases} in {took:.0f} s", flush=True)
            yield run
            began = time.monotonic()


def _text(runs: Sequence[Run], anchors: Mapping[str, str], suites: Sequence[Suite]) -> str:
    """The table, and on what day and with what it came to be."""
    tools = dict.fromkeys(str(tool) for suite in suites for tool in suite.tools)
    made_by = ", ".join([f"Python {platform.python_version()}", *tools])
    return f"{time.strftime('%Y-%m-%d')}: {made_by}\n\n{table(runs, anchors, known.read())}\n"


def _write(text: str, runs: Sequence[Run], folder: Path) -> None:
    print(f"\n{text}")
    (folder / "conformance.md").write_text(text)
    (folder / "conformance.json").write_text(json.dumps([_plain(run) for run in runs], indent=1))


def _tell(runs: Sequence[Run], absent: Sequence[str]) -> int:
    found = known.judge(runs, known.read())
    for title, lines in (
        ("failed, and not known to", found.unknown),
        (f"passed: take it out of {known.FILE.name}", [f"{k.row}: {k.case}" for k in found.cured]),
        ("not run", absent),
    ):
        for line in lines:
            print(f"{title}: {line}")
    if absent:
        return MISSING
    return 1 if found.unknown else 0


def _plain(run: Run) -> dict[str, object]:
    return {**vars(run), "way": str(run.way)}
