"""Who waits for a link, and the words with which it is sent away: the queues of a pool are made of these."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from stickyproxy.errors import ErrorKind, ProxyError, Retry, Side
from stickyproxy.wire.waking import wake

if TYPE_CHECKING:
    from stickyproxy.model import Endpoint
    from stickyproxy.wire.link import Link

MAX_WAITERS = 1024
"""Envoy's max_pending_requests: beyond it overload is told, not queued."""


class Waiter:
    """One request that waits for a link. `link` is set with a stream reserved on it.

    Any link but `avoid` will do.
    """

    __slots__ = ("_task", "avoid", "error", "link")

    def __init__(self, avoid: Link | None = None) -> None:
        self._task: trio.lowlevel.Task | None = None
        self.avoid = avoid
        self.link: Link | None = None
        self.error: ProxyError | None = None

    async def wait(self) -> None:
        if self.link is None and self.error is None:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._leave)

    def _leave(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def settle(self, link: Link | None = None, error: ProxyError | None = None) -> None:
        """The first link and the first error stay: a slot that is reserved has to be given back."""
        self.link = self.link or link
        self.error = self.error or error
        task, self._task = self._task, None
        if task is not None:
            wake(task)


def unreachable(endpoint: Endpoint, detail: str) -> ProxyError:
    """Nothing was sent: the next endpoint may be tried."""
    return ProxyError(
        ErrorKind.CONNECT_FAILED,
        Side.UPSTREAM,
        f"backend {endpoint.key}: {detail}",
        retry=Retry.NEXT_ENDPOINT,
    )
