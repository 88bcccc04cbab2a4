"""Where a service lives: `service`, `endpoints`, `--service`, and how it is spoken to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from stickyproxy.config.schema.mapping import EndpointSpec
from stickyproxy.config.text.addresses import (
    PROTOCOLS,
    Url,
    default_port,
    is_ip,
    parse_url,
    split_host_port,
)
from stickyproxy.model import UpstreamProtocol

OWN_NAMESPACE = "default"  # Emissary's own, unless told otherwise; its Services need no suffix

Targets = tuple[tuple[str, int], ...]

_GRPC_SCHEMES = frozenset(("grpc", "grpcs"))
MOST_WEIGHT = 2**32 - 1  # of all endpoints together, in Envoy and in the tables of `policy`
_EXAMPLE = "qotm.prod:8080"
# RFC 6335 §5.1: at most 15 of a-z, 0-9 and hyphen, one of them a letter.
_PORT_NAME = re.compile(r"(.*[^:/\]]):(?=[0-9-]*[a-z])([a-z0-9](?:[a-z0-9-]{0,13}[a-z0-9])?)")


@dataclass(frozen=True, slots=True)
class Service:
    """A service as understood. `name` is as written, `host` qualified by namespace.

    `port_said` is as written: a number, the name of a Service's port, or None.
    """

    name: str
    host: str
    port: int
    protocol: UpstreamProtocol
    grpc: bool
    port_said: int | str | None = None


@dataclass(slots=True)
class Overrides:
    """`--service NAME=HOST:PORT[,…]`, and which of them were used."""

    targets: dict[str, tuple[tuple[str, int | None], ...]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def add(self, text: str) -> None:
        """Take one `NAME=HOST:PORT[,…]`; raises `ValueError`."""
        right = "qotm=127.0.0.1:8001,127.0.0.1:8002"
        name, equals, rest = text.partition("=")
        if not equals or not name or not rest.strip(","):
            raise ValueError(f"`{text}` is not NAME=HOST:PORT[,HOST:PORT]; right would be {right}")
        if "://" in text:
            raise ValueError(
                f"`{text}` has a scheme, which belongs to the Mapping; right would be {right}"
            )
        places = tuple(split_host_port(part, right) for part in rest.split(",") if part)
        self.targets[name] = self.targets.get(name, ()) + places

    def find(self, service: Service, namespace: str | None) -> Targets | None:
        """The targets for a service, by its most exact name."""
        for name in _names(service, namespace):
            if name in self.targets:
                self.used.add(name)
                return tuple((h, p or service.port) for h, p in self.targets[name])
        return None

    def unused(self) -> list[str]:
        return [name for name in self.targets if name not in self.used]


def _names(service: Service, namespace: str | None) -> list[str]:
    labels = service.host.split(".")
    bare = service.host if is_ip(service.host) else labels[0]
    space = labels[1] if len(labels) > 1 else namespace or OWN_NAMESPACE
    names = [service.host, f"{bare}.{space}", bare]
    return [f"{name}:{service.port}" for name in names] + names


def parse_service(
    text: str,
    *,
    tls: bool | str | None,
    grpc: bool | None,
    namespace: str | None,
    port_names: bool = False,
) -> Service:
    """`[scheme://]name[.namespace][:port]` with the Mapping's `tls` and `grpc`.

    `port_names`: the port may be one of a Kubernetes Service, by name. Raises `ValueError` where
    scheme and fields contradict each other.
    """
    named = _PORT_NAME.fullmatch(text) if port_names else None
    url = parse_url(named[1] if named else text, _EXAMPLE)
    if url.scheme is None:
        protocol = _protocol(bool(tls), bool(grpc))
    else:
        protocol = PROTOCOLS[url.scheme]
        if tls and not protocol.tls:
            raise ValueError(f"{url.scheme}:// has no TLS, but tls asks for it; remove one")
        if grpc:
            protocol = _protocol(protocol.tls, grpc=True)
    speaks_grpc = bool(grpc) or url.scheme in _GRPC_SCHEMES
    port = url.port or default_port(protocol)
    said = named[2] if named else url.port
    return Service(text, _qualified(url, namespace), port, protocol, speaks_grpc, said)


def _protocol(tls: bool, grpc: bool) -> UpstreamProtocol:
    if grpc:
        return UpstreamProtocol.H2 if tls else UpstreamProtocol.H2C
    return UpstreamProtocol.HTTPS if tls else UpstreamProtocol.HTTP


def _qualified(url: Url, namespace: str | None) -> str:
    """Emissary's rule: a bare name means the Mapping's namespace, unless that is our own."""
    bare = "." not in url.host and ":" not in url.host and url.host != "localhost"
    if bare and namespace and namespace != OWN_NAMESPACE:
        return f"{url.host}.{namespace}"
    return url.host


def parse_endpoints(
    endpoints: Sequence[str | EndpointSpec], port: int
) -> tuple[Targets, tuple[int, ...]]:
    """Targets and their weights (empty if all are 1). Raises `ValueError`."""
    if not endpoints:
        raise ValueError("is an empty list; right would be [10.0.0.7:8080], or leave it out")
    targets, weights = [], []
    for endpoint in endpoints:
        spec = EndpointSpec(endpoint) if isinstance(endpoint, str) else endpoint
        if "://" in spec.address:
            raise ValueError(
                f"`{spec.address}` has a scheme, which belongs to service; right would be "
                "10.0.0.7:8080"
            )
        host, own_port = split_host_port(spec.address, "10.0.0.7:8080")
        targets.append((host, own_port or port))
        weights.append(spec.weight)
    if len(set(targets)) < len(targets):
        raise ValueError("names an address twice; keep one (a weight says how much it gets)")
    if sum(weights) > MOST_WEIGHT:
        raise ValueError(
            f"weights sum to {sum(weights)}, which is above {MOST_WEIGHT}; give smaller ones"
        )
    return tuple(targets), () if set(weights) == {1} else tuple(weights)
