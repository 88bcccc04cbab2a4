"""Hosts, Listeners, TLSContexts and their Secrets into what clients meet."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from stickyproxy.config.edge.hosts import Host, hosts_of, shown_by
from stickyproxy.config.edge.listeners import listeners_of
from stickyproxy.config.edge.secrets import Secrets
from stickyproxy.config.edge.tls_contexts import Contexts, Reader, contexts_of
from stickyproxy.config.resources.items import Resources
from stickyproxy.config.text.decode import Report
from stickyproxy.edge import REDIRECT, SECURE, Front, ListenerSpec, ServerTls, glob_fits


class SecretName(NamedTuple):
    """`namespace` "" is the one we live in."""

    namespace: str
    name: str


def contexts_in(
    resources: Resources, report: Report, *, strict: bool, awaiting: bool = False
) -> Contexts:
    """The TLSContexts. `strict`: what they name and is not there is a problem, else a warning, or

    with `awaiting` nothing at all.
    """
    secrets = Secrets(resources.secrets, unread=resources.secrets_unread)
    return contexts_of(resources, Reader(secrets, report, strict, awaiting))


def front_of(
    resources: Resources,
    report: Report,
    *,
    binds_given: bool,
    strict: bool,
    awaiting: bool = False,
) -> tuple[Front, tuple[Path, ...]]:
    """All of it, and the files that it was read from: what to watch."""
    contexts = contexts_in(resources, report, strict=strict, awaiting=awaiting)
    hosts = hosts_of(resources, contexts)
    shown = [host.shown for host in hosts if host.shown is not None]
    shown += shown_by(contexts)
    tls = tuple(one.tls for one in shown if one.tls is not None)
    listeners = listeners_of(resources, hosts, contexts)
    for host in hosts:
        _warn_of_loop(host, tls, listeners, report)
    front = Front(
        tls=tls,
        guards=tuple(guard for one in shown for guard in one.guards),
        hosts=tuple(host.rule for host in hosts) if resources.hosts else None,
        listeners=tuple(listeners),
        binds_given=binds_given,
    )
    return front, tuple(contexts.reader.files)


def _warn_of_loop(
    host: Host, tls: tuple[ServerTls, ...], listeners: list[ListenerSpec], report: Report
) -> None:
    """Emissary redirects by default even where nothing would be met at https."""
    rule = host.rule
    certified = any(glob_fits(glob, rule.hostname) for one in tls for glob in one.globs)
    behind_hop = any(spec.l7_depth or spec.security == SECURE for spec in listeners)
    if rule.insecure == REDIRECT and host.shown is None and not (certified or behind_hop):
        message = (
            f"`{rule.hostname}` has no certificate here, yet what is not secure is sent to https; "
            "requestPolicy.insecure.action Route serves it"
        )
        host.item.warn(report, message)
