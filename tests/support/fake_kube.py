"""A Kubernetes API server for tests, on Trio and h11: HTTP/1.1 over whatever stream it is given.

It shares no code with what it tests. What it does was seen on a real kube-apiserver, and the
differential test (`conformance/kube`) keeps it honest. `faults` is what it does wrong.
"""

from __future__ import annotations

import errno
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import h11
import trio
import trio.testing

from support.fake_kube_store import (
    AMBASSADOR,
    CUSTOM,
    KINDS,
    Kind,
    KubeStore,
    Object,
    Query,
    Refused,
)

BOOKMARK_EVERY = 60.0  # seconds, as seen; and one 2 s before a watch's time is over, if anything
# has happened since what the watcher has seen: to a quiet resource none comes at all
LAST_BOOKMARK = 2.0


@dataclass
class Fault:
    """What goes wrong with the next request whose target contains `match`.

    `kind`: `status` (with `status`, `retry_after`), `close` (no answer), `silent` (none ever),
    `gone` (in-stream 410), `error` (in-stream Status with `status`); and, once `after` events were
    sent: `cut` (half a line, then the connection ends), `freeze` (not a byte more), `end` (a clean
    end), `garbage` (a line that is no event); or all along: `drip` (byte by byte), `twice`.
    """

    kind: str
    match: str = "watch=true"
    status: int = 500
    retry_after: int | None = None
    after: int = 0
    times: int = 1


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: Mapping[str, str]
    authorization: str

    @property
    def watch(self) -> bool:
        return self.query.get("watch") in ("true", "1")


class FakeKube:
    """`tokens` None lets everybody in; those of `unprivileged` may do nothing. `absent` and

    `forbidden` hold plurals; `mappings/status` is forbidden by itself. `versions` are those in which
    each custom kind is served (none: not installed), `states` what a status may say (None: all).

    `arrived` is set, and replaced, with every request.
    """

    def __init__(self) -> None:
        self.store = KubeStore()
        self.asked: list[Asked] = []
        self.faults: deque[Fault] = deque()
        self.tokens: set[str] | None = None
        self.unprivileged: set[str] = set()
        self.absent: set[str] = set()
        self.forbidden: set[str] = set()
        self.versions: dict[str, tuple[str, ...]] = {}
        self.states: set[str] | None = None
        self.down = False
        self.dialled = 0
        self.arrived = trio.Event()
        self._streams: set[trio.abc.Stream] = set()
        self._nursery: trio.Nursery | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeKube]:
        async with trio.open_nursery() as self._nursery:
            yield self
            self._nursery.cancel_scope.cancel()

    async def connector(self, _: object) -> tuple[trio.abc.Stream, str]:
        """A memory stream to it, as a client's connector."""
        await trio.lowlevel.checkpoint()
        self.dialled += 1
        if self.down or self._nursery is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self.serve, theirs)
        return ours, "http/1.1"

    async def listen(self, tls: ssl.SSLContext | None = None, port: int = 0) -> int:
        """Serve a loopback port, too. Returns the port."""
        if self._nursery is None:
            raise RuntimeError("it does not run")
        (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")

        async def accept(stream: trio.SocketStream) -> None:
            if tls is None:
                await self.serve(stream)
                return
            secured = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
            try:
                await secured.do_handshake()
                await self.serve(secured)
            except (trio.BrokenResourceError, ssl.SSLError):
                await trio.aclose_forcefully(stream)

        self._nursery.start_soon(trio.serve_listeners, accept, [listener])
        return int(listener.socket.getsockname()[1])

    def install(self, *plurals: str, versions: tuple[str, ...] = ("v3alpha1",)) -> None:
        """Custom kinds, all of them if none is named."""
        chosen = plurals or tuple(kind.plural for kind in CUSTOM)
        self.versions.update(dict.fromkeys(chosen, versions))

    async def drop_connections(self) -> None:
        """As when the process dies."""
        for stream in list(self._streams):
            await trio.aclose_forcefully(stream)

    def note(self, asked: Asked) -> None:
        self.asked.append(asked)
        arrived, self.arrived = self.arrived, trio.Event()
        arrived.set()

    def lists(self, plural: str) -> list[Asked]:
        return [a for a in self.asked if a.path.endswith(plural) and not a.watch]

    def watches(self, plural: str) -> list[Asked]:
        return [a for a in self.asked if a.path.endswith(plural) and a.watch]

    # --- a connection ---

    async def serve(self, stream: trio.abc.Stream) -> None:
        self._streams.add(stream)
        try:
            await _Conversation(self, stream).run()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError):
            pass
        finally:
            self._streams.discard(stream)
            await trio.aclose_forcefully(stream)

    def fault_of(self, target: str) -> Fault | None:
        for fault in self.faults:
            if fault.match in target:
                fault.times -= 1
                if not fault.times:
                    self.faults.remove(fault)
                return fault
        return None


