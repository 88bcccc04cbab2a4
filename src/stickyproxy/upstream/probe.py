"""Active checks: each check of each endpoint is a task, with a connection of its own.

The connection is made as those of the pool are (TLS, HTTP/1.1 or HTTP/2 as the cluster has it), but is
none of them: what a check says is about the endpoint, and a link that is busy or bad must not speak for
it. One that brought a good answer is asked again; after anything else the next question goes over a
fresh one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

import trio

from stickyproxy.counters import ClusterStats
from stickyproxy.errors import ErrorKind, H2Code, ProxyError, Side
from stickyproxy.events import DataReceived, InformationalReceived
from stickyproxy.health.book import HealthBook
from stickyproxy.health.checks import (
    BODY_LIMIT,
    WELL,
    CheckState,
    Verdict,
    accident,
    judge,
    question,
)
from stickyproxy.metrics import Metrics
from stickyproxy.model import Cluster, ClusterSpec, Endpoint, Headers
from stickyproxy.rules import HealthCheck
from stickyproxy.upstream.dial import Dialler
from stickyproxy.wire.link import Link


class Probes:
    """Owns the checks of a worker; `nursery` is its upstream nursery, where their tasks live.

    `bug` is told of what should not have happened, and in words where. Of several workers each asks the
    endpoints that are `mine`, and learns of the others.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        dialler: Callable[[ClusterSpec], Dialler],
        book: HealthBook,
        metrics: Metrics,
        *,
        rng: Random,
        bug: Callable[[BaseException, str], None],
        mine: Callable[[str, str], bool] | None = None,
    ) -> None:
        self._nursery = nursery
        self._dialler = dialler
        self._book = book
        self._metrics = metrics
        self._rng = rng
        self._bug = bug
        self._mine = mine
        self._wanted: Mapping[tuple[str, str], tuple[ClusterSpec, Endpoint]] = {}
        self._asked: dict[tuple[str, str], Checked] = {}

    def keep(self, clusters: Mapping[str, Cluster]) -> None:
        """After a new Snapshot: check its endpoints, and nobody else any more."""
        wanted = {
            (name, endpoint.key): (cluster.spec, endpoint)
            for name, cluster in clusters.items()
            if cluster.spec.upkeep.health_checks
            for endpoint in cluster.endpoints
            if endpoint.key not in cluster.removed
        }
        before, self._wanted = self._wanted, wanted
        for place, one in before.items():
            if wanted.get(place) != one:
                self._book.unchecked(*place)
                if place in self._asked:
                    self._asked.pop(place).scope.cancel()
        for place, (spec, endpoint) in wanted.items():
            if place not in self._asked and (self._mine is None or self._mine(*place)):
                self._asked[place] = checked = Checked(spec, endpoint, self._rng, self._heard)
                self._nursery.start_soon(self._run, checked)

    async def _run(self, checked: Checked) -> None:
        try:
            await checked.run(self._dialler(checked.spec))
        except Exception as bug:  # noqa: BLE001 - our bug ends the checks of one endpoint, which is
            self._bug(bug, "health_check")  # then as if it had none
            self._book.unchecked(checked.spec.name, checked.endpoint.key)

    def _heard(self, checked: Checked, verdict: Verdict) -> None:
        name, key = checked.spec.name, checked.endpoint.key
        _count(self._metrics.cluster(name), verdict)
        if checked.reason:
            self._book.check_failed(name, key, checked.reason)
        elif verdict.well:
            self._book.check_passed(name, key)


def _count(stats: ClusterStats, verdict: Verdict) -> None:
    stats.health_check_attempt += 1
    if verdict.well is False:
        stats.health_check_failure += 1
        stats.health_check_network_failure += not verdict.sure
    else:
        stats.health_check_success += 1


