"""What the admin port says: each page is a function from the view to text or JSON-able values.

Nothing secret leaves here. Values of added headers, of headers that carry credentials, and whatever
stands under a name that speaks of secrets are blotted out; files of keys appear as paths only.
"""

from __future__ import annotations

import dataclasses
import enum
import gc
import math
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from stickyproxy import __version__
from stickyproxy.config.cluster.status import CURRENT, RUNNING, Status
from stickyproxy.control.admin.front import front_dump
from stickyproxy.control.discovery.kube_reflector import ReflectorState
from stickyproxy.control.view import AdminView, state
from stickyproxy.counters import EndpointStats, ProcessStats
from stickyproxy.health.changes import HEALTHY, Seen
from stickyproxy.model import Cluster, HeaderAdd, HeaderMatch

REDACTED = "[redacted]"
_SECRET_NAME = re.compile(
    r"token|secret|passw|credential|authori[sz]ation|api[-_]?key", re.IGNORECASE
)
_COOKIES = frozenset(("cookie", "set-cookie"))
_ADDED_HEADERS = frozenset(("add_request_headers", "add_response_headers"))
_USERINFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")  # RFC 3986 §3.2.1


def server_info(view: AdminView) -> dict[str, Any]:
    snapshot = view.snapshot()
    return {
        "version": __version__,
        "state": state(view),
        "uptime_current_epoch": f"{int(view.uptime())}s",
        "snapshot_version": snapshot.version if snapshot else 0,
        "pid": os.getpid(),
        "python": platform.python_version(),
    } | ({"workers": list(workers)} if (workers := view.workers()) else {})


def memory() -> dict[str, Any]:
    """Of the process that answers, in bytes; `/metrics` has the sum over all."""
    now = ProcessStats()
    now.measure()
    return {
        "pid": os.getpid(),
        "resident_bytes": now.process_resident_memory_bytes,
        "open_fds": now.process_open_fds,
        "cpu_seconds": round(now.process_cpu_seconds_total, 3),
        "gc_collections": [generation["collections"] for generation in gc.get_stats()],
    }


def config_dump(view: AdminView) -> dict[str, Any]:
    snapshot = view.snapshot()
    dump: dict[str, Any] = {"version": __version__, "settings": plain(view.settings())}
    if snapshot is not None:
        dump["snapshot_version"] = snapshot.version
        dump["edge"] = plain(snapshot.edge)
        dump["routes"] = plain(snapshot.routes.routes)
        dump["clusters"] = plain(list(snapshot.clusters.values()))
        problems = {name: view.problem(name) for name in snapshot.clusters}
        dump["problems"] = {name: problem for name, problem in problems.items() if problem}
    dump |= front_dump(view.front())
    if watched := view.kubernetes():
        dump["kubernetes"] = {path: _watched(state) for path, state in watched.items()}
        dump["objects"] = [_object(status) for status in view.objects() if _is_notable(status)]
    return dump


def _is_notable(status: Status) -> bool:
    good = status.state == RUNNING and status.serves == CURRENT
    return not good or bool(status.warnings)


def _object(status: Status) -> dict[str, Any]:
    """Of those only that somebody has to look at; what is well is in the routes."""
    return {
        "kind": status.key.kind,
        "name": f"{status.key.namespace}/{status.key.name}",
        "origin": status.origin,
        "state": status.state,
        "reason": status.reason,
        "warnings": list(status.warnings),
        "serves": status.serves,
        "generation": status.generation,
        "served_generation": status.served_generation,
    }


def _watched(state: ReflectorState) -> dict[str, Any]:
    return {
        "synced": state.synced.is_set(),
        "absent": state.absent,
        "problem": state.problem,
        "lists": state.lists,
        "watches": state.watches,
        "events": state.events,
    }


def listeners_text(view: AdminView) -> str:
    return "".join(f"{name}::{address}\n" for name, address in view.listeners())


def listeners_json(view: AdminView) -> dict[str, Any]:
    rows = [{"name": name, "local_address": address} for name, address in view.listeners()]
    return {"listener_statuses": rows}


def clusters_text(view: AdminView) -> str:
    """One `cluster::endpoint::name::value` a line, as Envoy prints it."""
    lines: list[str] = []
    links = view.metrics().links
    for name, problem in _problems(view):
        lines.append(f"{name}::problem::{problem}")
    for cluster, key, stats, about in _hosts(view):
        place = f"{cluster.name}::{key}"
        lines += [f"{place}::{name}::{value}" for name, value in sorted(stats.as_dict().items())]
        lines += [f"{place}::{name}::{value}" for name, value in about.items()]
        words = links.get((cluster.name, key), ())
        lines += [f"{place}::link_{number}::{said}" for number, said in enumerate(words, start=1)]
    return "".join(f"{line}\n" for line in lines)


