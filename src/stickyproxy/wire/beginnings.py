"""When the streams of a link begin, and when they get a task.

A request is served when all that was read together with its head is in its inbox; who serves it may do
all that needs no waiting at once, and ask for a task only when there is something to wait for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager

import trio

from stickyproxy.errors import ProxyError
from stickyproxy.events import HeadReceived
from stickyproxy.wire.stream import Stream

Serve = Callable[[Stream, HeadReceived], Awaitable[None] | None]
"""Called for each request; what it returns is run as the stream's task. One that returns None has done
what there is to do so far."""


class Beginnings:
    """Of one link. `nursery` holds the tasks of its streams; None before and after its life."""

    __slots__ = ("_fresh", "_serve", "_waiting", "nursery")

    def __init__(self, serve: Serve | None) -> None:
        self.nursery: trio.Nursery | None = None
        self._serve = serve
        self._fresh: list[tuple[Stream, HeadReceived]] = []
        self._waiting: list[Stream] = []

    def accept(self, stream: Stream, head: HeadReceived) -> None:
        self._fresh.append((stream, head))

    def serve(self, error: ProxyError | None) -> None:
        """All that were accepted, now that their inboxes hold what came with them.

        `error` is why the link is over, if it is: that came behind them, and is still to be told.
        """
        if not self._fresh:
            return
        fresh, self._fresh = self._fresh, []
        for stream, head in fresh:
            if error is not None:
                stream.fail(error)
            rest = self._serve(stream, head) if self._serve is not None else None
            if rest is not None:
                self.start(_run, rest)

    def serve_later(self) -> None:
        """Not within the call of the one that has just made room for them."""
        if self._fresh:
            self.start(self._serve_soon)

    async def _serve_soon(self) -> None:
        self.serve(None)  # a link that is over by now has told them

    def start(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        """A task for a stream; not once the link is over and all streams were told."""
        if self.nursery is not None:
            self.nursery.start_soon(task, *args, name="stream")  # to make a name up would cost

    def when_read(self, stream: Stream) -> None:
        """Call its `starter` when all that was read is in the inboxes."""
        self._waiting.append(stream)

    def all_is_read(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for stream in waiting:
                stream.start()


@contextmanager
def started_at_last(streams: Mapping[int, Stream]) -> Iterator[None]:
    """Where this is cancelled, those that have no task get theirs, to fall like the others."""
    try:
        yield
    except BaseException:
        for stream in list(streams.values()):
            stream.start()
        raise


async def _run(rest: Awaitable[None]) -> None:
    await rest
