"""The section of docs/performance.md on the two tables, written by the bench between two marks."""

from __future__ import annotations

from typing import Any

from bench.tables import LEAVERS, SETTINGS

Json = dict[str, Any]

BEGIN = "<!-- tables: written by `./dev bench --case tables --write-docs` -->"
END = "<!-- /tables -->"

HEAD = (
    "| hosts | policy | build, ms | KiB | lookup, \N{MICRO SIGN}s | busiest / mean | idlest / mean "
    "| others' keys that move: one leaves | one is walked past | one joins |\n"
    "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def section(case: Json, when: str) -> str:
    figures = {subject["name"]: subject["figures"] for subject in case["subjects"]}
    rows = [_row(setting.hosts, setting.policy, figures[setting.title]) for setting in SETTINGS]
    rounds = len(figures[SETTINGS[0].title]["left"]["rounds"])
    words = WORDS.format(rounds=rounds, leavers=LEAVERS, day=when[:10])
    return "\n".join([BEGIN, words, HEAD, *rows, END]) + "\n"


def _row(hosts: int, policy: str, found: Json) -> str:
    cells = [
        f"{hosts:,}",
        f"`{policy}`",
        _cell(found["build_ms"], 1),
        _cell(found["kib"], 0),
        _cell(found["lookup_us"], 2),
        _cell(found["most"], 2),
        _cell(found["least"], 2),
        *(_cell(found[key], 2, "%") for key in ("left", "walked", "joined")),
    ]
    return f"| {' | '.join(cells)} |"


def _cell(figure: Json, digits: int, unit: str = "") -> str:
    median, least, most = (f"{figure[k]:,.{digits}f}" for k in ("median", "least", "most"))
    if figure["most"] == 0:
        return f"0{unit}"
    return f"{median}{unit}" if least == most else f"{median}{unit} ({least} to {most})"


WORDS = """\
## Ring hash or Maglev

What a table costs, how even it is, and how many sessions move when hosts change: medians of {rounds}
rounds (least to most) with hosts of other names in each, {day}. Shares are counted over whole
tables, not sampled. The columns on moves are keys of *other* hosts, of all keys of other hosts: what
cannot be helped, the keys of a host that left and those that a new one gets, is not in them. They
are means over {leavers} hosts that leave or join in turn (of three, each once).

![Ring hash against Maglev](images/tables.svg)
"""
