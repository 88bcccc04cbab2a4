"""Whether a Mapping's service is a Service of the cluster whose pods we balance over ourselves."""

from __future__ import annotations

import re
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field

from stickyproxy.config.fields.services import Service
from stickyproxy.config.resources.items import Entry, ModuleEntry
from stickyproxy.config.resources.resolution import Balancing, Resolution, kind_of, resolution
from stickyproxy.config.text.addresses import default_port, is_ip
from stickyproxy.config.text.decode import Report
from stickyproxy.model import ServiceRef

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123, as Kubernetes has it
_DOMAINS: tuple[list[str], ...] = ([], ["svc"], ["svc", "cluster", "local"])


@dataclass(frozen=True, slots=True)
class Resolving:
    """What decides it besides the Mapping. `namespace` "" is the one we live in.

    `enabled` is AMBASSADOR_ENABLE_ENDPOINTS, None when unset; `defined` the resolver resources.
    """

    kubernetes: bool = False
    namespace: str = ""
    enabled: bool | None = None
    module: ModuleEntry | None = None
    defined: Dict[str, str] = field(default_factory=dict)


def service_ref(
    entry: Entry, service: Service, resolving: Resolving, report: Report
) -> ServiceRef | None:
    """The pods' Service; None where DNS is asked, after a complaint where that cannot be."""
    name = _cluster_name(service.host) if resolving.kubernetes else None
    if name is None:
        _check_resolver(entry, resolving, report)
        _check_port(entry, service, report)
        return None
    found = _resolution(entry, resolving)
    if found.error:
        _complain(entry, resolving, found.error, report)
        return None
    if found.balancing is Balancing.DNS:
        _check_port(entry, service, report)
        return None
    namespace = name[1] or entry.namespace or resolving.namespace
    return ServiceRef(namespace, name[0], service.port_said, default_port(service.protocol))


def _cluster_name(host: str) -> tuple[str, str] | None:
    """Name and namespace ("" if not said) of `name[.namespace[.svc[.cluster.local]]]`."""
    if host == "localhost" or is_ip(host):
        return None
    name, *rest = host.lower().removesuffix(".").split(".")
    namespace, domain = (rest[0], rest[1:]) if rest else ("", [])
    labels = [name, namespace] if rest else [name]
    if domain not in _DOMAINS or not all(_LABEL.fullmatch(label) for label in labels):
        return None
    return name, namespace


def _resolution(entry: Entry, resolving: Resolving) -> Resolution:
    module = resolving.module.spec if resolving.module is not None else None
    return resolution(
        resolving.enabled,
        resolver=entry.spec.resolver,
        module_resolver=module.resolver if module is not None else None,
        load_balancer=entry.spec.load_balancer is not None,
        module_load_balancer=module is not None and module.load_balancer is not None,
        defined=resolving.defined,
    )


def _complain(entry: Entry, resolving: Resolving, message: str, report: Report) -> None:
    """At the field that says it: the Mapping's, or the Module's where the Mapping says nothing."""
    module = resolving.module
    for key in ("resolver", "load_balancer"):
        if getattr(entry.spec, key) is not None:
            entry.problem(report, message, key)
            return
    for key in ("resolver", "load_balancer"):
        if module is not None and getattr(module.spec, key) is not None:
            module.problem(report, message, key)
            return


def _check_resolver(entry: Entry, resolving: Resolving, report: Report) -> None:
    """Outside a cluster, and for names outside of it, every resolver means asking DNS."""
    module = resolving.module
    for item in (entry, module):
        name = item.spec.resolver if item is not None else None
        if item is not None and name is not None and kind_of(name, resolving.defined) is None:
            item.warn(report, f"{name} is not there, the service is asked of DNS", "resolver")


def _check_port(entry: Entry, service: Service, report: Report) -> None:
    if isinstance(service.port_said, str):
        message = f"port `{service.port_said}` is a name, and DNS knows none; write its number"
        entry.problem(report, message, "service")
