"""Hosts, Listeners and certificates as `/config_dump` shows them: who is met where, and no key."""

from __future__ import annotations

from typing import Any

from stickyproxy.edge import Front, HostRule, ListenerSpec, ServerTls, shown_for


def front_dump(front: Front) -> dict[str, Any]:
    """Only what there is: without Hosts every name is served, without Listeners the binds serve."""
    parts = {
        "hosts": [_host(rule, front) for rule in front.hosts or ()],
        "listeners": [_listener(spec) for spec in front.listeners],
        "certificates": [_certificate(tls) for tls in front.tls],
    }
    return {name: part for name, part in parts.items() if part}


def _host(rule: HostRule, front: Front) -> dict[str, Any]:
    """`certificate` None: a handshake for it is met by none, or by that of `--tls-cert`."""
    return {
        "name": rule.name,
        "hostname": rule.hostname,
        "insecure": rule.insecure,
        "mapping_selector": None if rule.selector is None else dict(sorted(rule.selector)),
        "certificate": shown_for(rule.hostname, front.tls),
    }


def _listener(spec: ListenerSpec) -> dict[str, Any]:
    """`hosts` None: there are no Hosts anywhere, every name is served."""
    return {
        "name": spec.name,
        "port": spec.port,
        "protocol": "HTTP" if spec.protocol == "clear" else "HTTPS",
        "security_model": spec.security,
        "l7_depth": spec.l7_depth,
        "max_concurrent_streams": spec.max_streams,
        "hosts": None if spec.hosts is None else [rule.name for rule in spec.hosts],
    }


def _certificate(tls: ServerTls) -> dict[str, Any]:
    asked = "required" if tls.client_required else "verified" if tls.client_ca else "not asked for"
    return {
        "name": tls.name,
        "hosts": list(tls.globs),
        "of_clients": asked,
        "min_version": tls.terms.min_version or "v1.2",
        "max_version": tls.terms.max_version or "v1.3",
        "alpn": list(tls.terms.alpn),
    }
