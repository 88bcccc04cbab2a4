"""EndpointSlices and Endpoints as kept in memory: small, typed, and forgiving about what is missing.

One `Slice` is the state of one object. How several make the members of a Service is
`kube_members`'s business. Field meanings: Kubernetes `discovery/v1/types.go`, `core/v1/types.go`.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Object = Mapping[str, Any]
"""A Kubernetes object as JSON has it."""

SERVICE_LABEL = "kubernetes.io/service-name"


class ServiceKey(NamedTuple):
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Backend:
    """One endpoint in one slice. `address` is an IP in its one spelling (RFC 5952).

    `pod` is its name, None where the endpoint is no Pod.
    """

    address: str
    ready: bool
    serving: bool
    terminating: bool
    pod: str | None = None

    @property
    def rank(self) -> int:
        """Which of several entries for one address is believed: the most useful one."""
        if self.ready and not self.terminating:
            return 2
        return int(self.serving)


@dataclass(frozen=True, slots=True)
class Slice:
    """`ports` is (name, number) of the TCP ports; the single unnamed port has the name "".

    `service` None: no Service owns it. `odd` says what of it cannot be used, "" if nothing.
    """

    service: ServiceKey | None
    family: str
    ports: tuple[tuple[str, int], ...]
    backends: tuple[Backend, ...]
    odd: str = ""


@dataclass(frozen=True, slots=True)
class ServicePorts:
    """What of a Service matters here: (name, number) of its TCP ports, and its first IP family."""

    ports: tuple[tuple[str, int], ...]
    family: str = "IPv4"
    external: bool = False


def object_key(found: Object) -> ServiceKey:
    """Namespace and name of any object."""
    metadata = found.get("metadata")
    if not isinstance(metadata, Mapping):
        return ServiceKey("", "")
    return ServiceKey(str(metadata.get("namespace") or ""), str(metadata.get("name") or ""))


def parse_service(found: Object) -> ServicePorts:
    """A core/v1 Service. A null list is an empty one, everywhere (kubernetes#135968)."""
    spec = found.get("spec") or {}
    ports = tuple(
        (port.get("name") or "", int(port["port"]))
        for port in spec.get("ports") or ()
        if _is_tcp(port) and port.get("port")
    )
    families = spec.get("ipFamilies") or ["IPv4"]
    return ServicePorts(ports, families[0], spec.get("type") == "ExternalName")


def parse_slice(found: Object) -> tuple[Slice, ...]:
    """A discovery.k8s.io/v1 EndpointSlice: one."""
    metadata = found.get("metadata") or {}
    owner = (metadata.get("labels") or {}).get(SERVICE_LABEL)
    service = ServiceKey(metadata.get("namespace") or "", owner) if owner else None
    family = found.get("addressType") or "IPv4"
    if family not in ("IPv4", "IPv6"):
        odd = f"addressType {family} is not routed to; use the resolver kubernetes-service"
        return (Slice(service, family, (), (), odd),)
    ports, odd = _ports(found.get("ports"))
    backends = (_backend(one) for one in found.get("endpoints") or ())
    known = tuple(one for one in backends if one is not None)
    return (Slice(service, family, ports, known, odd),)


def _ports(found: Iterable[Object] | None) -> tuple[tuple[tuple[str, int], ...], str]:
    tcp = [port for port in found or () if _is_tcp(port)]
    numbered = tuple(
        (port.get("name") or "", int(port["port"])) for port in tcp if port.get("port")
    )
    # A null number means all ports (types.go), which says nothing about where to connect.
    odd = "" if len(numbered) == len(tcp) else "a port without a number is passed over"
    return numbered, odd


def _is_tcp(port: Object) -> bool:
    return (port.get("protocol") or "TCP") == "TCP"


def _backend(found: Object) -> Backend | None:
    addresses = found.get("addresses") or ()
    address = _canonical(addresses[0]) if addresses else None  # fungible; kube-proxy: the first
    if address is None:
        return None
    conditions = found.get("conditions") or {}
    ready = conditions.get("ready") is not False  # null is to be read as true
    serving = conditions.get("serving")
    return Backend(
        address=address,
        ready=ready,
        serving=ready if serving is None else bool(serving),
        terminating=bool(conditions.get("terminating")),
        pod=_pod(found),
    )


@functools.lru_cache(16_384)
def _canonical(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def _pod(found: Object) -> str | None:
    target = found.get("targetRef") or {}
    return target.get("name") if target.get("kind") == "Pod" else None


def parse_endpoints(found: Object) -> tuple[Slice, ...]:
    """A core/v1 Endpoints object, of clusters before EndpointSlices: a slice for each subset.

    A subset may hold both families; those are two slices.
    """
    service = object_key(found)
    return tuple(part for subset in found.get("subsets") or () for part in _subset(service, subset))


def _subset(service: ServiceKey, subset: Object) -> Iterable[Slice]:
    ports, odd = _ports(subset.get("ports"))
    known = [(one, True) for one in subset.get("addresses") or ()]
    known += [(one, False) for one in subset.get("notReadyAddresses") or ()]
    backends: dict[str, list[Backend]] = {"IPv4": [], "IPv6": []}
    for one, ready in known:
        address = _canonical(one.get("ip") or "")
        if address is not None:
            backend = Backend(address, ready, ready, terminating=False, pod=_pod(one))
            backends["IPv6" if ":" in address else "IPv4"].append(backend)
    for family, found in backends.items():
        if found:
            yield Slice(service, family, ports, tuple(found), odd)
