"""What `top` draws: one account on a screen of so many columns and lines.

What does not fit is folded, the well first: clusters where all is well become one line each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Any, NamedTuple

from rich.console import Group
from rich.text import Text

from stickyproxy.control.live import words

_HEADS = ("  sess", "calls/s", " err/s", "p50 ms", "p99 ms", "strms", "conns")
FIGURES = tuple((name.strip(), len(name)) for name in _HEADS)
"""Headings and widths of `words.figures`, each with a space before it."""
TAKEN = sum(width + 1 for _, width in FIGURES)
NAME = len("255.255.255.255:65535") + 1
"""Columns of the name, at least: an address with its indent."""
STATE = 30
"""Columns of the state beside the figures; on a narrower screen a reason stands below its endpoint."""
LINES = 8
"""Of what changed."""

Row = Mapping[str, Any]


class Size(NamedTuple):
    """Of the screen; `lines` None has no end. `longest` of all names, with its indent."""

    columns: int
    lines: int | None = None
    longest: int = NAME

    @property
    def wide(self) -> bool:
        return self.columns >= NAME + TAKEN + STATE

    @property
    def name(self) -> int:
        """On a narrow screen all but a word for the state."""
        rest = self.columns - TAKEN
        most = rest - STATE if self.wide else rest - len(" healthy")
        return max(NAME, min(self.longest, most))


def screen(account: Row, size: Size) -> Group:
    """Everything of one account, line by line."""
    longest = max(
        (len(_name(row)) for one in account["clusters"] for row in one["endpoints"]), default=0
    )
    size = size._replace(longest=longest + 2)
    head = [_summary(account, size), _verdict(account), _headings(size)]
    body = [list(_cluster(one, size)) for one in account["clusters"]]
    changed = _changes(account["changes"])
    if size.lines is not None:
        changed = changed[: max(size.lines // 4, 3)]
        room = size.lines - len(head) - len(changed)
        body = _fitting(account["clusters"], body, size, room)
    lines = [*head, *(line for lines in body for line in lines), *changed]
    for line in lines:
        line.truncate(size.columns, overflow="ellipsis")
    return Group(*lines)


def _fitting(
    clusters: Sequence[Row], body: list[list[Text]], size: Size, room: int
) -> list[list[Text]]:
    """Folded as far as it has to be; at the end what is well is only counted."""
    if sum(map(len, body)) <= room:
        return body
    folded = [list(_folded(one, size)) for one in clusters]
    order = sorted(range(len(clusters)), key=lambda n: not _unwell(clusters[n]))
    if sum(map(len, folded)) <= room:
        return _unfolded(order, body, folded, room)
    whole = [line for n in order for line in folded[n]]
    more = Text(f"and {len(whole) - room + 1} more lines: a higher window shows them", style="dim")
    return [whole[: max(room - 1, 0)], [more]]


def _unfolded(
    order: Sequence[int], body: list[list[Text]], folded: list[list[Text]], room: int
) -> list[list[Text]]:
    """Those in trouble first have all their endpoints again, as far as there is room."""
    room -= sum(map(len, folded))
    for n in order:
        more = len(body[n]) - len(folded[n])
        if more <= room:
            room -= more
            folded[n] = body[n]
    return folded


# --- lines ----------------------------------------------------------------------------------------


def _summary(now: Row, size: Size) -> Text:
    line = Text.assemble(("stickyproxy ", "bold"), (now["state"], _tone(now["state"] == "LIVE")))
    for said in _figures(now):
        if len(line) + 2 + len(said) <= size.columns:
            line.append(f"  {said}")
    return line


def _figures(now: Row) -> Iterator[str]:
    """The most wanted first; who has no room for one may have it for the next."""
    yield f"{words.rate(now['rate'])} calls/s"
    if now["workers"]:
        yield f"workers {words.live_workers(now)} of {len(now['workers'])}"
    yield f"{now['streams']:,} streams"
    yield f"{now['connections']:,} clients"
    yield f"CPU {100 * now['cpu']:.0f} %"
    yield words.size(now["memory"])
    yield f"up {words.duration(now['uptime'])}"
    yield f"Snapshot {now['snapshot']}"


def _verdict(now: Row) -> Text:
    clusters = now["clusters"]
    whole = sum(one["count"] for one in clusters)
    unwell = sum(one["unwell"] for one in clusters)
    if not clusters:
        return Text("no clusters: nothing is configured yet", style="bold")
    if unwell:
        return Text(f"{unwell:,} of {whole:,} endpoints not well", style=_tone(False))
    if any(map(_unwell, clusters)):
        return Text("something is wrong with a cluster", style=_tone(False))
    return Text(f"all {whole:,} endpoints are well", style=_tone(True))


def _headings(size: Size) -> Text:
    heads = "".join(f" {name:>{width}}" for name, width in FIGURES)
    return Text(f"{'':{size.name}}{heads} state", style="dim")


def _cluster(one: Row, size: Size) -> Iterator[Text]:
    yield Text.assemble((one["name"], "bold"), " ", (one["about"], "dim"))
    yield from _problem(one, size)
    for row in one["endpoints"]:
        yield from _endpoint(row, size)
    if one["more"]:
        yield Text(f" and {one['more']:,} more", style="dim")


def _folded(one: Row, size: Size) -> Iterator[Text]:
    """The whole in one line, and who is in trouble."""
    count, unwell = one["count"], one["unwell"]
    state = f"{count - unwell:,}/{count:,} ok" if unwell else f"{count:,} ok"
    yield _line(one["name"], one, state, size, "bold")
    yield from _problem(one, size)
    for row in one["endpoints"][:unwell]:
        yield from _endpoint(row, size)


def _problem(one: Row, size: Size) -> Iterator[Text]:
    if said := words.problem_of(one):
        yield from _wrapped(f" {said}", size)


def _endpoint(row: Row, size: Size) -> Iterator[Text]:
    tone, state = words.state_of(row)
    name = _name(row)
    if len(name) >= size.name and row["pod"]:
        name = row["pod"]
    well = tone == "ok"
    below = not (well or size.wide)
    style = "" if well else _tone(False)
    yield _line(f" {name}", row, "unwell:" if below else state, size, style)
    if below:
        yield from _wrapped(f"   {state}", size)


def _wrapped(said: str, size: Size) -> Iterator[Text]:
    indent = " " * (len(said) - len(said.lstrip()))
    for line in wrap(said, size.columns, subsequent_indent=indent):
        yield Text(line, style=_tone(False))


def _line(name: str, row: Row, state: str, size: Size, style: str) -> Text:
    figures = zip(words.figures(row), FIGURES, strict=True)
    said = "".join(f" {text:>{width}}" for text, (_, width) in figures)
    return Text.assemble((f"{_cut(name, size.name):{size.name}}{said} {state}", style))


def _name(row: Row) -> str:
    return f"{row['pod']} {row['key']}" if row["pod"] else str(row["key"])


def _cut(name: str, columns: int) -> str:
    """In the middle: pods of one service begin alike, and a port is at the end."""
    over = len(name) - columns
    return (
        name
        if over <= 0
        else f"{name[: columns // 2 - 1]}..{name[-(columns - columns // 2 - 1) :]}"
    )


def _changes(changes: Sequence[Sequence[Any]]) -> list[Text]:
    lines = [Text(f"{words.clock(at)} {line}", style="dim") for at, line in changes[:LINES]]
    return [Text("what changed (UTC)", style="bold"), *lines] if lines else []


def _unwell(one: Row) -> bool:
    return bool(one["unwell"] or words.problem_of(one))


def _tone(well: bool) -> str:
    return "bold green" if well else "bold red"
