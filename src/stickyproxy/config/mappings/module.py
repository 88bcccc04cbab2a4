"""The Module's part of a Mapping, and what it says of the edge."""

from __future__ import annotations

import ipaddress
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace

from stickyproxy.config.fields import features
from stickyproxy.config.process.settings import ProcessSettings
from stickyproxy.config.resources.items import Entry, ModuleEntry
from stickyproxy.config.schema.features import ClientCertDetailsSpec, IpRangeSpec
from stickyproxy.config.text.decode import Report
from stickyproxy.rules import (
    CircuitBreaker,
    Cors,
    EdgePolicy,
    GateRules,
    IpRange,
    Keepalive,
    OutlierDetection,
    RetryPolicy,
    Upkeep,
)

_UNDERSCORES = {"REJECT_REQUEST": "reject", "DROP_HEADER": "drop"}


@dataclass(frozen=True, slots=True)
class FeatureDefaults:
    """What Mappings without their own take from the Module. Times in seconds."""

    cors: Cors | None = None
    retry: RetryPolicy | None = None
    circuit_breakers: tuple[CircuitBreaker, ...] = ()
    outlier_detection: OutlierDetection | None = None
    keepalive: Keepalive | None = None
    idle_timeout: float | None = None
    max_lifetime: float | None = None
    ipv4: bool | None = None
    ipv6: bool | None = None
    linkerd: bool = False
    grpc_web: bool = True


def feature_defaults(module: ModuleEntry | None, report: Report) -> FeatureDefaults:
    """Complains about the Module where it is wrong."""
    if module is None:
        return FeatureDefaults()
    spec = module.spec
    return FeatureDefaults(
        cors=features.cors(module, spec.cors, report),
        retry=features.retry_policy(module, spec.retry_policy, report),
        circuit_breakers=features.circuit_breakers(module, spec.circuit_breakers, report),
        outlier_detection=features.outlier_detection(module, spec.outlier_detection, report),
        keepalive=features.keepalive(spec.keepalive),
        idle_timeout=_seconds(spec.cluster_idle_timeout_ms),
        max_lifetime=_seconds(spec.cluster_max_connection_lifetime_ms),
        ipv4=spec.enable_ipv4,
        ipv6=spec.enable_ipv6,
        linkerd=bool(spec.add_linkerd_headers),
        grpc_web=spec.enable_grpc_web is not False,
    )


def upkeep(entry: Entry, defaults: FeatureDefaults, report: Report, *, multiplexed: bool) -> Upkeep:
    """How a Mapping's cluster is looked after. 0 milliseconds count as not given, as in Emissary."""
    spec = entry.spec
    breakers = defaults.circuit_breakers
    if spec.circuit_breakers is not None:
        breakers = features.circuit_breakers(entry, spec.circuit_breakers, report)
    return Upkeep(
        keepalive=features.keepalive(spec.keepalive) or defaults.keepalive,
        idle_timeout=_seconds(spec.cluster_idle_timeout_ms) or defaults.idle_timeout,
        max_lifetime=_seconds(spec.cluster_max_connection_lifetime_ms) or defaults.max_lifetime,
        families=_families(entry, defaults, report),
        circuit_breakers=breakers,
        health_checks=features.health_checks(
            entry, spec.health_checks, report, multiplexed=multiplexed
        ),
        outlier_detection=features.outlier_detection(entry, spec.outlier_detection, report)
        or defaults.outlier_detection,
        proxy_protocol=spec.proxy_protocol or "",
    )


def _seconds(milliseconds: int | None) -> float | None:
    return milliseconds / 1000 if milliseconds else None


def _families(entry: Entry, defaults: FeatureDefaults, report: Report) -> str:
    spec = entry.spec
    v4 = spec.enable_ipv4 if spec.enable_ipv4 is not None else defaults.ipv4
    v6 = spec.enable_ipv6 if spec.enable_ipv6 is not None else defaults.ipv6
    if v4 is False and v6 is False:
        message = "and enable_ipv4 leave no address; right would be true for one of them"
        entry.problem(report, message, "enable_ipv6")
    if v4 is False:
        return "v6"
    return "v4" if v6 is False else ""


