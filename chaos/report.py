"""Summaries and verdicts as tables: rows of cells, for the terminal and for pages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from chaos.goals import TITLES, Goal, Summaries, Verdict
from chaos.scenarios import GROUPS
from chaos.summary import LATER, Summary
from chaos.tails import Count

Cells = list[list[str]]

HEAD = [
    "",
    "p50",
    "p99 [runs]",
    "p99.9",
    *(f"> {limit} ms late" for limit in LATER),
    "failed",
    "failed or > 1 s",
    "attempts",
    "b1's calls that stay",
    "connections",
    "back after ms",
    "CPU s",
]
STICKY = ["last moved after ms", "others' calls moved"]
STREAMS = ["not told in 1 s"]


def ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def counted(found: Count) -> str:
    """`12 (0.10-0.35 %)`."""
    if not found.found:
        return f"0 (< {100 * found.most:.2g} %)"
    return f"{found.found:,} ({100 * found.least:.2g}-{100 * found.most:.2g} %)"


def scenarios(found: Summaries) -> list[str]:
    """Those measured, in the catalogue's order; others after them."""
    names = dict.fromkeys(scenario for scenario, _ in found)
    known = [name for name in GROUPS["all"] if name in names]
    return known + [name for name in names if name not in known]


def table(found: Summaries, scenario: str, peers: Sequence[str]) -> Cells:
    """A row for each peer, in that order; the head first."""
    rows = [found[scenario, peer] for peer in peers if (scenario, peer) in found]
    sticky = any(row.failover is not None or row.moved is not None for row in rows)
    streams = any(row.untold for row in rows)
    head = HEAD + STICKY * sticky + STREAMS * streams
    return [head, *(cells(row, sticky=sticky) for row in rows)]


def cells(row: Summary, *, sticky: bool) -> list[str]:
    runs = f" [{ms(min(row.p99s))}..{ms(max(row.p99s))}]" if row.runs > 1 else ""
    mark = " (d)" if row.disturbed else ""
    more = [_optional(row.failover), _share(row.moved)] if sticky else []
    more += [counted(row.untold)] if row.untold else []
    return [
        row.peer + mark,
        ms(row.p50),
        ms(row.p99) + runs,
        ms(row.p999),
        *(counted(row.later[limit]) for limit in LATER),
        str(row.failed.found),
        counted(row.outages),
        "-" if row.untold else f"{row.attempts:.3f}",  # streams that stay open are few
        f"{100 * row.stays:.0f} %",
        f"{row.opened:g}" + (f" [..{row.opened_most}]" if row.opened_most != row.opened else ""),
        _optional(row.back),
        f"{row.cpu:.1f}",
        *more,
    ]


def _optional(value: float | None) -> str:
    if value is None:
        return "-"
    return "never" if math.isinf(value) else f"{value:,.0f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def footnotes(found: Iterable[Summary]) -> list[str]:
    """Why runs do not count, how calls failed, and where the load was late."""
    notes = []
    for row in found:
        if row.endings:
            ends = ", ".join(f"{n} {status}" for status, n in sorted(row.endings.items()))
            notes.append(f"{row.peer}: failed with {ends}")
        if row.disturbed:
            notes.append(f"{row.peer} (d): in {row.disturbed} of {row.runs} runs the load was late")
        notes += [f"{row.peer}: void: {words}" for words in row.void]
    return notes


def goal_words(goal: Goal) -> str:
    bound = "≥" if goal.least else "≤"
    against = f" x {goal.against}'s" if goal.against else ""
    return (
        f"{TITLES[goal.figure]} {bound} {_figure(goal.figure, goal.limit, goal.against)}{against}"
    )


def _figure(figure: str, value: float, against: str) -> str:
    if figure in ("stays", "moved") and not against:
        return f"{100 * value:.1f} %".replace(".0 %", " %")
    if math.isinf(value):
        return "never" if figure == "back" else "∞"
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def goals(verdicts: Iterable[Verdict]) -> Cells:
    """Scenario, configuration, goal, reached, met or not."""
    rows = [["scenario", "", "goal", "reached", ""]]
    for one in verdicts:
        goal = one.goal
        known = one.reached is not None
        reached = (
            _figure(goal.figure, one.reached, goal.against) if one.reached is not None else "-"
        )
        said = ("met" if one.met else "**not met**") if known else "not measured"
        rows.append([goal.scenario, goal.ours, goal_words(goal), reached, said])
    return rows


def aligned(rows: Cells) -> list[str]:
    """Columns under one another, all to the left but for figures."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def markdown(rows: Cells) -> list[str]:
    head, *rest = rows
    lines = [head, ["---"] * len(head), *rest]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]
