"""Who balances a Service: we, over its pods, or kube-proxy behind its DNS name. One table.

Ambassador 0.52 switched endpoint routing on for the whole process (`AMBASSADOR_ENABLE_ENDPOINTS`);
from 0.60 on a `resolver` chooses, of the Mapping or of the Module, and a `load_balancer` needs one that
knows endpoints. All of it stays sayable here; what differs is the default: straight to the pods.

| AMBASSADOR_ENABLE_ENDPOINTS | resolver                   | load_balancer | who balances         |
| --------------------------- | -------------------------- | ------------- | -------------------- |
| any                         | KubernetesEndpointResolver | any           | we, over the pods    |
| any                         | KubernetesServiceResolver  | none          | kube-proxy, by DNS   |
| any                         | KubernetesServiceResolver  | one           | an error, as Emissary's |
| unset or true               | none                       | any           | we, over the pods    |
| false                       | none                       | none          | kube-proxy, by DNS   |
| false                       | none                       | one           | an error             |

A Mapping's resolver wins over the Module's. A `load_balancer` is the Mapping's own or the Module's; the
Module's makes no error of a Mapping that asks for DNS itself, it just has no effect there.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping as Dict
from dataclasses import dataclass

ENABLE_ENDPOINTS = "AMBASSADOR_ENABLE_ENDPOINTS"

ENDPOINT_KIND = "KubernetesEndpointResolver"
SERVICE_KIND = "KubernetesServiceResolver"

BUILT_IN: Dict[str, str] = {
    "endpoint": ENDPOINT_KIND,
    "kubernetes-endpoint": ENDPOINT_KIND,
    "kubernetes-service": SERVICE_KIND,
}
"""Resolvers that are there without a resource (Emissary's irserviceresolver.py)."""

_FALSE = frozenset(("0", "false", "no", "off", "n", "f"))
_TRUE = frozenset(("1", "true", "yes", "on", "y", "t"))


class Balancing(enum.Enum):
    """Who chooses the pod of a request."""

    PODS = "pods"
    DNS = "dns"


@dataclass(frozen=True, slots=True)
class Resolution:
    """`error` says what is wrong and what would be right; then `balancing` means nothing."""

    balancing: Balancing
    error: str = ""


def endpoints_enabled(text: str) -> bool | None:
    """What AMBASSADOR_ENABLE_ENDPOINTS says: None when empty. Raises `ValueError` for nonsense."""
    said = text.strip().lower()
    if not said:
        return None
    if said in _TRUE | _FALSE:
        return said in _TRUE
    raise ValueError(f"`{text}` is neither true nor false; right would be true")


def kind_of(resolver: str, defined: Dict[str, str]) -> str | None:
    """The kind of a resolver by its name; None for one that is not there.

    `defined` has the names and kinds of resolver resources; they win over the built-in names.
    """
    return defined.get(resolver) or BUILT_IN.get(resolver)


def resolution(
    enabled: bool | None,
    *,
    resolver: str | None = None,
    module_resolver: str | None = None,
    load_balancer: bool = False,
    module_load_balancer: bool = False,
    defined: Dict[str, str] | None = None,
) -> Resolution:
    """The table. Resolvers by name, None for none; the two booleans say where a load_balancer is."""
    name = resolver if resolver is not None else module_resolver
    if name is None:
        return _without_resolver(enabled, load_balancer or module_load_balancer)
    kind = kind_of(name, defined or {})
    if kind == ENDPOINT_KIND:
        return Resolution(Balancing.PODS)
    if kind == SERVICE_KIND:
        own = resolver is not None
        return _by_service(name, load_balancer or (module_load_balancer and not own))
    right = "right would be kubernetes-endpoint or kubernetes-service"
    known = f"is a {kind}, which is not served" if kind else "is not there"
    return Resolution(Balancing.PODS, f"resolver {name} {known}; {right}")


def _without_resolver(enabled: bool | None, load_balancer: bool) -> Resolution:
    if enabled is not False:
        return Resolution(Balancing.PODS)
    if not load_balancer:
        return Resolution(Balancing.DNS)
    return Resolution(
        Balancing.DNS,
        f"load_balancer needs the pods, and {ENABLE_ENDPOINTS} is false; "
        "add resolver: kubernetes-endpoint, or unset it",
    )


def _by_service(name: str, load_balancer: bool) -> Resolution:
    if not load_balancer:
        return Resolution(Balancing.DNS)
    return Resolution(
        Balancing.DNS,
        f"load_balancer needs the pods, and resolver {name} leaves them to kube-proxy; "
        "right would be resolver: kubernetes-endpoint",
    )