def clusters_json(view: AdminView) -> dict[str, Any]:
    """The shape of Envoy's `/clusters?format=json`, one entry for each cluster, empty ones too."""
    statuses: dict[str, list[dict[str, Any]]] = {}
    links = view.metrics().links
    snapshot = view.snapshot()
    for name in snapshot.clusters if snapshot else ():
        statuses[name] = []
    for cluster, key, stats, about in _hosts(view):
        host, _, port = key.rpartition(":")
        address = {"address": host.strip("[]"), "port_value": int(port) if port.isdigit() else 0}
        gauges = ("rq_active", "cx_active")
        statuses[cluster.name].append(
            {
                "address": {"socket_address": address},
                "stats": [
                    {"name": name, "value": str(value)}
                    | ({"type": "GAUGE"} if name in gauges else {})
                    for name, value in sorted(stats.as_dict().items())
                ],
                "health_status": _health_status(
                    Seen(about["health_flags"], about["health_reason"])
                ),
                "weight": about["weight"],
                "hostname": about["hostname"],
                "pod": about["pod"],
                "links": list(links.get((cluster.name, key), ())),
            }
        )
    problems = dict(_problems(view))
    rows = [
        {"name": name, "host_statuses": hosts}
        | ({"problem": problems[name]} if name in problems else {})
        for name, hosts in statuses.items()
    ]
    return {"cluster_statuses": rows}


def _health_status(seen: Seen) -> dict[str, Any]:
    """Envoy's flags are there when they are true."""
    if seen == HEALTHY:
        return {"eds_health_status": "HEALTHY"}
    names = {
        "failed_active_hc": "failed_active_health_check",
        "failed_outlier_check": "failed_outlier_check",
    }
    flags = {names[flag]: True for flag in seen.flags.split("/") if flag in names}
    return {"eds_health_status": "UNHEALTHY", **flags, "reason": seen.reason}


def _problems(view: AdminView) -> list[tuple[str, str]]:
    snapshot = view.snapshot()
    found = [(name, view.problem(name)) for name in (snapshot.clusters if snapshot else ())]
    return [(name, problem) for name, problem in found if problem]


def _hosts(view: AdminView) -> Iterator[tuple[Cluster, str, EndpointStats, dict[str, Any]]]:
    snapshot = view.snapshot()
    counted = view.metrics().endpoints
    for cluster in snapshot.clusters.values() if snapshot else ():
        for endpoint in cluster.endpoints:
            if endpoint.key in cluster.removed:
                continue
            seen = view.endpoint_health(cluster.name, endpoint.key)
            about = {
                "hostname": endpoint.pod or cluster.spec.service,
                "health_flags": seen.flags,
                "health_reason": seen.reason,
                "weight": endpoint.weight,
                "pod": endpoint.pod or "",
            }
            stats = counted.get((cluster.name, endpoint.key)) or EndpointStats()
            yield cluster, endpoint.key, stats, about


def stats(view: AdminView) -> dict[str, float]:
    """Plain counters by dotted name, as Envoy's `/stats` has them; histograms are in `/metrics`."""
    metrics = view.metrics()
    metrics.refresh()
    found = {f"stickyproxy.{name}": n for name, n in metrics.process.as_dict().items()}
    for cluster, counters in metrics.clusters.items():
        found |= {f"cluster.{cluster}.{_dotted(name)}": n for name, n in counters.as_dict().items()}
    return dict(sorted(found.items()))


def _dotted(name: str) -> str:
    for group, dots in _GROUPS.items():
        if name.startswith(group):
            return dots + name.removeprefix(group)
    return name


_GROUPS = {
    "outlier_detection_": "outlier_detection.",
    "health_check_": "health_check.",
    "circuit_breakers_default_": "circuit_breakers.default.",
}
"""Envoy's groups of a cluster's counters."""


# --- showing settings without their secrets ---------------------------------------------------


def plain(value: Any, name: str = "") -> Any:
    """JSON-able, every secret blotted out; `name` is the key or field that `value` is under."""
    if value is None or isinstance(value, bool):
        return value
    if _is_secret(name):
        return REDACTED
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, (bytes, str, os.PathLike)):
        text = os.fsdecode(value)
        return REDACTED if name.lower() in _COOKIES else _USERINFO.sub(REDACTED, text)
    if isinstance(value, (int, float)):
        return value if math.isfinite(value) else str(value)
    return _plain_object(value, name)


def _is_secret(name: str) -> bool:
    # A path to a secret is none: people look here for which file is in use.
    return bool(_SECRET_NAME.search(name)) and not name.endswith(("_file", "_path"))


def _plain_object(value: Any, name: str) -> Any:
    if name in _ADDED_HEADERS:
        return _added_headers(value)
    if isinstance(value, HeaderMatch):
        return {**_named(value.name, value.value), "regex": value.regex}
    if isinstance(value, Mapping):
        named = (
            _named(str(value["name"]), value["value"]) if {"name", "value"} <= set(value) else {}
        )
        return {str(key): plain(item, str(key)) for key, item in value.items()} | named
    if isinstance(value, (Sequence, AbstractSet)):
        return [plain(item) for item in value]
    declared = _field_names(value)
    if declared is None:  # a table: its slots tell a reader nothing
        return type(value).__name__
    return {field: plain(getattr(value, field), field) for field in declared}


def _named(name: str, value: Any) -> dict[str, Any]:
    """What carries its name beside it instead of being under it."""
    return {"name": name, "value": plain(value, name)}


def _added_headers(value: Any) -> Any:
    """Names only: what an operator adds to requests is as often as not a credential."""
    if isinstance(value, Mapping):
        return {str(key): REDACTED for key in value}
    return [item.name if isinstance(item, HeaderAdd) else REDACTED for item in value]


def _field_names(value: Any) -> Sequence[str] | None:
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    names: Sequence[str] | None = getattr(value, "__struct_fields__", None)  # msgspec's structs
    return names
