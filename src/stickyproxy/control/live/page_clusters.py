"""One cluster on the live page: its picture, its endpoints, its connections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from html import escape
from typing import Any

from stickyproxy.control.live import words
from stickyproxy.control.live.drawing import HUES, colour

COLUMNS = ("sessions", "calls/s", "errors/s", "p50 ms", "p99 ms", "streams", "conns")
ERRORS = 2
"""The column that is marked when it is not 0."""


def cluster(number: int, one: Mapping[str, Any]) -> str:
    problem = f'<p class="bad">{escape(one["problem"])}</p>' if one["problem"] else ""
    more = f'<p class="note">and {one["more"]:,} more endpoints</p>' if one["more"] else ""
    return (
        f'<section data-key="{escape(one["name"])}" aria-labelledby="c{number}">'
        f"{_picture(one)}{_table(number, one)}{problem}{more}{_connections(one)}</section>"
    )


def _table(number: int, one: Mapping[str, Any]) -> str:
    name = escape(one["name"])
    head = "".join(f'<th scope="col">{text}</th>' for text in COLUMNS)
    body = "".join(_row(row) for row in one["endpoints"])
    foot = _foot(one) if len(one["endpoints"]) > 1 else ""
    return (
        f'<table><caption><h2 id="c{number}">{name} <small>{escape(one["about"])}</small></h2>'
        '</caption><thead><tr><th scope="col"><span>endpoint</span></th>'
        f'<th scope="col"><span>state</span></th>{head}</tr></thead>'
        f"<tbody>{body or _NOBODY}</tbody>{foot}</table>"
    )


_NOBODY = f'<tr class="bad"><td colspan="{2 + len(COLUMNS)}">no endpoints</td></tr>'


def _row(row: Mapping[str, Any]) -> str:
    place = escape(row["key"])
    named = f"{escape(row['pod'])} <small>{place}</small>" if row["pod"] else place
    tone, state = words.state_of(row)
    mark = "" if row["share"] is None else f'<i style="background:{colour(row["place"])}"></i>'
    return (
        f'<tr data-key="{place}" class="{tone}"><th scope="row">{mark}{named}</th>'
        f"<td>{escape(state)}</td>{_figures(row)}</tr>"
    )


def _figures(row: Mapping[str, Any]) -> str:
    marked = ' class="bad"' if row["errors"] else ""
    return "".join(
        f"<td{marked if n == ERRORS else ''}>{text}</td>"
        for n, text in enumerate(words.figures(row))
    )


def _foot(one: Mapping[str, Any]) -> str:
    head = f'<th scope="row">all {one["count"]:,}</th>'
    return f"<tfoot><tr>{head}<td></td>{_figures(one)}</tr></tfoot>"


def _picture(one: Mapping[str, Any]) -> str:
    """The table, asked for again only when it is another one; by itself it is larger."""
    if not one["picture"]:
        return ""
    said = ", ".join(f"{r['key']} {words.share(r['share'])}" for r in one["endpoints"][:HUES])
    source = escape(one["picture"])
    return (
        f'<a class="drawn" href="{source}"><img src="{source}" '
        f'alt="shares of sessions: {escape(said)}"></a>'
    )


def _connections(one: Mapping[str, Any]) -> str:
    """Each with its health; shut until somebody wants to know."""
    rows = [row for row in one["endpoints"] if row["links"]]
    states = Counter(line.partition(",")[0] for row in rows for line in row["links"])
    said = ", ".join(f"{count:,} {state}" for state, count in states.items())
    lines = "".join(
        f'<li data-key="{escape(row["key"])}"><b>{escape(row["key"])}</b> '
        f"<span>{escape('; '.join(row['links']))}</span></li>"
        for row in rows
    )
    if not rows:
        return ""
    return f"<details><summary>connections: {escape(said)}</summary><ul>{lines}</ul></details>"
