"""A Mapping's Target: what is done to a request on its way, and to its response."""

from __future__ import annotations

from collections.abc import Mapping as Dict

from stickyproxy.config.edge.hosts import labels_of
from stickyproxy.config.fields import features
from stickyproxy.config.fields.checks import (
    check_addition,
    check_change,
    check_rewriter,
    check_sendable,
)
from stickyproxy.config.fields.grpc_web import for_grpc_web
from stickyproxy.config.fields.redirects import redirect
from stickyproxy.config.fields.services import Service
from stickyproxy.config.mappings.module import FeatureDefaults
from stickyproxy.config.resources.items import Entry
from stickyproxy.config.schema.mapping import UPGRADES, HeaderAddSpec
from stickyproxy.config.text.addresses import show_address
from stickyproxy.config.text.decode import Report
from stickyproxy.model import HeaderAdd, Target
from stickyproxy.rules import Cors, RetryPolicy

DEFAULT_IDLE_TIMEOUT = 300.0  # Envoy's stream_idle_timeout


def target_of(
    entry: Entry,
    service: Service | None,
    default_timeout: float | None,
    defaults: FeatureDefaults,
    report: Report,
) -> Target:
    """The Target, its cluster not named yet. `service` None: a redirect, which has none."""
    spec = entry.spec
    grpc = service is not None and service.grpc
    rewrite = _rewrite(entry, grpc, report)
    regex_rewrite = None
    if spec.regex_rewrite is not None:
        check_rewriter(entry, report, spec.regex_rewrite, "regex_rewrite")
        regex_rewrite = (spec.regex_rewrite.pattern, spec.regex_rewrite.substitution)
    check_sendable(entry, report, spec.host_rewrite or "", "host_rewrite")
    if spec.auto_host_rewrite and spec.host_rewrite:
        message = "and host_rewrite exclude each other; keep one"
        entry.problem(report, message, "auto_host_rewrite")
    timeout = None if grpc else default_timeout
    if spec.timeout_ms is not None:
        timeout = spec.timeout_ms / 1000 or None
    idle: float | None = DEFAULT_IDLE_TIMEOUT
    if spec.idle_timeout_ms is not None:
        idle = spec.idle_timeout_ms / 1000 or None
    return Target(
        name=entry.name,
        cluster="",
        rewrite=rewrite,
        regex_rewrite=regex_rewrite,
        host_rewrite=spec.host_rewrite,
        timeout=timeout,
        idle_timeout=idle,
        add_request_headers=_added(entry, report, "add_request_headers")
        + _linkerd(entry, service, defaults),
        add_response_headers=_added(entry, report, "add_response_headers"),
        remove_request_headers=_removed(entry, report, "remove_request_headers"),
        remove_response_headers=_removed(entry, report, "remove_response_headers"),
        grpc=grpc,
        auto_host_rewrite=bool(spec.auto_host_rewrite),
        redirect=redirect(entry, report),
        cors=None if service is None else _cors(entry, service, defaults, report),
        retry=None if service is None else _retry(entry, defaults, report),
        grpc_web=grpc and defaults.grpc_web,
        upgrades=() if service is None else _upgrades(entry, report),
        idempotent=service is not None and bool(spec.idempotent),
        labels=labels_of(entry.document.root),
        origin=entry.origin,
    )


def _upgrades(entry: Entry, report: Report) -> tuple[str, ...]:
    spec = entry.spec
    wanted = features.listed(spec.allow_upgrade)
    for name in wanted:
        if name.lower() not in UPGRADES:
            message = f"`{name}` is not served and has no effect; right would be [websocket]"
            entry.warn(report, message, "allow_upgrade")
    if spec.use_websocket:
        wanted.append("websocket")
    return tuple(sorted({name.lower() for name in wanted} & UPGRADES))


def _cors(entry: Entry, service: Service, defaults: FeatureDefaults, report: Report) -> Cors | None:
    found = defaults.cors
    if entry.spec.cors is not None:
        found = features.cors(entry, entry.spec.cors, report)
    return for_grpc_web(found) if service.grpc and defaults.grpc_web else found


def _retry(entry: Entry, defaults: FeatureDefaults, report: Report) -> RetryPolicy | None:
    if entry.spec.retry_policy is None:
        return defaults.retry
    return features.retry_policy(entry, entry.spec.retry_policy, report)


def _linkerd(
    entry: Entry, service: Service | None, defaults: FeatureDefaults
) -> tuple[HeaderAdd, ...]:
    """What linkerd 1 routes by."""
    wanted = entry.spec.add_linkerd_headers
    if service is None or not (defaults.linkerd if wanted is None else wanted):
        return ()
    place = show_address(service.host, service.port)
    return (HeaderAdd("l5d-dst-override", place, append=False),)


def _rewrite(entry: Entry, grpc: bool, report: Report) -> str | None:
    spec = entry.spec
    if spec.prefix_regex:
        if spec.rewrite:
            entry.warn(report, "has no effect with prefix_regex; use regex_rewrite", "rewrite")
        return None
    if spec.rewrite is None:
        return None if grpc else "/"
    check_sendable(entry, report, spec.rewrite, "rewrite")
    if spec.rewrite and not spec.rewrite.startswith("/"):
        entry.warn(report, f"`{spec.rewrite}` makes paths that do not begin with /", "rewrite")
    return spec.rewrite or None


def _added(entry: Entry, report: Report, key: str) -> tuple[HeaderAdd, ...]:
    given: Dict[str, str | HeaderAddSpec] = getattr(entry.spec, key) or {}
    found = []
    for name, what in given.items():
        spec = HeaderAddSpec(what) if isinstance(what, str) else what
        check_addition(entry, report, name, spec.value, key)
        found.append(HeaderAdd(name.lower(), spec.value, append=spec.append is not False))
    return tuple(found)


def _removed(entry: Entry, report: Report, key: str) -> tuple[str, ...]:
    given = getattr(entry.spec, key) or []
    names = [given] if isinstance(given, str) else given
    for name in names:
        check_change(entry, report, name, key)
    return tuple(name.lower() for name in names)
