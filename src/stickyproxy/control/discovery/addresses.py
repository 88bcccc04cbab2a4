"""From a cluster's targets to its endpoints, given what names resolve to."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from stickyproxy.model import ClusterSpec, Endpoint

Addresses = tuple[str, ...]


def is_literal(host: str) -> bool:
    """An IP address needs no DNS."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def names_of(specs: Iterable[ClusterSpec]) -> set[str]:
    """The host names of all targets."""
    return {host for spec in specs for host, _ in spec.targets if not is_literal(host)}


def endpoints_of(spec: ClusterSpec, known: Mapping[str, Addresses]) -> tuple[Endpoint, ...]:
    """Sorted by key, each key once. A name that is not known yet gives none."""
    found: dict[str, Endpoint] = {}
    weights = spec.weights or (1,) * len(spec.targets)
    for (host, port), weight in zip(spec.targets, weights, strict=True):
        addresses = (host,) if is_literal(host) else _of_family(known.get(host, ()), spec)
        for hosts in _one_host_each(addresses):
            endpoint = _endpoint(host, hosts, port, weight)
            found.setdefault(endpoint.key, endpoint)
    return tuple(found[key] for key in sorted(found))


def _of_family(addresses: Addresses, spec: ClusterSpec) -> Addresses:
    """`enable_ipv4: false` and the like; both families where nothing is said."""
    families = spec.upkeep.families
    if not families:
        return addresses
    return tuple(address for address in addresses if (":" in address) == (families == "v6"))


def _one_host_each(addresses: Addresses) -> list[Addresses]:
    """Each address is an endpoint, but one IPv4 and one IPv6 address are one host known twice.

    Of several in both families the IPv4 ones are taken (Emissary's enable_ipv4 true, enable_ipv6
    false): nothing says which belong together, and each host must count once.
    """
    v4 = [address for address in addresses if ":" not in address]
    v6 = [address for address in addresses if ":" in address]
    if len(v4) == 1 and len(v6) == 1:
        return [(v4[0], v6[0])]
    return [(address,) for address in v4 or v6]


def _endpoint(name: str, hosts: Addresses, port: int, weight: int) -> Endpoint:
    first = ipaddress.ip_address(hosts[0])
    text = f"[{first}]" if first.version == 6 else str(first)
    addresses = tuple((host, port) for host in hosts)
    return Endpoint(f"{text}:{port}", addresses, weight, host=name)
