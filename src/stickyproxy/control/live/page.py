"""The live page: the same figures as HTML, whole for whoever comes, and in part for who watches.

One writer serves both: without JavaScript the page is a table that is as old as its last load; with it,
the part between the marks is sent anew each second and laid over what is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from stickyproxy.control.live import words
from stickyproxy.control.live.ask import Asked
from stickyproxy.control.live.drawing import HUES, colour
from stickyproxy.control.live.feed import Told
from stickyproxy.control.live.sample import troubled

_HERE = files("stickyproxy.control.live")
_STYLE = (_HERE / "page.css").read_text()
_SCRIPT = (_HERE / "page.js").read_text()

COLUMNS = (
    ("endpoint", ""),
    ("state", ""),
    ("sessions", "n"),
    ("calls/s", "n"),
    ("errors/s", "n"),
    ("p50 ms", "n"),
    ("p99 ms", "n"),
    ("streams", "n"),
    ("conns", "n"),
)


def page(told: Told, asked: Asked, answer: Sequence[str], nonce: str) -> str:
    """The whole document. `answer` are the lines that answer `asked`, none for no question."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<title>stickyproxy</title><link rel="icon" href="data:,">'
        f'<style nonce="{nonce}">{_STYLE}</style></head><body>'
        '<header><h1>stickyproxy</h1><p id="live" role="status">as of '
        f"{words.clock(told.account['at'])} UTC; reload for newer figures</p></header>"
        f'<main><div id="view">{view(told)}</div>{_form(asked, answer)}</main>'
        f'<script nonce="{nonce}">{_SCRIPT}</script></body></html>\n'
    )


def view(told: Told) -> str:
    """The part that changes."""
    parts = [_summary(told.account)]
    parts += [_cluster(number, one) for number, one in enumerate(told.account["clusters"])]
    if not told.account["clusters"]:
        parts.append("<p>No clusters: nothing is configured yet.</p>")
    return "".join(parts) + _ticker(told.changes)


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
        live = sum(one["state"] == "LIVE" for one in now["workers"])
        figures.append(("workers", f"{live} of {len(now['workers'])}", ""))
    cells = "".join(
        f'<div><dt>{name}</dt><dd data-k="s-{n}" class="{tone}">{escape(value)}</dd></div>'
        for n, (name, value, tone) in enumerate(figures)
    )
    return f'<dl class="sum">{cells}</dl>'


def _cluster(number: int, one: Mapping[str, Any]) -> str:
    name, rows = escape(one["name"]), one["endpoints"]
    title = f'<h2 id="c{number}">{name} <small>{escape(one["about"])}</small></h2>'
    problem = f'<p class="bad" role="alert">{escape(one["problem"])}</p>' if one["problem"] else ""
    more = f"<p>and {one['more']:,} more endpoints</p>" if one["more"] else ""
    head = "".join(f'<th scope="col" class="{kind}">{text}</th>' for text, kind in COLUMNS)
    body = "".join(_row(f"{number}-{n}", row) for n, row in enumerate(rows))
    return (
        f'<section aria-labelledby="c{number}">{title}{problem}{_drawn(number, one)}'
        f'<div class="wide" tabindex="0" role="region" aria-label="endpoints of {name}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
        f"<tfoot>{_foot(number, one)}</tfoot></table></div>{more}</section>"
    )


def _row(key: str, row: Mapping[str, Any]) -> str:
    place = escape(row["key"])
    named = f"{escape(row['pod'])} <small>{place}</small>" if row["pod"] else place
    tone, state = state_of(row)
    links = escape("\n".join(row["links"]))
    mark = "" if row["share"] is None else f'<i style="background:{colour(row["place"])}"></i>'
    cells = "".join(
        f'<td class="n" data-k="{key}-{n}">{text}</td>' for n, text in enumerate(words.figures(row))
    )
    return (
        f'<tr data-row="{place}"><th scope="row">{mark}{named}</th>'
        f'<td class="{tone}" data-k="{key}-s" title="{links}">{escape(state)}</td>{cells}</tr>'
    )


def state_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """`ok` or `bad`, and in words why; with what is said of connections that are not well."""
    said = [row["reason"]] if row["reason"] else []
    said += [f"connection {line}" for line in troubled(row)]
    return ("bad", "; ".join(said)) if said else ("ok", "healthy")


def _foot(number: int, one: Mapping[str, Any]) -> str:
    connections = sum(row["connections"] for row in one["endpoints"])
    whole = {**one, "share": None, "connections": connections}
    cells = "".join(
        f'<td class="n" data-k="{number}-f{n}">{text}</td>'
        for n, text in enumerate(words.figures(whole))
    )
    return (
        f'<tr><th scope="row">all {len(one["endpoints"]) + one["more"]}</th><td></td>{cells}</tr>'
    )


def _drawn(number: int, one: Mapping[str, Any]) -> str:
    """The table as a picture, which is asked for again only when it is another one."""
    if not one["picture"]:
        return ""
    text = escape(
        ", ".join(f"{r['key']} {words.share(r['share'])}" for r in one["endpoints"][:HUES])
    )
    return (
        f'<img data-k="i{number}" src="{escape(one["picture"])}" alt="shares of sessions: {text}">'
    )


def _ticker(changes: Sequence[tuple[float, str]]) -> str:
    if not changes:
        return "<section><h2>What changed</h2><p>Nothing since somebody looks.</p></section>"
    lines = "".join(
        f"<li><time>{words.clock(at)}</time> {escape(line)}</li>" for at, line in changes
    )
    return f'<section><h2>What changed</h2><ol class="log" role="log">{lines}</ol></section>'


def _form(asked: Asked, answer: Sequence[str]) -> str:
    fields = "".join(
        f'<label>{label} <input name="{name}" value="{escape(asked.one(name))}" '
        f'placeholder="{hint}" autocomplete="off"></label>'
        for name, label, hint in (
            ("path", "path", "/"),
            ("method", "or gRPC method", "pkg.Service/Method"),
            ("authority", "host", "localhost"),
            ("source_ip", "source address", "10.0.0.7"),
        )
    )
    headers = escape("\n".join(asked.headers))
    said = f'<pre id="answer" tabindex="-1">{escape(chr(10).join(answer))}</pre>' if answer else ""
    return (
        '<section><h2 id="ask">Why this pod?</h2><form method="get" action="#ask">'
        f'{fields}<label class="tall">headers, one a line<textarea name="header" rows="2" '
        f'placeholder="x-user-id: alice">{headers}</textarea></label>'
        f"<button>Ask</button></form>{said}</section>"
    )
