"""Links to one endpoint, and who gets a stream on which.

The decision is one synchronous function, `_assign`, run after every change: it looks at all links and
all waiters, hands out streams, and says how many links are wanted. Dialling happens in the pool's own
nursery, so that a request that leaves kills no dial that others wait for.

A link counts once the server's SETTINGS are there (codec capacity is 0 before), and stops counting
while its connection window is empty: one stalled upload must not stop its neighbours. One that is
suspect counts for nothing, and no stream is put behind a known hole or a full window where another link
has room (`vigil`, `health.poolplan`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from stickyproxy.errors import ErrorKind, ProxyError, Side
from stickyproxy.health.poolplan import SPARES, Census, PoolPlan
from stickyproxy.upstream.asking import Question
from stickyproxy.upstream.sweep import Pace, Sweep
from stickyproxy.upstream.vigil import Silent, Told, Vigil
from stickyproxy.upstream.waiter import MAX_WAITERS, Waiter, unreachable

if TYPE_CHECKING:
    from stickyproxy.counters import ClusterStats, EndpointStats
    from stickyproxy.model import Endpoint, Headers
    from stickyproxy.upstream.circuit import Circuit
    from stickyproxy.upstream.crowd import Crowd
    from stickyproxy.wire.link import Link
    from stickyproxy.wire.stream import Stream

MAX_LINKS = 1024
"""Envoy's max_connections per cluster; here per endpoint."""
BUSY = 10.0
"""Seconds without a stream after which no spare is made, and nothing that broke is dialled again."""
SILENT = "its connections do not answer"
ROOM_IDLE = 60.0
"""Seconds without a stream after which a link beyond the loaded one and its spare is closed: a load that
needs it again within a minute finds it, a burst of an hour ago holds nothing."""
STOPPED = 2
"""Streams on each link of a long lossy path from which on another is wanted: how many one loss may stop."""
CALM_AFTER = 0.5
"""Seconds without a new stream. Rousing the sweep takes a turn of the loop, so not for each call."""
FEW = 16
"""Links of HTTP/1.1 up to which they are looked at as often as those of HTTP/2: for 1 % of a core."""

Dial = Callable[["EndpointPool"], Awaitable[None]]
"""Connects and runs one link until it is over; calls `dialled` once that can take streams, or
`undialled` when it never will."""


