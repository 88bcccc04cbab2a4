"""The picture of a run: for each case, what each proxy needs, as multiples of Envoy's.

An SVG written by hand, light or dark as its reader's screen is. Only blocks with the access log on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from bench.peers import ENVOY, OURS

Json = dict[str, Any]

WIDTH = 760
LEFT = 190  # where bars begin: room for a case's name
RIGHT = 150  # room for a value after the longest bar
BAR = 11
GAP = 13  # between two cases
MOST = 4.0  # times Envoy's: a longer bar is cut, its value says how long it is

COLOURS = {
    OURS: "#d9480f",
    ENVOY: "#7048e8",
    "nghttpx": "#868e96",
    "haproxy": "#1c7ed6",
    "nginx": "#2b8a3e",
}
OTHER = "#e8a33d"  # rivals
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1f2328}.c{font-weight:600}.v{font-size:10px}"
    ".g{stroke:#1f2328;stroke-opacity:.35;stroke-dasharray:3 3}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.g{stroke:#e6edf3}}"
)


@dataclass(frozen=True, slots=True)
class Bar:
    """`times` is to Envoy's; `label` says the value itself."""

    name: str
    times: float
    label: str


@dataclass(frozen=True, slots=True)
class Group:
    """One case: its name, the unit of its values, a bar for each proxy."""

    case: str
    unit: str
    bars: list[Bar]


def groups(result: Json) -> list[Group]:
    """The first figure of every case in which Envoy was measured too."""
    found = []
    for case in result["cases"]:
        key = case["first"]["key"]
        figures = {
            s["name"]: s["figures"][key]
            for s in case["subjects"]
            if s["log"] and key in s["figures"]
        }
        if ENVOY in figures:
            bars = [
                Bar(name, figure.get("times_envoy", 1.0), _short(figure["median"]))
                for name, figure in figures.items()
                if name == ENVOY or "times_envoy" in figure
            ]
            found.append(Group(case["case"], case["first"]["title"], bars))
    return found


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def draw(result: Json) -> str:
    """The whole file. Without a case that Envoy took part in it is empty but for its legend."""
    all_groups = groups(result)
    names = list(dict.fromkeys(_who(bar.name)[0] for group in all_groups for bar in group.bars))
    body, y = [], 62
    for group in all_groups:
        body.append(_text(10, y + 10, group.case, "c"))
        body.append(_text(10, y + 24, group.unit, "v"))
        for at, bar in enumerate(group.bars):
            body += _bar(y + at * BAR, bar)
        y += max(len(group.bars) * BAR, 28) + GAP
    one = LEFT + _length(1.0)
    body.append(f'<line class="g" x1="{one:.1f}" x2="{one:.1f}" y1="52" y2="{y}"/>')
    title = "What a call costs, as multiples of Envoy's (shorter is cheaper)"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 8}" role="img" '
        f'aria-label="{escape(title, {chr(34): "&quot;"})}">\n<style>{STYLE}</style>\n'
        + "\n".join([_text(10, 20, title, "c"), *_legend(names, result["versions"]), *body])
        + "\n</svg>\n"
    )


def _who(name: str) -> tuple[str, str]:
    """A proxy, and how many workers or threads it has when that is what the case is about."""
    who, times, number = name.rpartition(" x")
    return (who, f"x{number}") if times and number.isdecimal() else (name, "")


def _length(times: float) -> float:
    return (WIDTH - LEFT - RIGHT) * min(times, MOST) / MOST


def _bar(y: float, bar: Bar) -> list[str]:
    length = max(1.0, _length(bar.times))
    more = " →" if bar.times > MOST else ""
    who, workers = _who(bar.name)
    colour = COLOURS.get(who, OTHER)
    more += f", {workers}" if workers else ""
    return [
        f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR - 2}" fill="{colour}"/>',
        _text(LEFT + length + 5, y + 8.5, f"{bar.label}  ({bar.times:.2f}x){more}", "v"),
    ]


def _legend(names: Sequence[str], versions: dict[str, str]) -> list[str]:
    drawn, x = [], 10.0
    for name in names:
        words = f"{name} {versions.get(name, '')}".strip()
        drawn.append(
            f'<rect x="{x:.0f}" y="32" width="10" height="10" fill="{COLOURS.get(name, OTHER)}"/>'
        )
        drawn.append(_text(x + 14, 41, words, "v"))
        x += 32 + 6 * len(words)
    return drawn


def _text(x: float, y: float, words: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'
