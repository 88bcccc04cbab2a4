"""How a Mapping's backend is met over TLS: by a TLSContext, by `--backend-ca`, or as Ambassador does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stickyproxy.config.edge.hosts import label_of
from stickyproxy.config.edge.tls_contexts import Contexts, Material, Named
from stickyproxy.config.resources.items import Entry
from stickyproxy.config.text.decode import Report
from stickyproxy.edge import DEFAULT_TERMS
from stickyproxy.model import UpstreamTls


def upstream_tls(
    entry: Entry,
    host: str,
    contexts: Contexts | None,
    report: Report,
    *,
    backend_ca: Path | None,
    backend_insecure: bool,
) -> UpstreamTls:
    """Ambassador verifies only what a TLSContext with a CA tells it to; `--backend-ca` is ours, for all

    without one. The name is the service's (`host`), wherever `--service` or `endpoints` say that it
    lives, or the TLSContext's `sni`.
    """
    base = UpstreamTls(verify=False, server_name=host)
    if backend_ca is not None and not backend_insecure:
        base = replace(base, verify=True, ca_file=str(backend_ca))
    if isinstance(entry.spec.tls, str):
        base = _with_context(entry, entry.spec.tls, base, contexts, report)
    if backend_insecure:
        return replace(base, verify=False, ca_file=None, ca=None, crl=None)
    if not base.verify:
        entry.warn(
            report,
            f"the certificate of {entry.spec.service} is not verified, as in Ambassador without a "
            "CA; a TLSContext with ca_secret or --backend-ca FILE verifies it, --backend-insecure "
            "silences this",
            "service",
        )
    return base


def _with_context(
    entry: Entry, name: str, base: UpstreamTls, contexts: Contexts | None, report: Report
) -> UpstreamTls:
    if contexts is None:
        return base
    context = contexts.find(name, entry.namespace)
    if context is None:
        entry.problem(report, f"TLSContext {name} is not there", "tls")
        return base
    material = contexts.material(context)
    if material.broken:
        entry.problem(report, f"TLSContext {name} lacks something that it names", "tls")
        return base
    return _merged(entry, context, material, base, report)


def _merged(
    entry: Entry, context: Named, material: Material, base: UpstreamTls, report: Report
) -> UpstreamTls:
    if material.terms.alpn:
        message = "alpn_protocols has no effect towards a service, whose scheme says what is spoken"
        entry.warn(report, message, "tls")
    merged = replace(
        base,
        chain=material.chain,
        key=material.key,
        terms=replace(material.terms, alpn=()) if material.terms != DEFAULT_TERMS else base.terms,
        server_name=material.sni or base.server_name,
        name=label_of(context, "TLSContext"),
    )
    if material.ca is None:
        return merged
    return replace(merged, verify=True, ca=material.ca, crl=material.crl, ca_file=None)