# --- the limit of headers, which is the process's ---------------------------------------------------


def with_header_limit(
    process: ProcessSettings, module: ModuleEntry | None, given: Container[str]
) -> ProcessSettings:
    """`max_request_headers_kb` stands below whatever said `max-header-list`."""
    wanted = None if module is None else module.spec.max_request_headers_kb
    if wanted is None or "max-header-list" in given:
        return process
    return replace(process, max_header_list=wanted * 1024)


def check_header_limit(
    module: ModuleEntry | None,
    process: ProcessSettings,
    origins: Iterable[tuple[str, str]],
    report: Report,
) -> None:
    """A Module of the cluster comes when the process runs with its limit already."""
    wanted = None if module is None else module.spec.max_request_headers_kb
    if module is None or wanted is None or wanted * 1024 == process.max_header_list:
        return
    said = dict(origins).get("max-header-list", "default")
    message = f"the limit is {process.max_header_list} bytes ({said}); --max-header-list sets it"
    module.warn(report, message, "max_request_headers_kb")


# --- the edge -------------------------------------------------------------------------------------


def edge_policy(
    module: ModuleEntry | None, report: Report, *, preserve_request_id: bool | None = None
) -> EdgePolicy:
    """What every request meets, before a Mapping is looked for.

    `preserve_request_id` is the process's word, which wins; None: it said nothing.
    """
    if module is None:
        return EdgePolicy(preserve_request_id=bool(preserve_request_id))
    spec = module.spec
    if spec.ip_allow is not None and spec.ip_deny is not None:
        module.problem(report, "and ip_allow exclude each other; keep one", "ip_deny")
    if spec.server_name is not None and not _is_field_value(spec.server_name):
        module.problem(report, "a header value has no line breaks", "server_name")
    preserved = preserve_request_id
    if preserved is None:
        preserved = spec.preserve_external_request_id
    allowed = None if spec.ip_allow is None else _ranges(module, spec.ip_allow, "ip_allow", report)
    gate = GateRules(
        ip_allow=allowed,
        ip_deny=_ranges(module, spec.ip_deny or (), "ip_deny", report),
        https_redirect=bool(spec.x_forwarded_proto_redirect),
        merge_slashes=bool(spec.merge_slashes),
        reject_escaped_slashes=bool(spec.reject_requests_with_escaped_slashes),
        strip_port=bool(spec.strip_matching_host_port),
        underscores=_UNDERSCORES.get(spec.headers_with_underscores_action or "", "allow"),
        server=spec.server_name or "",
    )
    return EdgePolicy(
        spec.use_remote_address,
        spec.xff_num_trusted_hops,
        gate,
        _seconds(spec.listener_idle_timeout_ms),
        bool(preserved),
        bool(spec.use_proxy_proto),
        spec.forward_client_cert_details or "SANITIZE",
        _cert_details(spec.set_current_client_cert_details),
    )


def _cert_details(spec: ClientCertDetailsSpec | None) -> tuple[str, ...]:
    names = ("subject", "cert", "dns", "uri")
    return tuple(name for name in names if spec is not None and getattr(spec, name))


def _is_field_value(text: str) -> bool:
    return text.isprintable() and text == text.strip()


def _ranges(
    module: ModuleEntry, specs: Sequence[IpRangeSpec], name: str, report: Report
) -> tuple[IpRange, ...]:
    found = []
    for spec in specs:
        text = spec.peer if spec.remote is None else spec.remote
        if text is None or (spec.peer is not None and spec.remote is not None):
            message = (
                "needs one of remote and peer in each item; right would be {remote: 10.0.0.0/8}"
            )
            module.problem(report, message, name)
            continue
        try:
            network = str(ipaddress.ip_network(text, strict=False))
        except ValueError:
            message = f"`{text}` is no address or range; right would be 10.0.0.0/8"
            module.problem(report, message, name)
            continue
        found.append(IpRange(network, peer=spec.peer is not None))
    return tuple(found)
