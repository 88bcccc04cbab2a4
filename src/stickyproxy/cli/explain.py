"""`explain` without a running proxy: clusters as they are when every address is a healthy endpoint."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from stickyproxy.config.mappings.grouping import show_places
from stickyproxy.control.discovery.addresses import endpoints_of, names_of
from stickyproxy.control.explain import Unknown, World
from stickyproxy.model import Cluster, ClusterSpec, Endpoint, Table
from stickyproxy.policy.maglev import MaglevTable
from stickyproxy.policy.ring_hash import RingHash

Resolve = Callable[[str], list[str]]
"""A name to its IP addresses; raises `OSError`."""


def world_of(resolve: Resolve) -> World:
    """What can be known from here: names are asked for, a cluster of Kubernetes is not."""

    def find(spec: ClusterSpec) -> Cluster | Unknown:
        if spec.kube is not None:
            places = show_places(spec)
            known = f"one of the {places}; the cluster knows them and is not asked from here"
            return Unknown(known, reaches=True)
        try:
            return build(spec, resolve)
        except OSError as exc:
            hosts = ", ".join(host for host, _ in spec.targets)
            return Unknown(f"{hosts}: {exc.strerror or exc}", reaches=False)

    return World(find)


def resolve_name(name: str) -> list[str]:
    """A name to its addresses, as the system resolves it."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except UnicodeError:  # of the codec for names
        raise OSError(f"{name} is no host name") from None
    return sorted({str(entry[4][0]).partition("%")[0] for entry in found})


def build(spec: ClusterSpec, resolve: Resolve) -> Cluster:
    """The cluster as it is when every address is a healthy endpoint."""
    known = {name: tuple(resolve(name)) for name in sorted(names_of([spec]))}
    members = endpoints_of(spec, known)
    return Cluster(spec, members, _table(spec, members))


def _table(spec: ClusterSpec, endpoints: Sequence[Endpoint]) -> Table | None:
    weighted = [(endpoint.key, float(endpoint.weight)) for endpoint in endpoints]
    if not weighted or spec.load_balancer.hash is None:
        return None
    if spec.load_balancer.policy == "maglev":
        return MaglevTable.build(weighted)
    return RingHash.build(weighted)
