"""What a Mapping or the Module asks for beyond routing, from its fields to `stickyproxy.rules`.

Complaints go through the `Item` they are about.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from stickyproxy.config.fields import tuning
from stickyproxy.config.fields.balancer import TOKEN
from stickyproxy.config.fields.checks import is_field_value
from stickyproxy.config.resources.items import Item
from stickyproxy.config.schema.features import (
    CircuitBreakerSpec,
    CorsSpec,
    HealthCheckSpec,
    HttpCheckSpec,
    KeepaliveSpec,
    RetryPolicySpec,
)
from stickyproxy.config.text.decode import Report
from stickyproxy.config.text.durations import parse_duration
from stickyproxy.rules import (
    CircuitBreaker,
    ConnectCheck,
    Cors,
    GrpcCheck,
    HealthCheck,
    HttpCheck,
    Keepalive,
    OutlierDetection,
    RetryPolicy,
)

_PATH = re.compile(r"[!-~]+")  # what a request line may hold

RETRY_ON = (
    "5xx",
    "gateway-error",
    "connect-failure",
    "refused-stream",
    "reset",
    "reset-before-request",
    "retriable-4xx",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
)
"""Envoy's conditions: `x-envoy-retry-on`, then `x-envoy-retry-grpc-on`."""

WITHOUT_EFFECT = frozenset(
    ("retriable-status-codes", "retriable-headers", "http3-post-connect-failure")
)
"""Their lists have no field in a Mapping; HTTP/3 is not spoken."""

PRIORITIES = ("default", "high")


def _seconds(
    item: Item[Any], text: str | None, default: float, report: Report, *keys: str
) -> float:
    if text is None:
        return default
    seconds = parse_duration(text)
    if seconds is None:
        item.problem(report, f"`{text}` is no duration; right would be {default:g}s", *keys)
    return seconds or default


# --- cors -----------------------------------------------------------------------------------------


def cors(item: Item[Any], spec: CorsSpec | None, report: Report) -> Cors | None:
    """The policy; None for none, or after a complaint."""
    if spec is None:
        return None
    before = len(report.problems)
    origins = tuple(listed(spec.origins))
    if not origins:
        right = "right would be [https://app.example.com]"
        item.problem(report, f"is empty; {right}", "cors", "origins")
    for origin in origins:
        fault = check_origin(origin)
        if fault is not None:
            item.problem(report, fault, "cors", "origins")
    lists = {
        name: _token_list(item, getattr(spec, name), name, report)
        for name in ("methods", "headers", "exposed_headers")
    }
    max_age = "" if spec.max_age is None else str(spec.max_age)
    if max_age and not max_age.isdecimal():
        item.problem(
            report, f'`{max_age}` is no seconds; right would be "86400"', "cors", "max_age"
        )
    if len(report.problems) > before:
        return None
    return Cors(origins, **lists, credentials=bool(spec.credentials), max_age=max_age)


def listed(given: str | Sequence[str] | None) -> list[str]:
    """A list, or one text with commas."""
    parts = given.split(",") if isinstance(given, str) else given or ()
    return [stripped for part in parts if (stripped := part.strip())]


def check_origin(origin: str) -> str | None:
    """What is wrong by RFC 6454 §6.2: it is scheme, host and port, nothing behind; `null` is what

    sandboxed pages say.
    """
    scheme, mark, rest = origin.partition("://")
    whole = mark and scheme and rest and "/" not in rest and origin.isascii() and " " not in origin
    if origin in ("*", "null") or whole:
        return None
    return f"`{origin}` is no origin; right would be https://app.example.com, or *"


def _token_list(
    item: Item[Any], given: str | Sequence[str] | None, name: str, report: Report
) -> str:
    names = listed(given)
    for one in names:
        if not TOKEN.fullmatch(one):
            item.problem(report, f"`{one}` is no name; right would be x-user", "cors", name)
    return ", ".join(names)


# --- retries, breakers, checks --------------------------------------------------------------------


def retry_policy(
    item: Item[Any], spec: RetryPolicySpec | None, report: Report
) -> RetryPolicy | None:
    """Emissary takes one condition, Envoy a list with commas; both are taken here."""
    if spec is None:
        return None
    conditions = tuple(listed(spec.retry_on))
    for one in conditions or ("",):
        if one not in RETRY_ON:
            known = ", ".join(RETRY_ON)
            message = f"`{one}` is not known; right would be one or more of {known}"
            item.problem(report, message, "retry_policy", "retry_on")
        elif one in WITHOUT_EFFECT:
            item.warn(report, f"`{one}` matches nothing here", "retry_policy", "retry_on")
    limit = None
    if spec.per_try_timeout is not None:
        keys = ("retry_policy", "per_try_timeout")
        limit = _seconds(item, spec.per_try_timeout, 2.0, report, *keys)
    return RetryPolicy(conditions, spec.num_retries, limit)


