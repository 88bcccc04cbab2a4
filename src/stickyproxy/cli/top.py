"""`top`: the live page in a terminal, over the same feed."""

from __future__ import annotations

import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import trio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from stickyproxy.cli.screen import Size, screen
from stickyproxy.config.text.addresses import show_bind
from stickyproxy.control.admin.client import Lost, feed, in_words
from stickyproxy.model import Bind

RETRY = 2.0
"""Seconds until a proxy that does not answer is asked again."""
QUIT = frozenset((b"q", b"Q", b"\x04", b""))
"""What is typed to leave; the last is the end of the terminal."""

Show = Callable[[RenderableType], None]


def top(admin: Bind, *, once: bool, console: Console | None = None) -> str | None:
    """Until interrupted; with `once`, or for a pipe, one look. Returns what went wrong, or None."""
    console = console or Console()
    try:
        if once or not console.is_terminal:
            return trio.run(_once, admin, console)
        with _shown(console) as show:
            trio.run(_watch, admin, console, show)
    except KeyboardInterrupt:
        return None
    return None


async def _once(admin: Bind, console: Console) -> str | None:
    problem = None
    try:
        async with feed(admin) as accounts:
            account = await anext(accounts)
            console.print(screen(account, Size(console.width)))
    except* Lost as group:
        problem = _lost(admin, group)
    return problem


@contextmanager
def _shown(console: Console) -> Iterator[Show]:
    """On the whole screen; a terminal that cannot move its cursor has one look below the other."""
    if console.is_dumb_terminal:
        yield console.print
        return
    with Live(Text("connecting ..."), console=console, screen=True, auto_refresh=False) as live:
        yield lambda what: live.update(what, refresh=True)


async def _watch(admin: Bind, console: Console, show: Show) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_leave_on_key, nursery.cancel_scope)
        last: RenderableType = ""
        while True:
            try:
                async with feed(admin) as accounts:
                    async for account in accounts:
                        last = _fitted(account, console)
                        show(last)
            except* Lost as group:
                said = f"{_lost(admin, group)}; it is tried again, q quits"
                show(Group(Text(said, style="bold red"), last))
            await trio.sleep(RETRY)


def _fitted(account: Mapping[str, Any], console: Console) -> RenderableType:
    height = None if console.is_dumb_terminal else console.height
    return screen(account, Size(console.width, height))


async def _leave_on_key(scope: trio.CancelScope) -> None:
    """Keys come one by one and are not shown, as long as this runs."""
    if not sys.stdin.isatty():
        return
    keys = sys.stdin.fileno()
    before = termios.tcgetattr(keys)
    try:
        tty.setcbreak(keys)
        while True:
            await trio.lowlevel.wait_readable(keys)
            if os.read(keys, 1) in QUIT:
                scope.cancel()
                return
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)


def _lost(admin: Bind, group: BaseExceptionGroup[BaseException]) -> str:
    return f"no live feed at {show_bind(admin)}: {in_words(group)}"
