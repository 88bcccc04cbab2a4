"""The live page: the same figures as HTML, whole for whoever comes, and in part for who watches.

One writer serves both: without JavaScript the page is a table that is as old as its last load; with it,
the parts between the marks are sent anew each second and laid over what is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from stickyproxy.control.live import words
from stickyproxy.control.live.ask import Asked
from stickyproxy.control.live.feed import EVERY, WINDOW, Told
from stickyproxy.control.live.page_clusters import cluster

_HERE = files("stickyproxy.control.live")
_STYLE = (_HERE / "page.css").read_text()
_SCRIPT = (_HERE / "page.js").read_text()

MOST_TROUBLES = 12
"""Lines of trouble at the top: who has more has one trouble, not many."""
NAMED = 3
"""Endpoints with the same trouble that are named there; the others are in the table."""


def page(shown: str, told: Told, asked: Asked, answer: Sequence[str], nonce: str) -> str:
    """The whole document around `shown`, which is the `view` of `told`.

    `answer` are the lines that answer `asked`, none for no question.
    """
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<title>stickyproxy</title><link rel="icon" href="data:,">'
        f'<style nonce="{nonce}">{_STYLE}</style></head><body>'
        '<header><h1>stickyproxy</h1><p id="live" role="status">as of '
        f"{words.clock(told.account['at'])} UTC; reload for newer figures</p></header>"
        f"<main>{shown}{_form(asked, answer)}</main>"
        f'<script nonce="{nonce}">{_SCRIPT}</script></body></html>\n'
    )


def view(told: Told) -> str:
    """The parts that change, each an element with an id."""
    clusters = "".join(cluster(number, one) for number, one in enumerate(told.account["clusters"]))
    window = (
        f'<p class="note">Rates and times are of the last {WINDOW * EVERY:.0f} seconds; '
        "p50 and p99 are until an answer begins.</p>"
    )
    return (
        f'<div id="now">{_summary(told.account)}{_verdict(told.account)}</div>'
        f'<div id="clusters">{clusters}{window * bool(clusters)}</div>'
        f'<section id="log" aria-labelledby="changed">{_ticker(told.changes)}</section>'
    )


def _summary(now: Mapping[str, Any]) -> str:
    figures = [
        ("state", now["state"], "ok" if now["state"] == "LIVE" else "bad"),
        ("calls/s", words.rate(now["rate"]), ""),
        ("streams", f"{now['streams']:,}", ""),
        ("clients", f"{now['connections']:,}", ""),
        ("CPU", f"{100 * now['cpu']:.0f} %", ""),
        ("memory", words.size(now["memory"]), ""),
        ("Snapshot", str(now["snapshot"]), ""),
        ("up", words.duration(now["uptime"]), ""),
    ]
    if now["workers"]:
        live = words.live_workers(now)
        tone = "bad" if live < len(now["workers"]) else ""
        figures.append(("workers", f"{live} of {len(now['workers'])}", tone))
    cells = "".join(
        f'<div><dt>{name}</dt><dd class="{tone}">{escape(value)}</dd></div>'
        for name, value, tone in figures
    )
    return f'<dl class="sum">{cells}</dl>'


# --- who is in trouble ----------------------------------------------------------------------------


def _verdict(now: Mapping[str, Any]) -> str:
    clusters = now["clusters"]
    if not clusters:
        return '<p class="verdict">No clusters: nothing is configured yet.</p>'
    whole = sum(one["count"] for one in clusters)
    unwell = sum(one["unwell"] for one in clusters)
    lines = [line for n, one in enumerate(clusters) for line in _troubles(n, one)]
    if not lines:
        well = f"All {whole:,} endpoints are well." if whole > 1 else "The endpoint is well."
        return f'<p class="verdict ok" role="status">{well}</p>'
    are = "is" if unwell == 1 else "are"
    said = (
        f"{unwell:,} of {whole:,} endpoints {are} not well." if unwell else "A cluster is not well."
    )
    more = len(lines) - MOST_TROUBLES
    rest = f"<li>and {more:,} more</li>" if more > 0 else ""
    return (
        f'<div class="verdict bad"><p role="status">{said}</p>'
        f"<ul>{''.join(lines[:MOST_TROUBLES])}{rest}</ul></div>"
    )


def _troubles(number: int, one: Mapping[str, Any]) -> list[str]:
    """A line for the cluster itself, and one for all of its endpoints that have the same trouble."""
    name = f'<a href="#c{number}">{escape(one["name"])}</a>'
    problem = words.problem_of(one)
    lines = [f"<li>{name}: {escape(problem)}</li>"] if problem else []
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for row in one["endpoints"][: one["unwell"]]:
        alike.setdefault(words.state_of(row)[1], []).append(row)
    return lines + [f"<li>{name}: {_trouble(state, rows)}</li>" for state, rows in alike.items()]


def _trouble(state: str, rows: Sequence[Mapping[str, Any]]) -> str:
    share = sum(row["share"] or 0.0 for row in rows)
    held = f"<small>, home of {words.share(share)} of its sessions</small>" if share else ""
    named = ", ".join(f"<b>{escape(row['pod'] or row['key'])}</b>" for row in rows[:NAMED])
    more = f" and {len(rows) - NAMED:,} more" if len(rows) > NAMED else ""
    return f"{named}{more} {escape(state)}{held}"


# --- what changed, and the box to ask -------------------------------------------------------------


def _ticker(changes: Sequence[tuple[float, str]]) -> str:
    lines = "".join(
        f'<li data-key="{at}{escape(line[:40])}"><time>{words.clock(at)}</time> '
        f"<span>{escape(line)}</span></li>"
        for at, line in changes
    )
    none = "" if changes else "<p>Nothing yet. It is noted while somebody looks.</p>"
    return (
        '<h2 id="changed">What changed <small>UTC</small></h2>'
        '<div class="log" role="log" aria-relevant="additions" aria-labelledby="changed" '
        f'tabindex="0">{none or f"<ol>{lines}</ol>"}</div>'
    )


def _form(asked: Asked, answer: Sequence[str]) -> str:
    fields = "".join(
        f'<label>{label} <input name="{name}" value="{escape(asked.one(name))}" '
        f'placeholder="{hint}" autocomplete="off" spellcheck="false"></label>'
        for name, label, hint in (
            ("path", "path", "/"),
            ("method", "or gRPC method", "pkg.Service/Method"),
            ("authority", "host", "localhost"),
            ("source_ip", "source address", "10.0.0.7"),
        )
    )
    headers = escape("\n".join(asked.headers))
    said = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in map(_cut, answer)
    )
    shown = f'<dl id="answer" tabindex="-1" aria-label="answer">{said}</dl>' if answer else ""
    return (
        '<section id="ask" aria-labelledby="why"><h2 id="why">Why this pod?</h2>'
        f'<form method="get" action="#ask">{fields}<label class="tall">headers, one a line'
        '<textarea name="header" rows="2" spellcheck="false" placeholder="x-user-id: alice">'
        f"{headers}</textarea></label><button>Ask</button></form>{shown}</section>"
    )


def _cut(line: str) -> tuple[str, str]:
    name, _, value = line.partition(" ")
    return name, value.strip()
