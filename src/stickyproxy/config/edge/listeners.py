"""Listeners, and the ports that Hosts and TLSContexts want opened beside, into ports to be opened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stickyproxy.config.edge.hosts import Host, is_twin, label_of, selected
from stickyproxy.config.edge.tls_contexts import SILENT, Contexts
from stickyproxy.config.resources.items import Item, Raw, Resources
from stickyproxy.config.schema.edge import LISTENER_IGNORED, ListenerDocument
from stickyproxy.config.text.decode import Decoder
from stickyproxy.edge import INSECURE, HostRule, ListenerSpec

_PROTOCOLS = {"HTTP": "clear", "HTTPS": "auto", "HTTPPROXY": "clear", "HTTPSPROXY": "auto"}
_PROXY = "PROXY"
_STACKS = {("HTTP", "TCP"): "clear", ("TLS", "HTTP", "TCP"): "auto"}

Found = Item[ListenerDocument]


def listeners_of(
    resources: Resources, hosts: Sequence[Host], contexts: Contexts
) -> list[ListenerSpec]:
    """In order of port, one for each; whoever asks for a taken port is told."""
    found: dict[int, ListenerSpec] = {}
    names: dict[str, Raw] = {}
    for raw in sorted(resources.listeners, key=lambda item: (item.name, item.namespace or "")):
        item = _decoded(raw, contexts)
        if item is None or is_twin(raw, "Listener", names, contexts.reader.report):
            continue
        spec = _spec(item, hosts if resources.hosts else None, contexts)
        if spec is not None and (first := found.setdefault(spec.port, spec)) is not spec:
            message = f"{spec.port} is that of {first.name}; give it another"
            item.problem(contexts.reader.report, message, "port")
    for extra in [*_for_hosts(hosts), *_for_contexts(contexts, hosts)]:
        found.setdefault(extra.port, extra)
    return [found[port] for port in sorted(found)]


def _decoded(raw: Raw, contexts: Contexts) -> Found | None:
    report = contexts.reader.report
    if not raw.name:
        raw.problem(report, "name is missing; right would be https")
        return None
    decoder = Decoder(raw.document, report, raw.path, SILENT, LISTENER_IGNORED)
    spec = decoder.read(raw.node, ListenerDocument)
    if spec is None:
        return None
    return Item(raw.document, raw.node, raw.path, raw.name, raw.namespace, spec)


def _spec(item: Found, hosts: Sequence[Host] | None, contexts: Contexts) -> ListenerSpec | None:
    report = contexts.reader.report
    before = len(report.problems)
    protocol = _protocol(item, contexts)
    bound = tuple(host.rule for host in _bound(item, hosts or (), contexts))
    rules = None if hosts is None else bound
    if rules == ():
        item.warn(report, "no Host is bound to it: every request is answered 404", "hostBinding")
    if len(report.problems) > before:
        return None
    spec = item.spec
    return ListenerSpec(
        name=label_of(item, "Listener"),
        port=spec.port,
        protocol=protocol,
        security=spec.security_model,
        l7_depth=spec.l7_depth or 0,
        max_streams=spec.http2_max_concurrent_streams,
        hosts=rules,
        proxied=_PROXY in (spec.protocol_stack or ()) or (spec.protocol or "").endswith(_PROXY),
    )


def _without_proxy(stack: Sequence[str] | None) -> tuple[str, ...]:
    """Once, wherever it stands: Emissary's own HTTPSPROXY is [TLS, PROXY, HTTP, TCP]."""
    layers = list(stack or ())
    if _PROXY in layers:
        layers.remove(_PROXY)
    return tuple(layers)


def _protocol(item: Found, contexts: Contexts) -> str:
    spec, report = item.spec, contexts.reader.report
    if (spec.protocol is None) == (spec.protocol_stack is None):
        item.problem(report, "needs protocol or protocolStack, and not both; right would be HTTPS")
        return ""
    key = "protocol" if spec.protocol is not None else "protocolStack"
    given = [spec.protocol] if spec.protocol is not None else spec.protocol_stack or []
    known = _PROTOCOLS.get(spec.protocol or "") or _STACKS.get(_without_proxy(spec.protocol_stack))
    if known is None:
        right = (
            "HTTPS or HTTP (HTTPSPROXY, HTTPPROXY)"
            if key == "protocol"
            else "[TLS, HTTP, TCP] or [HTTP, TCP]"
        )
        message = f"{', '.join(str(name) for name in given)} is not served; right would be {right}"
        item.problem(report, message, key)
    return known or ""


def _bound(item: Found, hosts: Sequence[Host], contexts: Contexts) -> Iterable[Host]:
    """Both conditions hold where both are given (Emissary)."""
    binding = item.spec.host_binding
    namespace = binding.namespace.from_ if binding.namespace is not None else None
    labels = selected(item, binding.selector, contexts, "hostBinding", "selector")
    if namespace is None and binding.selector is None:
        message = "names neither; right would be {namespace: {from: ALL}}"
        item.problem(contexts.reader.report, message, "hostBinding")
    for host in hosts:
        near = namespace != "SELF" or (host.item.namespace or "") == (item.namespace or "")
        if near and (labels is None or labels <= host.labels):
            yield host


def _for_hosts(hosts: Sequence[Host]) -> Iterable[ListenerSpec]:
    """`additionalPort`: for those Hosts that ask for it."""
    for port in sorted({host.insecure_port for host in hosts} - {0}):
        rules = tuple(host.rule for host in hosts if host.insecure_port == port)
        yield _beside(f"{rules[0].name} additionalPort", port, rules)


def _for_contexts(contexts: Contexts, hosts: Sequence[Host]) -> Iterable[ListenerSpec]:
    """`redirect_cleartext_from`: what its hosts are sent, unless a Host of that name says otherwise."""
    said = {host.rule.hostname: host.rule for host in hosts}
    for item in contexts:
        port, globs = item.spec.redirect_cleartext_from, item.spec.hosts
        if port is not None:
            name = label_of(item, "TLSContext")
            lower = [glob.lower() for glob in globs or ("*",)]
            rules = tuple(said.get(glob) or HostRule(name, glob) for glob in lower)
            yield _beside(f"{name} redirect_cleartext_from", port, rules)


def _beside(name: str, port: int, rules: tuple[HostRule, ...]) -> ListenerSpec:
    return ListenerSpec(name, port, "clear", INSECURE, hosts=rules, beside=True)