class Checked:
    """One endpoint and its checks; it is well if all of them say so. `heard` hears each verdict."""

    def __init__(
        self,
        spec: ClusterSpec,
        endpoint: Endpoint,
        rng: Random,
        heard: Callable[[Checked, Verdict], None],
    ) -> None:
        self.spec = spec
        self.endpoint = endpoint
        self.scope = trio.CancelScope()
        self._states = [CheckState(check) for check in spec.upkeep.health_checks]
        self._rng = rng
        self._heard = heard

    @property
    def reason(self) -> str:
        """Why it is not well; "" if it is."""
        return next((state.reason for state in self._states if state.reason), "")

    async def run(self, dialler: Dialler) -> None:
        """Until `scope` is cancelled."""
        with self.scope:
            async with trio.open_nursery() as nursery:
                for check, state in zip(self.spec.upkeep.health_checks, self._states, strict=True):
                    asker = _Asker(nursery, dialler, self.endpoint, check)
                    nursery.start_soon(self._ask_for_ever, asker, state)

    async def _ask_for_ever(self, asker: _Asker, state: CheckState) -> None:
        while True:
            await self._pause(state)
            verdict = await asker.ask()
            state.note(verdict)
            self._heard(self, verdict)

    async def _pause(self, state: CheckState) -> None:
        await trio.sleep(state.delay(self._rng.random()))


class _Asker:
    """At most one connection, in `nursery`, and who asks over it."""

    def __init__(
        self, nursery: trio.Nursery, dialler: Dialler, endpoint: Endpoint, check: HealthCheck
    ) -> None:
        self._nursery = nursery
        self._dialler = dialler
        self._endpoint = endpoint
        self._check = check
        self._link: Link | None = None
        scheme = b"https" if dialler.spec.protocol.tls else b"http"
        self._head, self._body = question(check, endpoint, scheme)

    async def ask(self) -> Verdict:
        """The verdict on one answer, or on there being none."""
        verdict = await self._answer()
        # What only connects has nothing to ask a connection that is there.
        if self._link is not None and (not verdict.well or not self._head):
            self._link.close()
            self._link = None
        return verdict

    async def _answer(self) -> Verdict:
        verdict = accident(f"no answer within {self._check.timeout:g} s")
        with trio.move_on_after(self._check.timeout):
            try:
                link = self._usable() or await self._dial()
                verdict = await self._converse(link) if self._head else WELL
            except ProxyError as error:
                verdict = accident(error.detail)
        return verdict

    def _usable(self) -> Link | None:
        link = self._link
        good = link is not None and not link.over and not link.codec.closing
        return link if link is not None and good and link.codec.capacity() > 0 else None

    async def _dial(self) -> Link:
        spec, codecs = self._dialler.spec, self._dialler.codecs
        transport = await self._dialler.reach(self._endpoint, spec, b"")
        codec = codecs.client(multiplexed=spec.protocol.multiplexed, tls=spec.protocol.tls)
        settled = trio.Event()

        def changed(link: Link) -> None:
            if link.over or link.codec.capacity() > 0:
                settled.set()

        link = self._link = Link(transport, codec, changed=changed, allowed=codecs.allowed)
        self._nursery.start_soon(link.run)
        changed(link)  # HTTP/1.1 is ready at once, HTTP/2 after the server's SETTINGS
        await settled.wait()
        if link.over:
            lost = ProxyError(ErrorKind.UPSTREAM_CLOSED, Side.UPSTREAM, "the connection was lost")
            raise link.failure or lost
        return link

    async def _converse(self, link: Link) -> Verdict:
        stream = link.open_stream(self._head, not self._body)
        try:
            if self._body:
                await stream.send_data(self._body, True)
            head: Headers = []
            body = b""
            while len(body) < BODY_LIMIT:
                event = await stream.receive()
                if isinstance(event, DataReceived):
                    body += event.data
                    stream.grant(event.credit)
                    if event.end_stream:
                        break
                elif not isinstance(event, InformationalReceived):
                    head += event.headers
                    if getattr(event, "end_stream", True):
                        break
            return judge(self._check.check, head, body)
        finally:
            stream.close(H2Code.CANCEL)
