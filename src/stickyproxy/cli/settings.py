"""Settings from arguments and environment, with the checks that need more than text; and shown."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path

from stickyproxy.config.fields import tuning
from stickyproxy.config.load import Settings, load
from stickyproxy.config.mappings.grouping import show_balancer, show_places
from stickyproxy.config.process.settings import ProcessSettings
from stickyproxy.config.text.addresses import show_address, show_bind
from stickyproxy.errors import ConfigError
from stickyproxy.model import Bind, ClusterSpec, Route, RouteMatch, Target
from stickyproxy.policy.routes import Routes
from stickyproxy.rules import OutlierDetection, Redirect, Shadow, SlowStart

CONFIG_VARIABLE = "STICKYPROXY_CONFIG"


def read_settings(
    paths: Sequence[Path], flags: Mapping[str, Sequence[str]], environ: Mapping[str, str]
) -> Settings:
    """All that was said, read anew. Raises `ConfigError`.

    Without files on the command line, `STICKYPROXY_CONFIG` names them (several by comma).
    """
    settings = load(paths or config_paths(environ), flags, environ)
    origins = dict(settings.origins)
    problems = _pair_problems(settings.process, origins["tls-cert"], origins["tls-key"])
    problems += _authority_problems(settings.process, origins["backend-ca"])
    if problems:
        raise ConfigError(problems)
    return settings


def config_paths(environ: Mapping[str, str]) -> list[Path]:
    """The files that the environment names."""
    parts = environ.get(CONFIG_VARIABLE, "").split(",")
    return [Path(part.strip()) for part in parts if part.strip()]


def _pair_problems(process: ProcessSettings, cert_origin: str, origin: str) -> list[str]:
    if process.tls_cert is None or process.tls_key is None:
        return []
    if b"CERTIFICATE-----" not in process.tls_cert.read_bytes():
        wrong = f"{process.tls_cert} has no certificate in PEM"
        return [f"{cert_origin}: {wrong}; right would be its chain, leaf first"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(process.tls_cert, process.tls_key, password="")  # never ask a tty
    except (ssl.SSLError, OSError, ValueError) as exc:
        reason = getattr(exc, "reason", None) or str(exc) or "unreadable"
        wrong = f"{process.tls_key} is not the key of {process.tls_cert} ({reason})"
        return [f"{origin}: {wrong}; right would be its unencrypted PEM key"]
    return []


def _authority_problems(process: ProcessSettings, origin: str) -> list[str]:
    if process.backend_ca is None:
        return []
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(process.backend_ca)
    except (ssl.SSLError, OSError):
        wrong = f"{process.backend_ca} has no certificate in PEM"
        return [f"{origin}: {wrong}; right would be a file of authorities"]
    return []


# --- shown to people ------------------------------------------------------------------------------


def table(settings: Settings) -> list[str]:
    """Routes in match order, each target a line: route, match, cluster, policy, where, from."""
    clusters = {spec.name: spec for spec in settings.clusters}
    rows = [("ROUTE", "MATCH", "CLUSTER", "POLICY", "WHERE", "FROM")]
    for route in Routes(settings.routes).routes:
        for target in route.targets:
            if target.redirect is not None:
                rows.append(_redirect_row(route, target, target.redirect))
            else:
                rows.append(_row(route, target, clusters[target.cluster]))
        if route.shadow is not None:
            rows.append(_shadow_row(route, route.shadow, clusters[route.shadow.cluster]))
    return aligned(rows)


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """A table for people: the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _row(route: Route, target: Target, spec: ClusterSpec) -> tuple[str, str, str, str, str, str]:
    share = f" {target.weight:g}%" if len(route.targets) > 1 else ""
    return (
        route.name,
        show_match(route.match),
        spec.name + share,
        show_balancer(spec.load_balancer),
        show_where(spec),
        target.origin,
    )


def _redirect_row(
    route: Route, target: Target, redirect: Redirect
) -> tuple[str, str, str, str, str, str]:
    where = show_redirect(redirect)
    return route.name, show_match(route.match), "-", "redirect", where, target.origin


def _shadow_row(
    route: Route, shadow: Shadow, spec: ClusterSpec
) -> tuple[str, str, str, str, str, str]:
    share = f" {shadow.percent:g}%"
    policy = f"shadow {show_balancer(spec.load_balancer)}"
    match = show_match(route.match)
    return shadow.name, match, spec.name + share, policy, show_where(spec), shadow.origin


def show_redirect(redirect: Redirect) -> str:
    """`301 https://www.example.com/new`; what is left out is the request's."""
    place = redirect.authority or ""
    place = f"{redirect.scheme}://{place}" if redirect.scheme else f"//{place}"
    path = redirect.path or (f"{redirect.prefix}*" if redirect.prefix is not None else "")
    if redirect.regex is not None:
        path = f" {redirect.regex[0]} -> {redirect.regex[1]}"
    return f"{redirect.code} {place}{path}"


def show_where(spec: ClusterSpec) -> str:
    """`h2c 10.0.0.1:50051,10.0.0.2:50051`, a weight after `*`; `h2c pods of qotm.prod:80`."""
    if spec.kube is not None:
        return f"{spec.protocol.value} {show_places(spec)}"
    weights = spec.weights or (1,) * len(spec.targets)
    places = [
        show_address(host, port) + (f"*{weight}" if spec.weights else "")
        for (host, port), weight in zip(spec.targets, weights, strict=True)
    ]
    return f"{spec.protocol.value} {','.join(places)}"


def show_match(match: RouteMatch) -> str:
    """What a request must look like, in one cell."""
    path = {"prefix": f"{match.path}*", "exact": match.path, "regex": f"~{match.path}"}
    parts = [path[match.path_kind]]
    if match.hostname != "*":
        parts.insert(0, f"~{match.hostname}" if match.hostname_regex else match.hostname)
    if match.method:
        parts.insert(0, f"~{match.method}" if match.method_regex else match.method)
    parts += [
        f"{mark}{c.name}" + ("" if c.value is None else f"{'~' if c.regex else '='}{c.value}")
        for mark, conditions in (("", match.headers), ("?", match.query_parameters))
        for c in conditions
    ]
    return " ".join(parts)


def print_config(settings: Settings) -> str:
    """The process settings with their origins, as JSON, and the table of routes."""
    origins = dict(settings.origins)
    process = settings.process
    values: dict[str, object] = {
        name.replace("_", "-"): _plain(getattr(process, name))
        for name in ProcessSettings.__dataclass_fields__
        if name != "binds"
    }
    values = {"bind": [show_bind(bind) for bind in process.binds], **values}
    values["workers"] = process.workers or "auto"
    shown = {name: {"value": v, "from": origins.get(name, "")} for name, v in values.items()}
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in shown.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n" + "\n".join(table(settings))


def _plain(value: object) -> object:
    if isinstance(value, Bind):
        return show_bind(value)
    if isinstance(value, OutlierDetection | SlowStart):
        return tuning.show(value)
    return str(value) if isinstance(value, Path) else value
