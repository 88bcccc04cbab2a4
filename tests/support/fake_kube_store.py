"""What a Kubernetes API server remembers: objects, one revision counter, a log with a floor."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import trio

Object = dict[str, Any]


class Kind(NamedTuple):
    """A resource type that is served. `custom`: defined by a CRD, which may not be installed, and

    asked for in several versions.
    """

    group: str
    plural: str
    name: str
    custom: bool = False

    @property
    def root(self) -> str:
        return f"/apis/{self.group}" if "/" in self.group else f"/api/{self.group}"


SERVICES = Kind("v1", "services", "Service")
ENDPOINTS = Kind("v1", "endpoints", "Endpoints")
SLICES = Kind("discovery.k8s.io/v1", "endpointslices", "EndpointSlice")
INGRESSES = Kind("networking.k8s.io/v1", "ingresses", "Ingress")
SECRETS = Kind("v1", "secrets", "Secret")
AMBASSADOR = "getambassador.io"


def ambassador(plural: str, name: str, version: str = "v3alpha1") -> Kind:
    return Kind(f"{AMBASSADOR}/{version}", plural, name, custom=True)


MAPPINGS = ambassador("mappings", "Mapping")
MODULES = ambassador("modules", "Module")
HOSTS = ambassador("hosts", "Host")
CUSTOM = (
    MAPPINGS,
    MODULES,
    HOSTS,
    ambassador("listeners", "Listener"),
    ambassador("tlscontexts", "TLSContext"),
    ambassador("kubernetesendpointresolvers", "KubernetesEndpointResolver"),
    ambassador("kubernetesserviceresolvers", "KubernetesServiceResolver"),
    ambassador("consulresolvers", "ConsulResolver"),
)
KINDS = (SERVICES, ENDPOINTS, SLICES, INGRESSES, SECRETS, *CUSTOM)


class Change(NamedTuple):
    """`before` and `after` are None where the object was not there."""

    revision: int
    kind: Kind
    before: Object | None
    after: Object | None


@dataclass(frozen=True, slots=True)
class Query:
    """What of a kind is asked for."""

    kind: Kind
    namespace: str = ""
    selector: str = ""

    def takes(self, found: Object | None) -> bool:
        if found is None:
            return False
        metadata = found["metadata"]
        if self.namespace not in ("", metadata["namespace"]):
            return False
        return all(_has(metadata.get("labels") or {}, one) for one in self.selector.split(","))


def _has(labels: Mapping[str, str], requirement: str) -> bool:
    key, equals, value = requirement.partition("=")
    return not key or (labels.get(key) == value.lstrip("=") if equals else key in labels)


class Refused(Exception):  # noqa: N818 (a Status, not a failure of ours)
    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }
        if details:
            self.status["details"] = details


class KubeStore:
    """`changed` is set, and replaced, on every write."""

    def __init__(self, revision: int = 100) -> None:
        self.revision = revision
        self.floor = revision
        self.log: list[Change] = []
        self.changed = trio.Event()
        self._objects: dict[tuple[str, str, str], Object] = {}

    # --- writing ---

    def put(self, kind: Kind, given: Mapping[str, Any]) -> Object:
        """Create or replace."""
        found = copy.deepcopy(dict(given))
        metadata = found.setdefault("metadata", {})
        metadata.setdefault("namespace", "default")
        key = (kind.plural, metadata["namespace"], metadata["name"])
        before = self._objects.get(key)
        self.revision += 1
        metadata["resourceVersion"] = str(self.revision)
        old = before["metadata"] if before else {"uid": f"uid-{self.revision}"}
        metadata["uid"] = old["uid"]
        metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        found.update(kind=kind.name, apiVersion=kind.group)
        if kind.custom:
            _keep_status(found, before)
        self._objects[key] = found
        self._note(Change(self.revision, kind, before, found))
        return found

    def create(self, kind: Kind, given: Mapping[str, Any]) -> Object:
        """Raises `Refused` (409) for a name that is taken."""
        metadata = given["metadata"]
        name = metadata["name"]
        if (kind.plural, metadata["namespace"], name) in self._objects:
            message = f'{_qualified(kind)} "{name}" already exists'
            raise Refused(409, "AlreadyExists", message, name=name, kind=kind.plural)
        return self.put(kind, given)

    def replace(self, kind: Kind, given: Mapping[str, Any]) -> Object:
        """Raises `Refused`: 404, or 409 for an object that was read before its last change."""
        metadata = given["metadata"]
        before = self.get(kind, metadata["namespace"], metadata["name"])
        version = before["metadata"]["resourceVersion"]
        if metadata.get("resourceVersion", version) != version:
            message = f'Operation cannot be fulfilled on {_qualified(kind)} "{metadata["name"]}"'
            raise Refused(409, "Conflict", message)
        return self.put(kind, given)

    def replace_status(self, kind: Kind, given: Mapping[str, Any]) -> Object:
        """Of all that is given only the status counts. Raises `Refused` as `replace` does."""
        metadata = given["metadata"]
        before = self.get(kind, metadata["namespace"], metadata["name"])
        current = before["metadata"]
        wanted = metadata.get("resourceVersion", current["resourceVersion"])
        if wanted != current["resourceVersion"] or metadata.get("uid") != current["uid"]:
            message = f'Operation cannot be fulfilled on {_qualified(kind)} "{metadata["name"]}"'
            raise Refused(409, "Conflict", message)
        found = copy.deepcopy(before)
        found["status"] = given.get("status")
        self.revision += 1
        found["metadata"]["resourceVersion"] = str(self.revision)
        self._objects[kind.plural, metadata["namespace"], metadata["name"]] = found
        self._note(Change(self.revision, kind, before, found))
        return found

    def delete(self, kind: Kind, namespace: str, name: str) -> Object:
        """Raises `Refused` (404)."""
        found = copy.deepcopy(self.get(kind, namespace, name))
        before = self._objects.pop((kind.plural, namespace, name))
        self.revision += 1
        found["metadata"]["resourceVersion"] = str(self.revision)  # a deletion has its own
        self._note(Change(self.revision, kind, before, None))
        return found

    def compact(self) -> None:
        """Forget the past: every older version is expired now."""
        self.floor = self.revision
        self.log.clear()

    def set_back(self, revision: int) -> None:
        """As restored from a backup: the counter is behind what clients have seen."""
        self.revision = self.floor = revision
        self.log.clear()

    def _note(self, change: Change) -> None:
        self.log.append(change)
        changed, self.changed = self.changed, trio.Event()
        changed.set()

    # --- reading ---

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        try:
            return self._objects[kind.plural, namespace, name]
        except KeyError:
            message = f'{_qualified(kind)} "{name}" not found'
            raise Refused(404, "NotFound", message, name=name, kind=kind.plural) from None

    def list(self, query: Query, version: str, limit: int, token: str) -> Object:
        """Raises `Refused`: 504 for a version of the future, 410 for a page that is too late."""
        at, start = self.revision, ("", "")
        if token:
            saved = json.loads(base64.b64decode(token))
            at, start = saved["at"], tuple(saved["start"])
            if at < self.floor:
                message = "The provided continue parameter is too old to display a consistent list"
                raise Refused(410, "Expired", message)
        elif version and int(version) > self.revision:
            raise too_large(version, self.revision)
        keys = self._keys(query, at)
        rest = [key for key in sorted(keys) if key >= start]
        page = rest[:limit] if limit and version != "0" else rest
        metadata: Object = {"resourceVersion": str(at)}
        if len(page) < len(rest):
            after = {"at": at, "start": list(rest[len(page)])}
            metadata["continue"] = base64.b64encode(json.dumps(after).encode()).decode()
            metadata["remainingItemCount"] = len(rest) - len(page)
        return {
            "kind": f"{query.kind.name}List",
            "apiVersion": query.kind.group,
            "metadata": metadata,
            "items": [_as_item(keys[key]) for key in page],
        }

    def _keys(self, query: Query, at: int) -> dict[tuple[str, str], Object]:
        """What the query took at a revision: now, with the log undone down to there."""
        known = {k[1:]: v for k, v in self._objects.items() if k[0] == query.kind.plural}
        for change in reversed(self.log):
            if change.revision <= at:
                break
            metadata = (change.before or change.after or {})["metadata"]
            key = metadata["namespace"], metadata["name"]
            if change.kind.plural == query.kind.plural and change.before is not None:
                known[key] = change.before
            elif change.kind.plural == query.kind.plural:
                known.pop(key, None)
        return {key: found for key, found in known.items() if query.takes(found)}

    def initial(self, query: Query) -> Iterator[Object]:
        """For a watch without a version: what is there, as if it had just come."""
        keys = self._keys(query, self.revision)
        yield from ({"type": "ADDED", "object": keys[key]} for key in sorted(keys))

    def since(self, query: Query, revision: int) -> Iterator[tuple[int, Object]]:
        """Events after a revision, as a watcher with this query sees them.

        Raises `Refused` (410) for one below the floor.
        """
        if revision < self.floor:
            message = f"too old resource version: {revision} ({self.floor})"
            raise Refused(410, "Expired", message)
        for change in list(self.log):
            if revision < change.revision and change.kind.plural == query.kind.plural:
                event = _seen(query, change)
                if event is not None:
                    yield change.revision, event


def _keep_status(found: Object, before: Object | None) -> None:
    """As for a kind with a status subresource: who writes the object leaves its status alone, and

    its generation counts what it asks for.
    """
    found.pop("status", None)
    if before is not None and "status" in before:
        found["status"] = before["status"]
    generation = before["metadata"]["generation"] if before is not None else 0
    changed = before is None or before.get("spec") != found.get("spec")
    found["metadata"]["generation"] = generation + int(changed)


def _as_item(found: Object) -> Object:
    return {key: value for key, value in found.items() if key not in ("kind", "apiVersion")}


def _seen(query: Query, change: Change) -> Object | None:
    """Leaving the selector is a deletion, entering it an addition."""
    before, after = query.takes(change.before), query.takes(change.after)
    if not before and not after:
        return None
    found = copy.deepcopy(change.after if after or change.after else change.before)
    if found is None:
        return None
    found["metadata"]["resourceVersion"] = str(change.revision)
    return {"type": "MODIFIED" if before and after else "ADDED" if after else "DELETED"} | {
        "object": found
    }


def too_large(version: str, current: int) -> Refused:
    return Refused(
        504,
        "Timeout",
        f"Too large resource version: {version}, current: {current}",
        causes=[{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        retryAfterSeconds=1,
    )


def _qualified(kind: Kind) -> str:
    group = kind.group.partition("/")[0]
    return f"{kind.plural}.{group}" if "/" in kind.group else kind.plural