def circuit_breakers(
    item: Item[Any], specs: Sequence[CircuitBreakerSpec] | None, report: Report
) -> tuple[CircuitBreaker, ...]:
    """One for each priority at most."""
    found: list[CircuitBreaker] = []
    for spec in specs or ():
        priority = (spec.priority or "default").lower()
        if priority not in PRIORITIES:
            message = f"priority `{priority}` is not known; right would be default or high"
            item.problem(report, message, "circuit_breakers")
        elif any(one.priority == priority for one in found):
            message = f"has two for the priority {priority}; keep one"
            item.problem(report, message, "circuit_breakers")
        found.append(
            CircuitBreaker(
                priority,
                spec.max_connections,
                spec.max_pending_requests,
                spec.max_requests,
                spec.max_retries,
            )
        )
    return tuple(found)


def health_checks(
    item: Item[Any],
    specs: Sequence[HealthCheckSpec] | None,
    report: Report,
    *,
    multiplexed: bool,
) -> tuple[HealthCheck, ...]:
    """With Emissary's defaults for what is left out. `multiplexed`: the service speaks HTTP/2."""
    found = []
    for spec in specs or ():
        check = _check(item, spec, report)
        if check is None:
            continue
        if isinstance(check, GrpcCheck) and not multiplexed:
            message = "a grpc check needs HTTP/2; add grpc: true, or check by http"
            item.problem(report, message, "health_checks")
        base = HealthCheck(check)
        found.append(
            HealthCheck(
                check,
                _seconds(item, spec.timeout, base.timeout, report, "health_checks"),
                _seconds(item, spec.interval, base.interval, report, "health_checks"),
                spec.healthy_threshold or base.healthy_threshold,
                spec.unhealthy_threshold or base.unhealthy_threshold,
            )
        )
    return tuple(found)


def _check(
    item: Item[Any], spec: HealthCheckSpec, report: Report
) -> HttpCheck | GrpcCheck | ConnectCheck | None:
    http, grpc, tcp = spec.health_check.http, spec.health_check.grpc, spec.health_check.tcp
    if (http, grpc, tcp).count(None) != 2:
        message = (
            "health_check needs one of http, grpc and tcp; right would be {http: {path: /healthz}}"
        )
        item.problem(report, message, "health_checks")
        return None
    if tcp is not None:
        return ConnectCheck()
    if grpc is not None:
        return GrpcCheck(grpc.upstream_name, grpc.authority or "")
    return _http_check(item, http, report) if http is not None else None


def _http_check(item: Item[Any], spec: HttpCheckSpec, report: Report) -> HttpCheck:
    if not spec.path.startswith("/") or not _PATH.fullmatch(spec.path):
        item.problem(report, f"`{spec.path}` is no path; right would be /healthz", "health_checks")
    removed = spec.remove_request_headers or ()
    names = (removed,) if isinstance(removed, str) else tuple(removed)
    added = tuple(
        (name.lower(), value, True)
        if isinstance(value, str)
        else (name.lower(), value.value, value.append is not False)
        for name, value in (spec.add_request_headers or {}).items()
    )
    for name in (*names, *(name for name, _, _ in added)):
        if not TOKEN.fullmatch(name):
            message = f"`{name}` is no header name; right would be x-user"
            item.problem(report, message, "health_checks")
    if not all(is_field_value(value) for _, value, _ in added):
        item.problem(report, "a header value has no line breaks", "health_checks")
    ranges = tuple((one.min, one.max) for one in spec.expected_statuses or ())
    for low, high in ranges:
        if low > high:
            message = f"expected_statuses: {low} is more than {high}; right would be 200 to 299"
            item.problem(report, message, "health_checks")
    return HttpCheck(
        spec.path,
        spec.hostname or "",
        added,
        tuple(name.lower() for name in names),
        ranges or HttpCheck("/").expected,
    )


def outlier_detection(
    item: Item[Any], text: str | bool | None, report: Report
) -> OutlierDetection | None:
    """None: nothing is said of it here."""
    if text is None:
        return None
    try:
        return tuning.outlier_detection(str(text))
    except ValueError as error:
        item.problem(report, str(error), "outlier_detection")
        return None


# --- keepalive ------------------------------------------------------------------------------------


def keepalive(spec: KeepaliveSpec | None) -> Keepalive | None:
    """`idle_time` wins over its older name."""
    if spec is None:
        return None
    idle = spec.time if spec.idle_time is None else spec.idle_time
    return Keepalive(idle, spec.interval, spec.probes)
