"""The section of docs/performance.md that the bench writes itself, between two marks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]

BEGIN = "<!-- bench: written by `./dev bench --write-docs` -->"
END = "<!-- /bench -->"


def section(result: Json) -> str:
    """Markdown: what was measured where, the picture, a table for each case."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    missing = f"; missing: {', '.join(result['missing'])}" if result["missing"] else ""
    parts = [
        BEGIN,
        "## Beside the peers",
        _where(result, versions + missing),
        _how(result),
        "![CPU per call beside the peers](bench.svg)",
        *(_case(case) for case in result["cases"]),
        "All samples are in [bench.json](bench.json).",
        END,
    ]
    return "\n\n".join(parts) + "\n"


def _where(result: Json, versions: str) -> str:
    here = result["machine"]
    command = f"./dev bench{' --quick' if result['quick'] else ''}"
    return (
        f"Measured on {result['when'][:10]} in one run of `{command}`: {versions}. "
        f"{here['cores']} cores, Linux {here['kernel']}, Python {here['python']}, load average "
        f"before it {here['load_before']:.1f}."
    )


def _how(result: Json) -> str:
    return (
        "Each proxy has one thread and the same job: consistent hashing on `x-user-id` over three "
        "backends, so a second core is left for load and backends. nghttpx has no hash of a header: "
        "it hashes the client's address. CPU is user and system time of the proxy's whole process "
        f"tree, read from /proc. A value is the median of {result['rounds']} alternating rounds, "
        "[least..most]; a ratio is the median of the ratios within each round. A round of ours in "
        "which log lines or metric totals differ from the calls is void."
    )


def _case(case: Json) -> str:
    head, *rows = case["table"]
    lines = [f"### {case['case']}", "", f"{case['title'][0].upper()}{case['title'][1:]}.", ""]
    lines += [_row(head), _row(["---"] * len(head)), *(_row(row) for row in rows)]
    void = [line for subject in case["subjects"] for line in subject["void"]]
    lines += ["", *(f"- void: {line}" for line in void)] if void else []
    lines += ["", *(f"- {note}" for note in case["notes"])] if case["notes"] else []
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def placed(page: str, fresh: str, marks: tuple[str, str] = (BEGIN, END)) -> str:
    """The page with its section replaced, or at its end if it has none yet."""
    first, last = marks
    before, begin, rest = page.partition(first)
    if not begin:
        return f"{page.rstrip()}\n\n{fresh}" if page.strip() else f"# Performance\n\n{fresh}"
    _, end, after = rest.partition(last)
    if not end:
        raise ValueError(f"the page has {first} but no {last}")
    return before + fresh.rstrip("\n") + after
