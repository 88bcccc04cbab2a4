"""One resource kept in step with the API server: list, then watch, for ever (client-go's reflector).

What is known stays whatever happens to the API server; only a complete list or an event takes
something away. A resource version is opaque: handed back, never compared.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
import trio

from stickyproxy import logs
from stickyproxy.control.discovery.kube_client import (
    Answer,
    ApiError,
    ApiUnreachable,
    KubeClient,
    error_of,
)
from stickyproxy.control.discovery.kube_server import AccessError
from stickyproxy.control.discovery.kube_slices import Object
from stickyproxy.control.pace import Pace

PAGE = 200  # objects: a page of full slices (100 endpoints) is 8 MB, decoded in some 20 ms
WATCH_SECONDS = (290.0, 580.0)  # as client-go: spread, so that replicas do not come back together
PROBE_SECONDS = 30.0
"""Watches after trouble are short. A server that was set back to an older state says nothing to a
version of the future, and no error either; nor does one where nothing changes, for bookmarks come
only with a newer version. So silence after trouble soon ends in a list, which settles it."""
GRACE = 15.0  # seconds past the server's own limit until a watch counts as dead
EMPTY_WATCHES = 3
"""After so many watches in a row that said nothing, not even a bookmark: list (fabric8#7896)."""
SHORT = 1.0  # seconds: an empty watch that ends sooner is a failure, not an end (client-go)
LARGEST_LINE = 16 << 20  # bytes; etcd's limit of an object is 1.5 MB
FIRST_DELAY, LONGEST_DELAY = 0.8, 10.0
"""Seconds. client-go goes up to 30; an API server that is back should be noticed in seconds."""
ABSENT_DELAY = 30.0  # seconds between questions for a resource that is not installed


class Sink(Protocol):
    """Takes what the reflector learns: objects, or what `prepare` has made of them.

    Synchronous, must not raise.
    """

    def replace(self, objects: list[Any]) -> None:
        """A complete list."""
        ...

    def put(self, found: Any) -> None: ...

    def delete(self, found: Any) -> None: ...


class _Page(msgspec.Struct):
    """A list as it comes; its items are decoded one by one."""

    metadata: dict[str, Any] | None = None
    items: list[msgspec.Raw] | None = None


class Backoff:
    """Delays in seconds: doubling from `first` to `longest`, each stretched by up to half."""

    def __init__(
        self,
        rng: random.Random,
        first: float = FIRST_DELAY,
        longest: float = LONGEST_DELAY,
    ) -> None:
        self._rng = rng
        self._first = first
        self._longest = longest
        self._next = first

    def delay(self, at_least: float = 0.0) -> float:
        """The next one; never below what the server asked for."""
        bare, self._next = self._next, min(self._next * 2, self._longest)
        return max(bare, at_least) * (1 + self._rng.random() / 2)

    def reset(self) -> None:
        self._next = self._first


@dataclass(slots=True)
class ReflectorState:
    """What metrics and people are told. Times are trio's clock, None for never.

    `absent`: the resource is not installed. `refused`: we may not read it (RBAC). `problem` is ""
    while all is well, `errors` counts what has gone wrong so far.
    """

    synced: trio.Event = field(default_factory=trio.Event)
    absent: bool = False
    refused: bool = False
    problem: str = ""
    heard_at: float | None = None
    lists: int = 0
    watches: int = 0
    events: int = 0
    errors: int = 0


class Reflector:
    """`path` is the collection (`/apis/discovery.k8s.io/v1/namespaces/prod/endpointslices`).

    `absent` hears, each time anew, that the resource is not installed (404); `refused` once that we
    may not read it (403). `prepare` makes of each object what the sink is given: what takes time is
    done there, for a long list is worked through in slices, but given to the sink in one step.
    """

    def __init__(
        self,
        client: KubeClient,
        path: str,
        sink: Sink,
        *,
        rng: random.Random,
        selector: str = "",
        absent: Callable[[], None] | None = None,
        refused: Callable[[], None] | None = None,
        prepare: Callable[[Object], Any] | None = None,
    ) -> None:
        self.state = ReflectorState()
        self._client = client
        self.path = path
        self._sink = sink
        self._rng = rng
        self._selector = {"labelSelector": selector} if selector else {}
        self._on_absent = absent
        self._on_refused = refused
        self._prepare = prepare or _as_it_is
        self._backoff = Backoff(rng)
        self._version = "0"  # of the list or event that came last; "0": any will do
        self._listed = False
        self._probing = False
        self._over_again = False
        self._empty = 0

    async def run(self) -> None:
        """Until cancelled; nothing that the API server does ends it."""
        while True:
            try:
                if self._empty >= EMPTY_WATCHES:
                    await self._start_over(f"{self._empty} watches in a row said nothing")
                if not self._listed:
                    await self._list()
                await self._watch()
            except ApiError as error:
                await self._refused(error)
            except (ApiUnreachable, AccessError) as error:
                self._probing = True
                await self._pause(str(error))

    # --- list ---

    async def _list(self) -> None:
        """All pages, then one replacement: half a list takes nothing away.

        The first may be a little old ("0": from the server's cache, all at once). A later one is
        the newest, so that we never go back in time.
        """
        query = {**self._selector, "limit": str(PAGE)}
        if self._version == "0":
            query["resourceVersion"] = "0"
        objects: list[Any] = []
        while True:
            page = await self._page(query)
            pace = Pace()
            for item in page.items or ():
                objects.append(self._prepare(_decoded(item)))
                await pace.turn()
            metadata = page.metadata or {}
            if not metadata.get("continue"):
                break
            query = {**self._selector, "limit": str(PAGE), "continue": metadata["continue"]}
        self._sink.replace(objects)
        self._version = metadata.get("resourceVersion") or "0"
        self._listed = True
        self._probing, self._empty = False, 0
        self.state.lists += 1
        self._well()

    async def _page(self, query: Mapping[str, str]) -> _Page:
        async with self._client.request("GET", self.path, query) as answer:
            text = await answer.body()
        try:
            return msgspec.json.decode(text, type=_Page)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise ApiUnreachable(f"its answer is no list ({error})") from None

    def _well(self) -> None:
        if self.state.problem:
            logs.info("kubernetes_again", resource=self.path, after=self.state.problem)
        self.state.problem = ""
        self.state.absent = self.state.refused = False
        self.state.heard_at = trio.current_time()
        self.state.synced.set()

    # --- watch ---

    async def _watch(self) -> None:
        """One watch from the last version, to its end."""
        began, opened, events = trio.current_time(), self.state.watches, self.state.events
        limit = PROBE_SECONDS if self._probing else self._rng.uniform(*WATCH_SECONDS)
        try:
            with trio.move_on_after(limit + GRACE) as liveness:
                await self._follow(int(limit))
        finally:
            if self.state.events > events:
                self._probing, self._empty = False, 0
            elif self.state.watches > opened:
                self._empty += 1
        if liveness.cancelled_caught:
            raise ApiUnreachable("the watch outlived its time limit in silence")
        if trio.current_time() - began < SHORT:
            await self._pause("a watch ended at once")

    async def _follow(self, seconds: int) -> None:
        query = {
            **self._selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
            "resourceVersion": self._version or "0",
        }
        async with self._client.request("GET", self.path, query) as answer:
            self.state.watches += 1
            lines = Lines(answer)
            while (line := await lines.next()) is not None:
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            event = msgspec.json.decode(line)
            kind, found = event["type"], event["object"]
            version = "" if kind == "ERROR" else str(found["metadata"]["resourceVersion"])
        except (msgspec.DecodeError, KeyError, TypeError, UnicodeError):
            raise ApiUnreachable("a line of the watch is no event") from None
        if kind == "ERROR":
            raise error_of(found)
        if kind in ("ADDED", "MODIFIED"):
            self._sink.put(self._prepare(found))
        elif kind == "DELETED":
            self._sink.delete(self._prepare(found))
        self._version = version
        self.state.events += 1
        self._over_again = False
        self._backoff.reset()
        self._well()

    # --- trouble ---

    async def _refused(self, error: ApiError) -> None:
        if _is_expired(error):
            await self._start_over(error.message)
            return
        at_least = error.retry_after or 0.0
        if error.status == 404:
            at_least = max(at_least, ABSENT_DELAY)
            self.state.absent = True
            self._listed = False
            if self._on_absent is not None:
                self._on_absent()
        self._tell_problem(str(error))
        if error.status == 403 and not self.state.refused:
            self.state.refused = True
            if self._on_refused is not None:
                self._on_refused()
        await self._pause(str(error), at_least)

    async def _start_over(self, reason: str) -> None:
        """List anew, the newest. At once; but with no event since the last time, after a pause."""
        logs.info("kubernetes_list_again", resource=self.path, reason=reason)
        self._listed = False
        self._version = ""
        self._empty = 0
        if self._over_again:
            await self._pause(reason)
        self._over_again = True

    async def _pause(self, reason: str, at_least: float = 0.0) -> None:
        self._tell_problem(reason)
        self.state.errors += 1
        await trio.sleep(self._backoff.delay(at_least))

    def _tell_problem(self, reason: str) -> None:
        """Once until it is well again."""
        if reason != self.state.problem:
            self.state.problem = reason
            logs.warning("kubernetes_away", resource=self.path, reason=reason, kept="all")


def _as_it_is(found: Object) -> Object:
    return found


def _decoded(item: msgspec.Raw) -> Object:
    try:
        found = msgspec.json.decode(item)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ApiUnreachable(f"an item of its list is no JSON ({error})") from None
    if not isinstance(found, dict):
        raise ApiUnreachable("an item of its list is no object")
    return found


def _is_expired(error: ApiError) -> bool:
    """The version is too old, or of a future that this server does not know."""
    if error.status == 410 or error.reason in ("Expired", "Gone"):
        return True
    return error.status == 504 and "too large" in error.message.lower()


class Lines:
    """Lines of a body, wherever its pieces were cut. A last line without its end is no line."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._parts: list[bytes] = []
        self._size = 0
        self._whole: list[bytes] = []

    async def next(self) -> bytes | None:
        """None at the end. Raises `ApiUnreachable` when it breaks off or a line has no end."""
        while True:
            while self._whole:
                if line := self._whole.pop():
                    return line
            piece = await self._answer.receive()
            if not piece:
                return None
            self._feed(piece)

    def _feed(self, piece: bytes) -> None:
        first, *more = piece.split(b"\n")
        self._parts.append(first)
        self._size += len(first)
        if self._size > LARGEST_LINE:
            raise ApiUnreachable(f"a line of the watch is longer than {LARGEST_LINE} bytes")
        if more:
            whole = [b"".join(self._parts), *more]
            self._parts = [whole.pop()]
            self._size = len(self._parts[0])
            self._whole = whole[::-1]


def collection(group: str, plural: str, namespace: str | None) -> str:
    """The path of a collection; `group` is `v1` or `discovery.k8s.io/v1`, no namespace is all."""
    root = f"/api/{group}" if "/" not in group else f"/apis/{group}"
    return f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"
