"""`top`: the live page in a terminal, over the same feed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import trio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from stickyproxy.config.text.addresses import show_bind
from stickyproxy.control.admin.client import Lost, feed
from stickyproxy.control.live import words
from stickyproxy.control.live.words import state_of
from stickyproxy.model import Bind

RETRY = 2.0
"""Seconds until a proxy that does not answer is asked again."""
LINES = 8
"""Of what changed."""
ADDRESS = len("255.255.255.255:65535")
"""Columns that the endpoint keeps at least, however wide the figures beside it grow."""


def top(admin: Bind, *, once: bool, console: Console | None = None) -> str | None:
    """Until interrupted; with `once` one look. Returns what went wrong, or None."""
    console = console or Console()
    try:
        return trio.run(_once, admin, console) if once else trio.run(_watch, admin, console)
    except KeyboardInterrupt:
        return None


async def _once(admin: Bind, console: Console) -> str | None:
    problem = None
    try:
        async with feed(admin) as accounts:
            account = await anext(accounts)
            console.print(screen(account))
    except* Lost as group:
        problem = _lost(admin, group)
    return problem


async def _watch(admin: Bind, console: Console) -> None:
    with Live(Text("connecting ..."), console=console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                async with feed(admin) as accounts:
                    async for account in accounts:
                        live.update(screen(account), refresh=True)
            except* Lost as group:
                live.update(Text(_lost(admin, group), style="bold red"), refresh=True)
            await trio.sleep(RETRY)


def _lost(admin: Bind, group: BaseExceptionGroup[BaseException]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    why = str(error) or type(error).__name__
    return f"no live feed at {show_bind(admin)}: {why}"


def screen(account: Mapping[str, Any]) -> RenderableType:
    """Everything of one account."""
    parts: list[RenderableType] = [_summary(account)]
    parts += [_cluster(one) for one in account["clusters"]]
    return Group(*parts, *_changes(account["changes"]))


def _summary(now: Mapping[str, Any]) -> Text:
    tone = "bold green" if now["state"] == "LIVE" else "bold red"
    line = Text.assemble(("stickyproxy ", "bold"), (now["state"], tone))
    workers = f"   workers {len(now['workers'])}" if now["workers"] else ""
    line.append(
        f"   {words.rate(now['rate'])} calls/s   {now['streams']:,} streams   "
        f"{now['connections']:,} clients   CPU {100 * now['cpu']:.0f} %   "
        f"{words.size(now['memory'])}   Snapshot {now['snapshot']}{workers}   "
        f"up {words.duration(now['uptime'])}"
    )
    return line


def _cluster(one: Mapping[str, Any]) -> Table:
    title = f"[bold]{escape(one['name'])}[/] [dim]{escape(one['about'])}[/]"
    if one["problem"]:
        title += f"  [red]{escape(one['problem'])}[/]"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, expand=True)
    table.add_column("endpoint", ratio=1, overflow="fold", width=ADDRESS)
    table.add_column("state", ratio=1, overflow="fold")
    for name in ("sessions", "calls/s", "err/s", "p50 ms", "p99 ms", "strms", "conns"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in one["endpoints"]:
        table.add_row(*_cells(row))
    if one["more"]:
        table.add_row(f"[dim]and {one['more']:,} more[/]")
    return table


def _cells(row: Mapping[str, Any]) -> Iterator[str]:
    pod = f"{escape(row['pod'])} " if row["pod"] else ""
    yield f"{pod}[dim]{escape(row['key'])}[/]" if pod else escape(row["key"])
    tone, state = state_of(row)
    yield f"[{'green' if tone == 'ok' else 'red'}]{escape(state)}[/]"
    yield from words.figures(row)


def _changes(changes: Sequence[Sequence[Any]]) -> list[Text]:
    lines = [Text(f"{words.clock(at)} {line}", style="dim") for at, line in changes[:LINES]]
    return [Text("what changed", style="bold"), *lines] if lines else []
