"""What became of a Mapping, written into its `status` (Emissary's MappingStatus: `state`, `reason`).

Several replicas say the same of the same objects, for what is written depends on the objects alone: who
comes second finds it there. What somebody else writes over it stays, so that two who disagree (another
version, Emissary itself) do not write for ever.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import trio

from stickyproxy import logs
from stickyproxy.control.discovery.kube_client import ApiError, ApiUnreachable, KubeClient
from stickyproxy.control.discovery.kube_reflector import Backoff
from stickyproxy.control.discovery.kube_server import AccessError
from stickyproxy.control.discovery.kube_slices import Object

SETTLE = 1.0
"""Seconds that a wish waits, and up to twice that: of several changes at once only the outcome is
written, and replicas, who hear of them in the same moment, mostly find it written."""
PACE = 0.1  # seconds between two writes: 1,000 new Mappings in under two minutes
REFUSED_AGAIN = 300.0  # seconds until writing is tried again where it is not allowed
TRIES = 3  # with an object that others change at the same time
LONGEST_REASON = 1024  # characters: a status is for people


class Subject(NamedTuple):
    """An object that has a status."""

    kind: str
    namespace: str
    name: str
    uid: str


class Wish(NamedTuple):
    state: str
    reason: str


class Objects(Protocol):
    """Where the objects are known (`KubeResources`)."""

    def live(self, kind: str, namespace: str, name: str) -> Object | None: ...

    def path_of(self, kind: str, namespace: str) -> str | None: ...


class StatusWriter:
    """`wish` replaces all wishes; `run` fulfils them, one after the other."""

    def __init__(
        self, client: KubeClient, objects: Objects, rng: random.Random | None = None
    ) -> None:
        self.problem = ""
        self.written = 0
        self._client = client
        self._objects = objects
        self._rng = rng or random.Random()
        self._backoff = Backoff(self._rng)
        self._wishes: dict[Subject, Wish] = {}
        self._done: dict[Subject, Wish] = {}
        self._changed = trio.Event()
        self._spelling: dict[str, str] = {}

    def wish(self, wishes: Mapping[Subject, Wish]) -> None:
        """What each object's status should say from now on."""
        self._wishes = {
            subject: wish._replace(reason=wish.reason[:LONGEST_REASON])
            for subject, wish in wishes.items()
        }
        self._done = {one: wish for one, wish in self._done.items() if one in self._wishes}
        self._changed.set()

    async def run(self) -> None:
        while True:
            await self._changed.wait()
            await trio.sleep(SETTLE * (1 + self._rng.random()))
            self._changed = trio.Event()
            for subject in list(self._wishes):
                await self._fulfil(subject)

    async def _fulfil(self, subject: Subject) -> None:
        """Tried until it is done, pointless, or wished no more."""
        while True:
            wish = self._wishes.get(subject)
            if wish is None or wish == self._done.get(subject):
                return
            try:
                if await self._write(subject, wish):
                    await trio.sleep(PACE)
            except ApiError as error:
                await self._refused(subject, error)
            except (ApiUnreachable, AccessError):
                await trio.sleep(self._backoff.delay())
            else:
                self._backoff.reset()
                self._done[subject] = wish

    async def _write(self, subject: Subject, wish: Wish) -> bool:
        """Whether there was anything to write."""
        found = self._objects.live(subject.kind, subject.namespace, subject.name)
        for _ in range(TRIES):
            wanted = {"state": self._spelling.get(wish.state, wish.state), "reason": wish.reason}
            if found is None or found["metadata"].get("uid") != subject.uid:
                return False
            if _says(found.get("status"), wanted):
                return False
            try:
                await self._put(subject, found, wanted)
            except ApiError as error:
                if error.status == 422 and wish.state not in self._spelling:
                    self._spelling[wish.state] = "Inactive"  # Emissary's definition knows no Error
                elif error.status == 409:
                    found = await self._get(subject)
                else:
                    raise
                continue
            return True
        return False

    async def _put(self, subject: Subject, found: Object, wanted: Mapping[str, str]) -> None:
        """A status alone: of the rest the server keeps what it has."""
        metadata = {
            name: found["metadata"].get(name)
            for name in ("name", "namespace", "uid", "resourceVersion")
        }
        path = self._objects.path_of(subject.kind, subject.namespace) or ""
        group, version = path.split("/")[2:4]
        before = found.get("status")
        status = {**(before if isinstance(before, Mapping) else {}), **wanted}
        body = {
            "apiVersion": f"{group}/{version}",
            "kind": subject.kind,
            "metadata": metadata,
            "status": status,
        }
        await self._client.send("PUT", f"{path}/{subject.name}/status", body=body)
        self.written += 1
        if self.problem:
            logs.info("kubernetes_status_again", after=self.problem)
            self.problem = ""

    async def _get(self, subject: Subject) -> Object | None:
        path = self._objects.path_of(subject.kind, subject.namespace)
        try:
            found: Any = await self._client.get(f"{path}/{subject.name}")
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found if isinstance(found, Mapping) else None

    async def _refused(self, subject: Subject, error: ApiError) -> None:
        if error.status == 404 and await self._is_gone(subject):
            self._done[subject] = self._wishes.get(subject, Wish("", ""))
            return
        if error.status not in (403, 404, 405):
            at_least = error.retry_after or 0.0
            if error.status == 422:
                self._tell(f"{subject.kind} {subject.namespace}/{subject.name}: {error}")
                self._done[subject] = self._wishes.get(subject, Wish("", ""))
            await trio.sleep(self._backoff.delay(at_least))
            return
        self._tell(f"{error}; needs the verb update on {_resource(self._objects, subject)}/status")
        await trio.sleep(REFUSED_AGAIN)

    async def _is_gone(self, subject: Subject) -> bool:
        try:
            return await self._get(subject) is None
        except (ApiError, ApiUnreachable, AccessError):
            return False

    def _tell(self, problem: str) -> None:
        """Once until it is well again: a proxy serves as well without."""
        if problem != self.problem:
            self.problem = problem
            logs.warning("kubernetes_status", problem=problem)


def _says(status: Any, wanted: Mapping[str, str]) -> bool:
    known = status if isinstance(status, Mapping) else {}
    return all(str(known.get(name) or "") == text for name, text in wanted.items())


def _resource(objects: Objects, subject: Subject) -> str:
    path = objects.path_of(subject.kind, subject.namespace) or ""
    return path.rpartition("/")[2] or subject.kind