class _Conversation:
    """One connection: requests one after the other."""

    def __init__(self, server: FakeKube, stream: trio.abc.Stream) -> None:
        self.server = server
        self.store = server.store
        self.stream = stream
        self.http = h11.Connection(h11.SERVER)
        self.fault: Fault | None = None

    async def run(self) -> None:
        while True:
            event = await self._next()
            if not isinstance(event, h11.Request):
                return
            body = b""
            while isinstance(part := await self._next(), h11.Data):
                body += bytes(part.data)
            await self._answer(event, body)
            if self.http.our_state is not h11.DONE:
                return
            self.http.start_next_cycle()

    async def _next(self) -> Any:
        while (event := self.http.next_event()) is h11.NEED_DATA:
            self.http.receive_data(bytes(await self.stream.receive_some(65_536)))
        return event

    async def send(self, event: h11.Event) -> None:
        data = self.http.send(event) or b""
        step = 1 if self.fault is not None and self.fault.kind == "drip" else len(data)
        for start in range(0, len(data), max(step, 1)):
            await self.stream.send_all(data[start : start + step])

    async def _answer(self, request: h11.Request, body: bytes) -> None:
        target = request.target.decode()
        url = urlsplit(target)
        query = dict(parse_qsl(url.query))
        authorization = dict(request.headers).get(b"authorization", b"").decode()
        asked = Asked(request.method.decode(), url.path, query, authorization)
        self.server.note(asked)
        self.fault = self.server.fault_of(target)
        try:
            await self._early_fault()
            self._check(asked)
            if (described := self._described(asked.path)) is not None:
                await self._whole(200, described)
                return
            kind, namespace, name = self._place(asked)
            if asked.method == "GET" and asked.watch:
                selection = Query(kind, namespace, query.get("labelSelector", ""))
                await _Watch(self, selection, query).run()
                return
            await self._whole(200, self._act(asked, kind, namespace, name, body))
        except Refused as refused:
            await self._whole(refused.code, refused.status)

    async def _early_fault(self) -> None:
        fault = self.fault
        if fault is None:
            return
        if fault.kind == "close":
            raise trio.BrokenResourceError
        if fault.kind == "silent":
            await trio.sleep_forever()
        if fault.kind == "status":
            retry = {"retryAfterSeconds": fault.retry_after} if fault.retry_after else {}
            raise Refused(fault.status, "Fault", "as the test wishes", **retry)

    def _check(self, asked: Asked) -> None:
        tokens = self.server.tokens
        if tokens is not None and asked.authorization.removeprefix("Bearer ") not in tokens:
            raise Refused(401, "Unauthorized", "Unauthorized")
        if asked.authorization.removeprefix("Bearer ") in self.server.unprivileged:
            raise Refused(403, "Forbidden", f'User "u" cannot get path "{asked.path}"')

    def _described(self, path: str) -> Object | None:
        """A discovery document: of the custom group, or of one version of it."""
        versions = self.server.versions
        served = sorted({version for some in versions.values() for version in some})
        root = f"/apis/{AMBASSADOR}"
        if path == root and served:
            listed = [{"groupVersion": f"{AMBASSADOR}/{v}", "version": v} for v in served]
            return {"kind": "APIGroup", "name": AMBASSADOR, "versions": listed}
        version = path.removeprefix(f"{root}/")
        if version == path or version not in served:
            return None
        found: list[Object] = []
        for kind in CUSTOM:
            if version in versions.get(kind.plural, ()):
                found.append({"name": kind.plural, "kind": kind.name, "namespaced": True})
                found.append({"name": f"{kind.plural}/status", "kind": kind.name})
        return {"kind": "APIResourceList", "groupVersion": path[6:], "resources": found}

    def _kinds(self) -> Iterator[Kind]:
        """Those that are served, each version of a custom one by itself."""
        for kind in KINDS:
            if not kind.custom:
                yield kind
            for version in self.server.versions.get(kind.plural, ()):
                yield kind._replace(group=f"{AMBASSADOR}/{version}")

    def _place(self, asked: Asked) -> tuple[Kind, str, str]:
        """Kind, namespace and name (or `NAME/status`) of a path. Raises `Refused`."""
        for kind in self._kinds():
            rest = asked.path.removeprefix(kind.root + "/")
            parts = rest.split("/")
            namespace = parts[1] if parts[0] == "namespaces" and len(parts) > 2 else ""
            tail = parts[2:] if namespace else parts
            if rest == asked.path or tail[0] != kind.plural or kind.plural in self.server.absent:
                continue
            self._check_allowed(asked, kind, namespace, tail)
            return kind, namespace, "/".join(tail[1:])
        message = "the server could not find the requested resource"
        raise Refused(404, "NotFound", message)

    def _check_allowed(self, asked: Asked, kind: Kind, namespace: str, tail: list[str]) -> None:
        resource = f"{kind.plural}/{tail[2]}" if len(tail) > 2 else kind.plural
        if resource in self.server.absent:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        if resource not in self.server.forbidden:
            return
        verb = "watch" if asked.watch else {"PUT": "update"}.get(asked.method, "list")
        group = kind.group.partition("/")[0] if "/" in kind.group else ""
        place = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
        message = (
            f'{resource} is forbidden: User "u" cannot {verb} resource '
            f'"{resource}" in API group "{group}"{place}'
        )
        raise Refused(403, "Forbidden", message)

    def _status(self, kind: Kind, given: Object) -> Object:
        states, said = self.server.states, given.get("status", {}).get("state")
        if states is not None and said not in states:
            message = f'{kind.name} is invalid: status.state: Unsupported value: "{said}"'
            raise Refused(422, "Invalid", message)
        return self.store.replace_status(kind, given)

    def _act(self, asked: Asked, kind: Kind, namespace: str, name: str, body: bytes) -> Object:
        query = asked.query
        if asked.method == "GET" and not name:
            selection = Query(kind, namespace, query.get("labelSelector", ""))
            version, limit = query.get("resourceVersion", ""), int(query.get("limit", "0"))
            return self.store.list(selection, version, limit, query.get("continue", ""))
        if asked.method == "GET":
            return self.store.get(kind, namespace, name)
        if asked.method == "DELETE":
            return self.store.delete(kind, namespace, name)
        given = json.loads(body)
        given["metadata"]["namespace"] = namespace
        if asked.method == "PUT" and name.endswith("/status"):
            return self._status(kind, given)
        if asked.method == "PUT":
            return self.store.replace(kind, given)
        return self.store.create(kind, given)

    async def _whole(self, status: int, body: Object) -> None:
        data = json.dumps(body).encode() + b"\n"
        headers = [("content-type", "application/json"), ("content-length", str(len(data)))]
        retry = (body.get("details") or {}).get("retryAfterSeconds")
        if status == 429 and retry:
            headers.append(("retry-after", str(retry)))
        await self.send(h11.Response(status_code=status, headers=headers))
        await self.send(h11.Data(data=data))
        await self.send(h11.EndOfMessage())