class EndpointPool:
    """Owns the links to `endpoint`. `nursery` is where dials and links live (the worker's upstream).

    One of several `workers` has its part of what is allowed. The pool is in `doubts`, which all pools
    of a worker share, while its endpoint itself looks bad; requests that wait then leave, if they may be
    served `elsewhere`. Without a `sweep` nobody looks after the links. `told` hears of their health.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        nursery: trio.Nursery,
        dial: Dial,
        *,
        multiplexed: bool,
        heard: Callable[[ProxyError | None], None],
        bug: Callable[[BaseException, str], None],
        stats: EndpointStats,
        cluster: ClusterStats,
        workers: int = 1,
        sweep: Sweep | None = None,
        doubts: set[EndpointPool] | None = None,
        told: Told | None = None,
        elsewhere: Callable[[], bool] = lambda: False,
        spares: int = SPARES,
        preamble: bytes = b"",
    ) -> None:
        self.endpoint = endpoint
        self.preamble = preamble
        self.crowd: Crowd | None = None
        """Those that serve in its place, one for each client, where the endpoint is told of clients."""
        self.links: list[Link] = []
        self.dialling = 0
        self.retired = self.was_silent = False
        """Its links were suspect when they ended, or still are: it never went away, as far as we know."""
        self.sessions = True
        """Whether its requests belong to it (`poolplan.Census`)."""
        self.circuit: Circuit | None = None
        """The cluster's, where it has limits of its own."""
        self._held = False
        self._doubts = doubts if doubts is not None else set()
        self._waiters: deque[Waiter] = deque()
        self._choosy: deque[Waiter] = deque()
        """Waiters that avoid a link. They come last and hold nobody up: each is a second try."""
        self._reserved: dict[Link, int] = {}
        self._spare: dict[Link, None] = {}
        """Not multiplexed: links that were last heard of as free; the latest is used first."""
        self.vigil = Vigil(multiplexed=multiplexed, roused=self._rouse, told=told or Silent())
        self._told = told or Silent()
        self.question = Question(
            endpoint, self.vigil, self._spare_link, self.changed, self._told.asked_in_vain
        )
        self._sweep = sweep
        self._plan = PoolPlan()
        self._elsewhere = elsewhere
        self._spares = spares if multiplexed else 0
        self._pressed = False
        self._dial_began = 0.0
        self._rq_total, self._busy_at = 0, -math.inf
        self._nursery, self._dial = nursery, dial
        self._multiplexed = multiplexed
        self.stats, self._cluster = stats, cluster
        self._most_links = max(1, MAX_LINKS // workers)
        self._most_waiters = max(1, MAX_WAITERS // workers)
        self._heard, self._bug = heard, bug

    # --- what an Exchange asks ---

    @property
    def doubted(self) -> bool:
        """Whether the endpoint itself looks bad: its links are suspect, and no new one gets ready."""
        return self in self._doubts

    @property
    def only_hopes(self) -> bool:
        """Whether what is dialled is wanted by nobody but to see when the endpoint is back."""
        return self.doubted and not self._waiters and not self._choosy

    @property
    def asks(self) -> bool:
        """Whether a new link of HTTP/1.1 counts only when something was answered on it."""
        if not self.question.trusted:
            return False
        all_suspect = len(self.vigil.suspects) == len(self.links) > 0
        return self.vigil.question or self.doubted or all_suspect

    def open_now(
        self,
        headers: Headers,
        end_stream: bool,
        avoid: Link | None = None,
        *,
        once: bool = False,
        body: bytes = b"",
    ) -> Stream | None:
        """A stream on a link with a free slot, at once; None when there is none but on `avoid`.

        `once`: what goes on it may not be sent twice. `body` as with `Link.open_stream`, where a link
        is at its best.
        """
        if self._waiters or (self.circuit is not None and self.circuit.full()):
            return None
        if not self._multiplexed:
            return self._open_spare(headers, end_stream)
        if self.vigil.far or (once and self.vigil.lossy):
            return self._open_spread(headers, end_stream, avoid)
        for link in self.vigil.fit:
            if link is not avoid and self._free(link) > 0:
                return link.open_stream(headers, end_stream, body)
        return self._open_pressed(headers, end_stream, avoid)

    def _open_spread(self, headers: Headers, end_stream: bool, avoid: Link | None) -> Stream | None:
        """The best link with the fewest streams: a lost segment stops those behind it on its link.

        On a short path that costs more than it saves where a second attempt is allowed: the fewer
        streams a link has, the later a loss is noticed, since only what follows shows it.
        """
        able = [link for link in self.vigil.fit if link is not avoid and self._free(link) > 0]
        best = min(able, key=lambda link: len(link.streams), default=None)
        if best is None:
            return self._open_pressed(headers, end_stream, avoid)
        self._pressed = self._pressed or (self.vigil.far and len(best.streams) >= STOPPED)
        return best.open_stream(headers, end_stream)

    def _open_pressed(
        self, headers: Headers, end_stream: bool, avoid: Link | None
    ) -> Stream | None:
        """No link is at its best: the one with the fewest streams, of those that are not suspect."""
        able = [link for link in self.links if link is not avoid and self._free(link) > 0]
        if not able:
            return None
        self._pressed = True
        return min(able, key=lambda link: len(link.streams)).open_stream(headers, end_stream)

    def _open_spare(self, headers: Headers, end_stream: bool) -> Stream | None:
        """Without a look at links that are taken, of which there may be hundreds."""
        while self._spare:
            link, _ = self._spare.popitem()
            if self._free(link) > 0:
                return link.open_stream(headers, end_stream)
        return None

    def _spare_link(self) -> Link | None:
        return next((link for link in reversed(self._spare) if self._free(link) > 0), None)

    def wait(self, avoid: Link | None = None) -> Waiter:
        """Join the queue; `Waiter.wait`, then `open_reserved`, or `leave`."""
        waiter = Waiter(avoid)
        refusal = self._refusal()
        if refusal:
            waiter.settle(error=ProxyError(ErrorKind.OVERLOAD, Side.INTERNAL, refusal))
            self._cluster.upstream_rq_pending_overflow += 1
            return waiter
        if self.doubted and self._elsewhere():
            waiter.settle(error=unreachable(self.endpoint, SILENT))
            return waiter
        (self._waiters if avoid is None else self._choosy).append(waiter)
        self._cluster.upstream_rq_pending_total += 1
        self._cluster.upstream_rq_pending_active += 1
        self._assign()
        return waiter

    def _refusal(self) -> str:
        if self.circuit is not None:
            return self.circuit.refusal()
        full = len(self._waiters) + len(self._choosy) >= self._most_waiters
        return f"{self._most_waiters} requests already wait for {self.endpoint.key}" if full else ""

    def open_reserved(self, waiter: Waiter, headers: Headers, end_stream: bool) -> Stream | None:
        """The stream that was reserved; None when the link closed in between: ask again."""
        link, waiter.link = waiter.link, None
        if link is None:
            return None
        self._unreserve(link)
        if link in self.vigil.suspects or link.over or link.draining or link.codec.capacity() <= 0:
            return None
        if self.circuit is not None and self.circuit.full():
            return None
        return link.open_stream(headers, end_stream)

    def leave(self, waiter: Waiter) -> None:
        """The request goes away, whether it was served or not. Sync, and harmless twice."""
        queue = self._waiters if waiter.avoid is None else self._choosy
        if waiter in queue:
            queue.remove(waiter)
            self._cluster.upstream_rq_pending_active -= 1
            self._cluster.upstream_rq_cancelled += 1
        link, waiter.link = waiter.link, None
        if link is None:
            self._assign()
        else:
            self._unreserve(link)
            self.changed(link)

    # --- the decision ---

    def changed(self, link: Link) -> None:
        """A link gained or lost room, began to close, or is over."""
        if not self._multiplexed:
            self._note_spare(link)
        if not (
            self._waiters
            or self._choosy
            or link.over
            or self.retired
            or link.draining
            or link.codec.closing
        ):
            return
        if link.goaway is not None:
            self.vigil.hear_goaway(link.goaway)
        if link.over and link in self.links:
            self._lose(link)
        elif self._idle_and_closing(link):
            link.close()
        self._assign()

    def _lose(self, link: Link) -> None:
        self.links.remove(link)
        echo = link.failure is not None and link.failure.echo
        self.was_silent = echo or link in self.vigil.suspects
        self.vigil.end(link)
        self.stats.cx_active -= 1
        self._reserved.pop(link, None)
        if not self.links and self._busy(now := trio.current_time()) and not self.retired:
            self._plan.lost(now)
            self._rouse()

    def _note_spare(self, link: Link) -> None:
        if self._free(link) > 0:
            self._spare[link] = None
        else:
            self._spare.pop(link, None)

    def _assign(self) -> None:
        for link in (*self.vigil.fit, *self.links) if self._waiters else ():
            while self._waiters and self._free(link) > 0:
                self._reserve(link, self._waiters.popleft())
        if self._choosy:
            self._assign_choosy()
        for _ in range(self._wanted()):
            self._start_dial()

    def _assign_choosy(self) -> None:
        for link in self.links:
            for waiter in [waiter for waiter in self._choosy if waiter.avoid is not link]:
                if self._free(link) <= 0:
                    break
                self._choosy.remove(waiter)
                self._reserve(link, waiter)

    def _reserve(self, link: Link, waiter: Waiter) -> None:
        self._reserved[link] = self._reserved.get(link, 0) + 1
        self._cluster.upstream_rq_pending_active -= 1
        waiter.settle(link)

    def _wanted(self) -> int:
        """One dial for all waiters of a multiplexed endpoint, one each on HTTP/1.1."""
        waiting = len(self._waiters) + len(self._choosy)
        wanted = min(1, waiting) if self._multiplexed else waiting
        missing, room = wanted - self.dialling, self.room()
        if self.circuit is not None:
            held, self._held = self._held, missing > 0 >= room
            self._cluster.upstream_cx_overflow += self._held and not held
        return max(0, min(missing, room))

    def room(self) -> int:
        """How many links more there may be."""
        if self.circuit is None:
            return self._most_links - len(self.links) - self.dialling
        # Envoy's rule too: an endpoint without any may always have one.
        return max(self.circuit.room(), 0 if self.links or self.dialling else 1)

    def _free(self, link: Link) -> int:
        if link.over or link.draining or link in self.vigil.suspects:
            return 0
        reserved = self._reserved.get(link)
        return link.codec.capacity() - reserved if reserved else link.codec.capacity()

    def _unreserve(self, link: Link) -> None:
        left = self._reserved.pop(link, 0) - 1
        if left > 0:
            self._reserved[link] = left

    def _idle_and_closing(self, link: Link) -> bool:
        done = link.codec.closing or self.retired or link.draining
        return done and not link.streams and link not in self._reserved

    # --- dialling ---

    def _start_dial(self) -> None:
        if not self.dialling:  # of several the longest is looked at
            self._dial_began = trio.current_time()
        self.dialling += 1
        self._nursery.start_soon(self._run_dial)

    async def _run_dial(self) -> None:
        """One link from connect to its end; what goes wrong with it stays here."""
        try:
            await self._dial(self)
        except Exception as bug:  # noqa: BLE001 - the boundary: our bug ends one link
            self._bug(bug, "link")

    def dialled(self, link: Link) -> None:
        """A dial succeeded: `link` takes streams."""
        self.dialling -= 1
        self.was_silent = self.was_silent or bool(self.vigil.suspects)
        self.links.append(link)
        self.vigil.begin(link, trio.current_time())
        self._plan.dialled()
        if self.doubted:
            self._look(bad=False)
        self.stats.cx_active += 1
        self._heard(None)
        self.was_silent = False
        self._assign()
        self.changed(link)

    def answered(self) -> None:
        """What a dial asked was answered, on a link that is of no use for more."""
        self.dialling -= 1
        self.vigil.hear(trio.current_time())
        self._plan.dialled()
        if self.doubted:
            self._look(bad=False)
        self._heard(None)
        self._assign()

    def undialled(self, error: ProxyError) -> None:
        """A dial failed: everyone who waits hears it and may go to the next endpoint."""
        self.dialling -= 1
        try:
            self._plan.failed(trio.current_time(), self._dial_began)
            self._heard(error)
        finally:  # a bug there must not leave them waiting for ever
            self._turn_away(error)

    def _turn_away(self, error: ProxyError) -> None:
        waiters = [*self._waiters, *self._choosy]
        self._waiters.clear()
        self._choosy.clear()
        self._cluster.upstream_rq_pending_active -= len(waiters)
        self._cluster.upstream_rq_pending_failure_eject += len(waiters)
        for waiter in waiters:
            waiter.settle(error=error)

    # --- health ---

    def _rouse(self) -> None:
        if self._sweep is not None:
            self._sweep.rouse(self)

    def tend(self, now: float, excuse: float) -> Pace:
        """From the sweep: look at the links, and at whether there are enough."""
        if self.retired:
            return Pace.REST
        if self.stats.rq_total != self._rq_total:
            self._rq_total, self._busy_at = self.stats.rq_total, now
        if self.vigil.look(now, excuse, self._overdue(now)):
            self._assign()
        if not self._multiplexed:
            self.question.tend(now)
        suspects = len(self.vigil.suspects)
        well = len(self.links) - suspects
        dialling = self.dialling + (well > 0 and self.question.since is not None)
        census = Census(
            well,
            suspects,
            dialling,
            busy=self._busy(now),
            pressed=self._pressed,
            usual=self.vigil.usual,
            spares=self._spares,
            mute=self.vigil.mute,
            young=self.vigil.young(now),
            question=self.vigil.question and self.question.trusted,
            sessions=self.sessions,
        )
        self._pressed = False
        wanted = self._plan.look(now, census)
        if wanted.dial and not (census.question and self.question.ask_free()) and self.room() > 0:
            self._start_dial()
        if wanted.doubted is not self.doubted:
            self._look(bad=wanted.doubted)
        return self._pace(now)

    def _overdue(self, now: float) -> float | None:
        """When a dial began, or was asked, what is not answered yet and should be."""
        began = self._dial_began if self.dialling else self.question.since
        overdue = began is not None and self._plan.overdue(now, began, self.vigil.usual)
        return began if overdue else None

    def _busy(self, now: float) -> bool:
        """Whether it has traffic: enough to know its times, and some of late."""
        return self.vigil.times.q75 > 0 and now - self._busy_at < BUSY

    def _look(self, *, bad: bool) -> None:
        self._told.doubted(bad)
        if not bad:
            self._doubts.discard(self)
            return
        self._doubts.add(self)
        if self._elsewhere():
            self._turn_away(unreachable(self.endpoint, SILENT))

    def in_words(self, now: float) -> list[str]:
        """Each link and its health, for people."""
        words = self.vigil.in_words(now)
        return [*words, "all silent: its requests go elsewhere"] if self.doubted else words

    def _pace(self, now: float) -> Pace:
        hot = now - self._busy_at < CALM_AFTER and (self._multiplexed or len(self.links) <= FEW)
        if hot or self.vigil.asking() or (self._plan.bad_since is not None and not self.doubted):
            return Pace.HOT
        self.vigil.unwatched()
        if self._plan.bad_since is not None or any(link.streams for link in self.links):
            return Pace.CALM
        return Pace.REST

    # --- the end ---

    def is_spare_no_more(self, link: Link, now: float) -> bool:
        """Whether it was opened for room that is not needed any more."""
        enough = 1 + self._spares
        if not self._multiplexed or link.streams or now - link.idle_since < ROOM_IDLE:
            return False
        return len(self.vigil.fit) > enough and link in self.vigil.fit[enough:]

    def retire_link(self, link: Link) -> None:
        """It reached its age: nothing new on it, the streams that run may end."""
        link.draining = True
        self.changed(link)

    def retire(self) -> None:
        """The endpoint left its cluster: no new links, the streams that run may end."""
        self.retired = True
        self._doubts.discard(self)
        if self.crowd is not None:
            self.crowd.retire()
        if self._sweep is not None:
            self._sweep.leave(self)
        self.question.leave(self.links)
        for link in list(self.links):
            self.changed(link)
