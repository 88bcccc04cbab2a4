"""The picture of the case `tables`: a panel for each figure, a pair of bars for each number of hosts."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

from bench.picture import STYLE
from bench.tables import HOSTS, POLICIES, Setting

Json = dict[str, Any]

PANELS = (
    ("build_ms", "building a table, ms of CPU", 1),
    ("lookup_us", "a lookup, \N{MICRO SIGN}s of CPU", 2),
    ("kib", "size of a table, KiB", 0),
    ("most", "busiest host, times the mean share", 2),
    ("left", "one host leaves: % of the others' keys that move", 2),
    ("joined", "one host joins: % of the others' keys that move", 2),
)
ACROSS = 2
PANEL, TALL, GAP = 360, 110, 62  # pixels: a panel's width, its bars' height, room for its words
TOP = 84
BAR = 34
COLOURS = dict(zip(POLICIES, ("#d9480f", "#1c7ed6"), strict=True))


def draw(case: Json) -> str:
    """The whole SVG file, light or dark as its reader's screen is."""
    medians = {
        s["name"]: {k: f["median"] for k, f in s["figures"].items()} for s in case["subjects"]
    }
    title = "Ring hash against Maglev, by number of hosts"
    body = [_text(10, 20, title, "c"), *_legend()]
    for at, (key, words, digits) in enumerate(PANELS):
        left, top = 20 + at % ACROSS * (PANEL + 20), TOP + at // ACROSS * (TALL + GAP)
        body.append(_text(left, top - 14, words, "c"))
        body += _panel(medians, key, digits, left, top)
    width = 20 + ACROSS * (PANEL + 20)
    height = TOP + -(-len(PANELS) // ACROSS) * (TALL + GAP) - 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title)}">\n<style>{STYLE}</style>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _panel(
    medians: dict[str, dict[str, float]], key: str, digits: int, left: float, top: float
) -> list[str]:
    largest = max(figures[key] for figures in medians.values()) or 1.0
    floor = top + TALL
    parts = [f'<line class="g" x1="{left}" x2="{left + PANEL}" y1="{floor}" y2="{floor}"/>']
    for group, hosts in enumerate(HOSTS):
        x = left + 6 + group * PANEL / len(HOSTS)
        for number, policy in enumerate(POLICIES):
            value = medians[Setting(policy, hosts).title][key]
            height = (TALL - 14) * value / largest
            at = x + number * (BAR + 3)
            parts.append(
                f'<rect x="{at:.1f}" y="{floor - height:.1f}" width="{BAR}" height="{height:.1f}" '
                f'fill="{COLOURS[policy]}"/>'
            )
            parts.append(_text(at + 2, floor - height - 3, _short(value, digits), "v"))
        parts.append(_text(x + BAR - 12, floor + 15, f"{hosts:,}", "v"))
    return parts


def _short(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if value else "0"


def _legend() -> list[str]:
    parts = []
    for at, (policy, colour) in enumerate(COLOURS.items()):
        parts.append(
            f'<rect x="{10 + at * 110}" y="32" width="10" height="10" fill="{colour}"/>'
            + _text(24 + at * 110, 41, policy, "v")
        )
    return parts


def _text(x: float, y: float, words: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'