class _Watch:
    """One watch, to its end."""

    def __init__(self, on: _Conversation, query: Query, asked: Mapping[str, str]) -> None:
        self.on = on
        self.store = on.store
        self.query = query
        self.version = asked.get("resourceVersion", "")
        self.bookmarks = asked.get("allowWatchBookmarks") == "true"
        now = trio.current_time()
        self.ends = now + int(asked.get("timeoutSeconds", "1800"))
        self.next_bookmark = now
        self._plan_bookmark()
        self.sent = 0
        self.told = 0

    async def run(self) -> None:
        head = [("content-type", "application/json"), ("transfer-encoding", "chunked")]
        await self.on.send(h11.Response(status_code=200, headers=head))
        try:
            await self._events()
        except Refused as refused:
            await self._line({"type": "ERROR", "object": refused.status})
        await self.on.send(h11.EndOfMessage())

    async def _events(self) -> None:
        self._refuse()
        if await self._broken():
            return
        seen = self.store.revision
        if self.version in ("", "0"):
            for event in self.store.initial(self.query):
                await self._line(event)
        else:
            seen = int(self.version)
        self.told = seen
        while trio.current_time() < self.ends:
            changed, now = self.store.changed, self.store.revision
            for _, event in self.store.since(self.query, min(seen, now)):
                if int(event["object"]["metadata"]["resourceVersion"]) > seen:
                    await self._line(event)
                    self.told = int(event["object"]["metadata"]["resourceVersion"])
                    if await self._broken():
                        return
            seen = max(seen, now)
            if changed is self.store.changed:
                with trio.move_on_at(min(self.ends, self.next_bookmark)):
                    await changed.wait()
            await self._bookmark()

    def _refuse(self) -> None:
        fault = self.on.fault
        if fault is not None and fault.kind == "gone":
            raise Refused(410, "Expired", "too old resource version: 1 (2)")
        if fault is not None and fault.kind == "error":
            raise Refused(fault.status, "Fault", "as the test wishes")

    async def _bookmark(self) -> None:
        if trio.current_time() < self.next_bookmark:
            return
        self._plan_bookmark()
        if not self.bookmarks or self.store.revision <= self.told:
            return
        self.told = self.store.revision
        metadata = {"resourceVersion": str(self.store.revision), "creationTimestamp": None}
        found = {
            "kind": self.query.kind.name,
            "apiVersion": self.query.kind.group,
            "metadata": metadata,
        }
        await self._line({"type": "BOOKMARK", "object": found})

    def _plan_bookmark(self) -> None:
        """Every minute, and once more shortly before the end."""
        now = trio.current_time()
        last = self.ends - LAST_BOOKMARK
        wish = now + BOOKMARK_EVERY
        self.next_bookmark = last if now < last < wish else wish

    async def _line(self, event: Object) -> None:
        line = json.dumps(event).encode() + b"\n"
        fault = self.on.fault
        self.sent += 1
        for _ in range(2 if fault is not None and fault.kind == "twice" else 1):
            await self.on.send(h11.Data(data=line))

    async def _broken(self) -> bool:
        """What the fault does now; whether the watch is to end."""
        fault = self.on.fault
        if fault is None or self.sent < fault.after:
            return False
        if fault.kind == "cut":
            await self.on.send(h11.Data(data=b'{"type":"ADDED","object":{"meta'))
            raise trio.BrokenResourceError
        if fault.kind == "freeze":
            await trio.sleep_forever()
        if fault.kind == "garbage":
            await self.on.send(h11.Data(data=b"<html>502</html>\n"))
        return fault.kind in ("end", "garbage")
