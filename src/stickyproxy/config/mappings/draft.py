"""One Mapping into a match, a target and a cluster, or into complaints."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from stickyproxy.config.edge.tls_contexts import Contexts
from stickyproxy.config.fields.balancer import load_balancer
from stickyproxy.config.fields.checks import check_header, check_hostname, check_path, check_regex
from stickyproxy.config.fields.redirects import is_redirect
from stickyproxy.config.fields.services import Overrides, Service, parse_endpoints, parse_service
from stickyproxy.config.mappings.module import FeatureDefaults, upkeep
from stickyproxy.config.mappings.pods import Resolving, service_ref
from stickyproxy.config.mappings.targets import target_of
from stickyproxy.config.mappings.upstream_tls import upstream_tls
from stickyproxy.config.resources.items import Entry
from stickyproxy.config.text.compose import Node
from stickyproxy.config.text.decode import Report
from stickyproxy.model import (
    ClusterSpec,
    HeaderMatch,
    LoadBalancer,
    RouteMatch,
    Target,
    UpstreamTls,
)

DEFAULT_TIMEOUT = 3.0  # Emissary's cluster_request_timeout_ms
DEFAULT_CONNECT_TIMEOUT = 3.0  # Emissary's connect_timeout_ms


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a Mapping does not say itself. `contexts` None: TLSContexts are not known yet."""

    overrides: Overrides
    timeout: float | None = DEFAULT_TIMEOUT
    backend_ca: Path | None = None
    backend_insecure: bool = False
    resolving: Resolving = field(default_factory=Resolving)
    features: FeatureDefaults = field(default_factory=FeatureDefaults)
    contexts: Contexts | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A Mapping understood. The cluster has no name yet, a redirect has none; `balancer` None

    inherits.
    """

    entry: Entry
    match: RouteMatch
    target: Target
    cluster: ClusterSpec | None
    balancer: LoadBalancer | None

    @property
    def is_shadow(self) -> bool:
        """It gets copies of what the others of its group get."""
        return bool(self.entry.spec.shadow)

    @property
    def weight(self) -> float | None:
        """Percent of its group, as written."""
        return self.entry.spec.weight


def draft(entry: Entry, defaults: Defaults, report: Report) -> Draft | None:
    """All of a Mapping, or None after at least one complaint."""
    before = len(report.problems)
    match = match_of(entry, report)
    balancer = None
    if entry.spec.load_balancer is not None:
        balancer = load_balancer(entry.spec.load_balancer, partial(_balancer_wrong, entry, report))
    if is_redirect(entry):
        target = target_of(entry, None, defaults.timeout, defaults.features, report)
        return None if len(report.problems) > before else Draft(entry, match, target, None, None)
    service = _service(entry, defaults, report)
    target = target_of(entry, service, defaults.timeout, defaults.features, report)
    if service is None:
        return None
    cluster = _cluster(entry, service, defaults, report)
    if len(report.problems) > before or cluster is None:
        return None
    return Draft(entry, match, target, cluster, balancer)


def _balancer_wrong(entry: Entry, report: Report, message: str, *keys: str) -> None:
    entry.problem(report, message, "load_balancer", *keys)


# --- match ----------------------------------------------------------------------------------------


def match_of(entry: Entry, report: Report) -> RouteMatch:
    """What a request must look like; after a complaint it means nothing."""
    spec = entry.spec
    if spec.prefix_regex and spec.prefix_exact:
        entry.problem(report, "and prefix_exact exclude each other; keep one", "prefix_regex")
    kind = "regex" if spec.prefix_regex else "exact" if spec.prefix_exact else "prefix"
    if kind == "regex":
        check_regex(entry, report, spec.prefix, "prefix")
    else:
        check_path(entry, report, spec.prefix)
    if spec.method_regex:
        check_regex(entry, report, spec.method or "", "method")
    hostname, host_regex = _hostname(entry, report)
    return RouteMatch(
        path=spec.prefix,
        path_kind=kind,
        case_sensitive=spec.case_sensitive is not False,
        hostname=hostname,
        hostname_regex=host_regex,
        method=spec.method,
        method_regex=bool(spec.method_regex),
        headers=_conditions(entry, report, "headers", "regex_headers"),
        query_parameters=_conditions(entry, report, "query_parameters", "regex_query_parameters"),
        precedence=spec.precedence,
    )


def _hostname(entry: Entry, report: Report) -> tuple[str, bool]:
    spec = entry.spec
    if spec.hostname is not None and spec.host is not None:
        entry.problem(report, "and hostname say the same; keep hostname", "host")
    if spec.host is not None and spec.host_regex:
        check_regex(entry, report, spec.host, "host")
        return spec.host, True
    key = "hostname" if spec.hostname is not None else "host"
    glob = (spec.hostname or spec.host or "*").lower()
    if "*" in glob.strip("*") or (glob.startswith("*") and glob.endswith("*") and glob != "*"):
        message = f"`{glob}` has a * in a wrong place; right would be *.example.com"
        entry.problem(report, message, key)
    check_hostname(entry, report, glob, key)
    return glob, False


def _conditions(entry: Entry, report: Report, exact: str, regex: str) -> tuple[HeaderMatch, ...]:
    """Sorted by name, so that Mappings that say the same in another order form one group."""
    are_headers = exact == "headers"
    found = []
    for name, value in (getattr(entry.spec, exact) or {}).items():
        if _is_wrong_boolean(entry.node.get(exact, name)):
            text = getattr(entry.node.get(exact, name), "text", "")
            message = f'`{text}` is a boolean in YAML; write "{text}", or true for any value'
            entry.problem(report, message, exact, name)
        found.append(HeaderMatch(name, None if value is True else str(value)))
    for name, pattern in (getattr(entry.spec, regex) or {}).items():
        check_regex(entry, report, pattern, regex, name)
        found.append(HeaderMatch(name, pattern, regex=True))
    if are_headers:
        for condition in found:
            check_header(entry, report, condition.name, exact)
        found = [HeaderMatch(c.name.lower(), c.value, c.regex) for c in found]
    return tuple(sorted(found, key=lambda c: (c.name, c.regex, c.value or "")))


def _is_wrong_boolean(node: Node | None) -> bool:
    return node is not None and isinstance(node.value, bool) and node.text.lower() != "true"


# --- cluster --------------------------------------------------------------------------------------


def _service(entry: Entry, defaults: Defaults, report: Report) -> Service | None:
    spec = entry.spec
    try:
        return parse_service(
            spec.service,
            tls=spec.tls,
            grpc=spec.grpc,
            namespace=entry.namespace,
            port_names=defaults.resolving.kubernetes,
        )
    except ValueError as exc:
        entry.problem(report, str(exc), "service")
        return None


def _cluster(
    entry: Entry, service: Service, defaults: Defaults, report: Report
) -> ClusterSpec | None:
    spec = entry.spec
    targets = defaults.overrides.find(service, entry.namespace)
    weights: tuple[int, ...] = ()
    try:
        if targets is None and spec.endpoints is not None:
            targets, weights = parse_endpoints(spec.endpoints, service.port)
    except ValueError as exc:
        entry.problem(report, str(exc), "endpoints")
        return None
    kube = None
    if targets is None:
        kube = service_ref(entry, service, defaults.resolving, report)
        targets = () if kube is not None else ((service.host, service.port),)
    connect = spec.connect_timeout_ms
    return ClusterSpec(
        name="",
        service=spec.service,
        protocol=service.protocol,
        targets=targets,
        weights=weights,
        tls=_tls(entry, service, defaults, report) if service.protocol.tls else None,
        connect_timeout=DEFAULT_CONNECT_TIMEOUT if connect is None else connect / 1000,
        kube=kube,
        upkeep=upkeep(entry, defaults.features, report, multiplexed=service.protocol.multiplexed),
        tag=spec.cluster_tag or "",
        stats_name=spec.stats_name or "",
    )


def _tls(entry: Entry, service: Service, defaults: Defaults, report: Report) -> UpstreamTls:
    return upstream_tls(
        entry,
        service.host,
        defaults.contexts,
        report,
        backend_ca=defaults.backend_ca,
        backend_insecure=defaults.backend_insecure,
    )
