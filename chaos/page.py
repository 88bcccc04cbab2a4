"""The section of docs/resilience.md that the lab writes itself, between two marks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chaos import report
from chaos.goals import Summaries, verdicts
from chaos.scenarios import Pace, scenario

Json = dict[str, Any]

MARKS = ("<!-- chaos: written by `./dev chaos --write-docs` -->", "<!-- /chaos -->")
PICTURE = "images/dead-connection.svg"


def section(found: Summaries, run: Json, peers: Sequence[str], *, picture: bool) -> str:
    """Markdown: where and when, the goals, the picture, a table for each scenario."""
    shown = [f"![Latency across a dead connection]({PICTURE})"] if picture else []
    reached = report.goals(verdicts(found))
    goals = ["### Against the goals", "\n".join(report.markdown(reached))] if reached[1:] else []
    parts = [MARKS[0], "## Figures", _where(run, found), *shown, *goals]
    parts += [_scenario(found, name, peers) for name in report.scenarios(found)]
    return "\n\n".join([*parts, MARKS[1]]) + "\n"


def _where(run: Json, found: Summaries) -> str:
    here = run["machine"]
    versions = ", ".join(f"{name} {said}" for name, said in run["versions"].items())
    missing = f" Missing: {', '.join(run['missing'])}." if run["missing"] else ""
    quick = " (`--quick`)" if run["quick"] else ""
    labs = "one lab" if run["jobs"] == 1 else f"{run['jobs']} labs side by side"
    return (
        f"Measured on {run['when'][:10]}{quick}: {versions}. {here['cores']} cores, Linux "
        f"{here['kernel']}, Python {here['python']}, {labs}, {_how_often(found)}, "
        f"congestion control reno.{missing}"
    )


def _how_often(found: Summaries) -> str:
    runs = [one.runs for one in found.values()]
    fewest, most = min(runs), max(runs)
    if most == 1:
        return "one run a case"
    number = str(most) if fewest == most else f"{fewest} to {most}"
    return f"{number} interleaved runs a case"


def _scenario(found: Summaries, name: str, peers: Sequence[str]) -> str:
    rows = report.table(found, name, peers)
    notes = report.footnotes(found[name, peer] for peer in peers if (name, peer) in found)
    title = scenario(name, Pace()).title
    lines = [f"### {name}", "", f"{title[0].upper()}{title[1:]}.", "", *report.markdown(rows)]
    return "\n".join([*lines, *([""] if notes else []), *(f"- {note}" for note in notes)])
