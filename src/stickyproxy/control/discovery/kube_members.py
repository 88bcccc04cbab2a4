"""From all slices of a Service to its members (as kube-proxy's endpointslicecache merges them).

State is kept per object and the union is made anew on every change. An endpoint that moves between
slices stands for a moment in both or in neither; adding and removing by events would lose it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from stickyproxy import logs
from stickyproxy.control.discovery.kube_slices import (
    Backend,
    Object,
    ServiceKey,
    ServicePorts,
    Slice,
    object_key,
    parse_service,
)
from stickyproxy.model import Endpoint, ServiceRef

T = TypeVar("T")


class Members(NamedTuple):
    """Who may serve. All sorted by key.

    `pickable` takes new sessions: ready and not terminating; with none, those that still serve
    while they terminate. `honoured` holds the keys of all that serve, terminating ones too:
    existing sessions may stay there. `resting` is not ready and may become so (again); a table that
    spans it too moves nobody when it does.
    """

    pickable: tuple[Endpoint, ...] = ()
    honoured: frozenset[str] = frozenset()
    resting: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Resolved:
    """`problem` is for people: why there are no members, or not all; "" if there is none."""

    members: Members
    problem: str = ""


class Read(NamedTuple, Generic[T]):
    """An object as read: its key, and what it says; None where that makes no sense."""

    key: ServiceKey
    says: T | None


class EndpointStore:
    """The objects of one resource. Every change returns the Services that it may concern.

    `read` makes slices of an object. One that it cannot read keeps what it last said.
    """

    def __init__(self, read: Callable[[Object], tuple[Slice, ...]]) -> None:
        self._read = read
        self._slices: dict[ServiceKey, tuple[Slice, ...]] = {}
        self._objects: dict[ServiceKey, set[ServiceKey]] = defaultdict(set)

    def read(self, found: Object) -> Read[tuple[Slice, ...]]:
        """For `replace`, `put` and `delete`: what takes time, and changes nothing yet."""
        return Read(object_key(found), readable(self._read, found))

    def replace(self, objects: Iterable[Read[tuple[Slice, ...]]]) -> set[ServiceKey]:
        """A complete list: what is not in it is gone."""
        fresh = {one.key: one for one in objects}
        touched: set[ServiceKey] = set()
        for gone in self._slices.keys() - fresh.keys():
            touched |= self._set(gone, ())
        for one in fresh.values():
            touched |= self.put(one)
        return touched

    def put(self, found: Read[tuple[Slice, ...]]) -> set[ServiceKey]:
        return set() if found.says is None else self._set(found.key, found.says)

    def delete(self, found: Read[tuple[Slice, ...]]) -> set[ServiceKey]:
        """Takes away what this object said, and nothing that another says too (linkerd2#10370)."""
        return self._set(found.key, ())

    def of(self, service: ServiceKey) -> list[Slice]:
        """All slices of a Service, in the order of their objects' names."""
        keys = sorted(self._objects.get(service, ()))
        return [one for key in keys for one in self._slices[key] if one.service == service]

    def _set(self, key: ServiceKey, slices: tuple[Slice, ...]) -> set[ServiceKey]:
        before = self._slices.pop(key, ())
        if slices == before:
            if slices:
                self._slices[key] = slices
            return set()
        owners = {one.service for one in before if one.service}
        for owner in owners:
            self._objects[owner].discard(key)
            if not self._objects[owner]:
                del self._objects[owner]
        if slices:
            self._slices[key] = slices
        for one in slices:
            if one.service:
                self._objects[one.service].add(key)
                owners.add(one.service)
        return owners


def readable(read: Callable[[Object], T], found: Object) -> T | None:
    """What `read` makes of an object; None, and a line in the log, for one that makes no sense."""
    try:
        return read(found)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        logs.warning("kubernetes_object", name=".".join(object_key(found)), problem=repr(error))
        return None


class ServiceStore:
    """The ports of Services."""

    def __init__(self) -> None:
        self._services: dict[ServiceKey, ServicePorts] = {}

    def read(self, found: Object) -> Read[ServicePorts]:
        return Read(object_key(found), readable(parse_service, found))

    def replace(self, objects: Iterable[Read[ServicePorts]]) -> set[ServiceKey]:
        before = self._services
        self._services = {}
        for key, says in objects:
            service = says or before.get(key)
            if service is not None:
                self._services[key] = service
        keys = before.keys() | self._services.keys()
        return {key for key in keys if before.get(key) != self._services.get(key)}

    def put(self, found: Read[ServicePorts]) -> set[ServiceKey]:
        key, service = found
        if service is None or self._services.get(key) == service:
            return set()
        self._services[key] = service
        return {key}

    def delete(self, found: Read[ServicePorts]) -> set[ServiceKey]:
        return {found.key} if self._services.pop(found.key, None) is not None else set()

    def get(self, key: ServiceKey) -> ServicePorts | None:
        return self._services.get(key)


def resolve(
    wanted: ServiceRef,
    service: ServicePorts | None,
    slices: Sequence[Slice],
    *,
    family: str | None = None,
) -> Resolved:
    """The members of one port of a Service. `family` (IPv4, IPv6) overrides the Service's first."""
    if service is None:
        return Resolved(Members(), f"there is no Service {wanted.service} in {wanted.namespace}")
    if service.external:
        problem = (
            f"Service {wanted.service} is an ExternalName; use the resolver kubernetes-service"
        )
        return Resolved(Members(), problem)
    name = port_name(wanted, service)
    if name is None:
        return Resolved(Members(), _no_such_port(wanted, service))
    odd = "; ".join(sorted({one.odd for one in slices if one.odd}))
    host = f"{wanted.service}.{wanted.namespace}"
    return Resolved(_union(slices, name, family or service.family, host), odd)


def port_name(wanted: ServiceRef, service: ServicePorts) -> str | None:
    """The name under which slices list it: a target port may differ from pod to pod."""
    if wanted.port is None and len(service.ports) == 1:
        return service.ports[0][0]
    port = wanted.default_port if wanted.port is None else wanted.port
    return next((name for name, number in service.ports if port in (number, name)), None)


def _no_such_port(wanted: ServiceRef, service: ServicePorts) -> str:
    has = ", ".join(f"{number} {name}".rstrip() for name, number in service.ports) or "none"
    asked = f"no port {wanted.default_port if wanted.port is None else wanted.port}"
    return f"Service {wanted.service} in {wanted.namespace} has {asked}; its TCP ports: {has}"


def _union(slices: Sequence[Slice], port: str, family: str, host: str) -> Members:
    """Of two families one is taken, so that no pod counts twice."""
    with_port = [one for one in slices if one.backends and any(n == port for n, _ in one.ports)]
    chosen = [one for one in with_port if one.family == family] or with_port
    best: dict[tuple[str, int], Backend] = {}
    for part in chosen:
        numbers = [number for name, number in part.ports if name == port]
        for backend in part.backends:
            for number in numbers:
                known = best.get((backend.address, number))
                if known is None or backend.rank > known.rank:
                    best[backend.address, number] = backend
    endpoints = [(one, _endpoint(one, number, host)) for (_, number), one in best.items()]
    return _sorted_out(sorted(endpoints, key=lambda pair: pair[1].key))


def _endpoint(backend: Backend, port: int, host: str) -> Endpoint:
    address = backend.address
    text = f"[{address}]" if ":" in address else address
    return Endpoint(f"{text}:{port}", ((address, port),), pod=backend.pod, host=host)


def _sorted_out(known: Sequence[tuple[Backend, Endpoint]]) -> Members:
    pickable = tuple(e for b, e in known if b.ready and not b.terminating)
    if not pickable:  # as kube-proxy: better a pod that is leaving than none
        pickable = tuple(e for b, e in known if b.serving and b.terminating)
    resting = tuple(e for b, e in known if not b.ready and not b.terminating)
    honoured = {e.key for b, e in known if b.serving} | {e.key for e in pickable}
    return Members(pickable, frozenset(honoured), resting)
