"""What `check` shows of the edge: Hosts, Listeners, and what a cluster's own load would warn of."""

from __future__ import annotations

from stickyproxy.cli.settings import aligned
from stickyproxy.config.load import Settings, front_warnings
from stickyproxy.edge import Front, HostRule, ListenerSpec, shown_for


def warnings_of(settings: Settings) -> list[str]:
    """All of them. With `--kubernetes` the edge is complete in the cluster only, and read there."""
    files = settings.files if settings.process.kubernetes else None
    more = front_warnings(files) if files is not None else []
    return list(dict.fromkeys([*settings.warnings, *more]))


def front_tables(front: Front) -> list[str]:
    """Hosts and Listeners as two tables; one without rows is left out."""
    hosts, listeners = front.hosts or (), front.listeners
    lines: list[str] = []
    if hosts:
        head = ("HOST", "HOSTNAME", "NOT SECURE", "CERTIFICATE", "MAPPINGS")
        lines += ["", *aligned([head, *(_host_row(rule, front) for rule in hosts)])]
    if listeners:
        head = ("LISTENER", "PORT", "PROTOCOL", "SECURE BY", "HOSTS")
        lines += ["", *aligned([head, *map(_listener_row, listeners)])]
    return lines


def _host_row(rule: HostRule, front: Front) -> tuple[str, ...]:
    selected = ", ".join(f"{name}={value}" for name, value in sorted(rule.selector or ()))
    certificate = shown_for(rule.hostname, front.tls) or "-"
    name = rule.name.removeprefix("Host ")
    return name, rule.hostname, rule.insecure, certificate, selected or "all"


def _listener_row(spec: ListenerSpec) -> tuple[str, ...]:
    protocol = "HTTP" if spec.protocol == "clear" else "HTTPS"
    secure = spec.security + (f" l7Depth {spec.l7_depth}" if spec.l7_depth else "")
    names = sorted(rule.name.removeprefix("Host ") for rule in spec.hosts or ())
    hosts = "every name" if spec.hosts is None else ", ".join(names) or "none"
    return spec.name.removeprefix("Listener "), str(spec.port), protocol, secure, hosts
