"""What was measured, as a table for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.cases import Case, Figure, Sample
from bench.figures import Spread, paired_ratio, spread
from bench.peers import ENVOY, OURS
from bench.scene import DIRECT

Key = tuple[str, bool]
"""A proxy's name, and whether it logged."""

Groups = Mapping[Key, Sequence[Sample]]


def by_subject(samples: Sequence[Sample]) -> dict[Key, list[Sample]]:
    """Those that log first; within them in the order of their first block, the backends last."""
    found: dict[Key, list[Sample]] = {}
    names = list(dict.fromkeys(s.name for s in sorted(samples, key=lambda s: s.round)))
    names.sort(key=lambda name: (name != OURS, name == DIRECT))
    for sample in sorted(samples, key=lambda s: (not s.log, names.index(s.name), s.round)):
        found.setdefault((sample.name, sample.log), []).append(sample)
    return found


def values(samples: Sequence[Sample], figure: str) -> dict[int, float]:
    """By round, of the rounds that count."""
    return {s.round: s.figures[figure] for s in samples if not s.void and figure in s.figures}


def ratio(groups: Groups, key: Key, figure: str) -> Spread | None:
    """To Envoy's with the same log, round by round."""
    theirs = groups.get((ENVOY, key[1]))
    if not theirs or key[0] in (ENVOY, DIRECT):
        return None
    return paired_ratio(values(groups[key], figure), values(theirs, figure))


def table(case: Case, samples: Sequence[Sample]) -> str:
    """Aligned columns: median [least..most] of each figure, and ratios to Envoy where compared."""
    return "\n".join(
        [f"{case.name}: {case.title}", *aligned(cells(case, samples)), *_voids(samples)]
    )


def cells(case: Case, samples: Sequence[Sample]) -> list[list[str]]:
    """The table's text, its first row the titles."""
    groups = by_subject(samples)
    titles = ["", *([] if case.pure else ["log"])]
    for figure in case.figures:
        titles += [figure.title] + ["x Envoy"] * figure.compared
    rows = [titles]
    for key, group in groups.items():
        row = [key[0], *([] if case.pure else ["on" if key[1] else "off"])]
        ours = key[0] == OURS or case.pure is not None
        for figure in case.figures:
            row.append(_value(figure, values(group, figure.key), ours=ours))
            row += [_against(figure, groups, key)] * figure.compared
        rows.append(row)
    return rows


def _value(figure: Figure, found: Mapping[int, float], *, ours: bool) -> str:
    if not found:
        return "-"
    s = spread(list(found.values()))
    d = figure.digits
    goal = f" (goal {figure.limit:g})" if figure.limit and ours else ""
    least, most = f"{s.least:,.{d}f}", f"{s.most:,.{d}f}"
    return f"{s.median:,.{d}f}{f' [{least}..{most}]' if least != most else ''}{goal}"


def _against(figure: Figure, groups: Groups, key: Key) -> str:
    found = ratio(groups, key, figure.key)
    if not found:
        return ""
    goal = f" (goal {figure.goal:g})" if figure.goal and key[0] == OURS else ""
    return f"{found.median:.2f} [{found.least:.2f}..{found.most:.2f}]{goal}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Names to the left, all else to the right."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = []
    for row in rows:
        padded = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        padded[0] = row[0].ljust(widths[0])
        lines.append(("  " + "  ".join(padded)).rstrip())
    return lines


def voids(samples: Sequence[Sample]) -> list[str]:
    """The blocks that do not count, and why."""
    return [
        f"{s.name}, log {'on' if s.log else 'off'}, "
        f"{f'round {s.round + 1}' if s.round >= 0 else 'left out'}: {s.void}"
        for s in samples
        if s.void
    ]


def _voids(samples: Sequence[Sample]) -> list[str]:
    return [f"  void: {line}" for line in voids(samples)]


def as_json(case: Case, samples: Sequence[Sample], notes: Sequence[str]) -> dict[str, Any]:
    groups = by_subject(samples)
    subjects = [
        {
            "name": key[0],
            "log": key[1],
            "figures": {
                figure.key: _figure(groups, key, figure.key)
                for figure in case.figures
                if values(group, figure.key)
            },
            "void": voids(group),
        }
        for key, group in groups.items()
    ]
    return {
        "case": case.name,
        "title": case.title,
        "pure": case.pure is not None,
        "notes": list(notes),
        "first": {"key": case.figures[0].key, "title": case.figures[0].title},
        "subjects": subjects,
        "table": cells(case, samples),
    }


def _figure(groups: Groups, key: Key, figure: str) -> dict[str, Any]:
    found = list(values(groups[key], figure).values())
    s = spread(found)
    entry: dict[str, Any] = {"median": s.median, "least": s.least, "most": s.most, "rounds": found}
    if against := ratio(groups, key, figure):
        entry["times_envoy"] = against.median
    return entry
