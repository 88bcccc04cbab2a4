"""Hosts into rules for requests and certificates for handshakes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from stickyproxy.config.edge.secrets import CERTIFICATE, CHAIN_KEYS, KEY, KEY_KEYS, split_name
from stickyproxy.config.edge.tls_contexts import SILENT, Contexts, Material, tls_fields
from stickyproxy.config.fields.checks import check_hostname
from stickyproxy.config.resources.items import Item, Raw, Resources
from stickyproxy.config.schema.edge import HOST_IGNORED, HostSpec, SelectorSpec, TlsFields
from stickyproxy.config.text.compose import Node
from stickyproxy.config.text.decode import Decoder, Report
from stickyproxy.edge import REDIRECT, Guard, HostRule, ServerTls

Labels = frozenset[tuple[str, str]]

NO_LABELS: Labels = frozenset()


@dataclass(frozen=True, slots=True)
class Shown:
    """A certificate for these globs; `tls` None: something is missing, nobody may come by them.

    `required`: clients need one of their own.
    """

    name: str
    globs: tuple[str, ...]
    tls: ServerTls | None
    required: bool

    @property
    def guards(self) -> tuple[Guard, ...]:
        return tuple(Guard(glob, self.name if self.required else "") for glob in self.globs)


@dataclass(frozen=True, slots=True)
class Host:
    """A Host understood. `labels` are its own, which Listeners choose by.

    `insecure_port`: one to be opened beside, 0 for none.
    """

    item: Item[HostSpec]
    rule: HostRule
    shown: Shown | None
    labels: Labels
    insecure_port: int


def hosts_of(resources: Resources, contexts: Contexts) -> list[Host]:
    """In order of name; of two with one hostname the first counts."""
    found: dict[str, Host] = {}
    names: dict[str, Raw] = {}
    for raw in sorted(resources.hosts, key=lambda item: (item.name, item.namespace or "")):
        host = _host(raw, contexts)
        if host is None or is_twin(raw, "Host", names, contexts.reader.report):
            continue
        first = found.setdefault(host.rule.hostname, host)
        if first is not host:
            message = f"`{host.rule.hostname}` is that of {first.rule.name} too, which counts"
            host.item.warn(contexts.reader.report, message, "hostname")
    return list(found.values())


def is_twin(raw: Raw, kind: str, names: dict[str, Raw], report: Report) -> bool:
    """Whether another of that name came before, with a complaint; guards know Hosts by name."""
    first = names.setdefault(label_of(raw, kind), raw)
    if first is raw:
        return False
    raw.problem(report, f"{kind} {raw.name} is already in {first.origin}; give it another name")
    return True


def label_of(raw: Item[object], kind: str) -> str:
    """`Host shop.prod`, how people and logs call it."""
    return f"{kind} {raw.name}" + (f".{raw.namespace}" if raw.namespace else "")


def _host(raw: Raw, contexts: Contexts) -> Host | None:
    report = contexts.reader.report
    if not raw.name:
        raw.problem(report, "name is missing; right would be shop")
        return None
    before = len(report.problems)
    fields = tls_fields(raw, report)
    decoder = Decoder(raw.document, report, raw.path, SILENT | {"tls"}, HOST_IGNORED)
    spec = decoder.read(_without(raw.node, "tls"), HostSpec)
    if spec is None:
        return None
    item: Item[HostSpec] = Item(
        raw.document, raw.node, raw.path, raw.name, raw.namespace, replace_tls(spec, fields)
    )
    rule = _rule(item, contexts)
    shown = _shown(item, rule, contexts)
    if len(report.problems) > before:
        return None
    _warn_of_acme(item, contexts)
    return Host(item, rule, shown, labels_of(raw.document.root), _insecure_port(item))


def replace_tls(spec: HostSpec, fields: TlsFields | None) -> HostSpec:
    """The spec with its `tls`, which is decoded apart."""
    return HostSpec(
        hostname=spec.hostname,
        mapping_selector=spec.mapping_selector,
        selector=spec.selector,
        tls_secret=spec.tls_secret,
        tls_context=spec.tls_context,
        tls=fields,
        request_policy=spec.request_policy,
        acme_provider=spec.acme_provider,
    )


def _without(node: Node, key: str) -> Node:
    if node.mapping is None or key not in node.mapping:
        return node
    return replace(node, value={name: one for name, one in node.mapping.items() if name != key})


# --- what requests meet ---------------------------------------------------------------------------


def _rule(item: Item[HostSpec], contexts: Contexts) -> HostRule:
    spec, report = item.spec, contexts.reader.report
    glob = (spec.hostname or "*").lower()
    if "*" in glob.strip("*") or glob in ("**", "") or (glob[0] == glob[-1] == "*" and glob != "*"):
        message = f"`{glob}` has a * in a wrong place; right would be *.example.com"
        item.problem(report, message, "hostname")
    check_hostname(item, report, glob, "hostname")
    key = "selector" if spec.mapping_selector is None else "mappingSelector"
    insecure = spec.request_policy.insecure if spec.request_policy is not None else None
    return HostRule(
        name=label_of(item, "Host"),
        hostname=glob,
        insecure=(insecure.action if insecure is not None else None) or REDIRECT,
        selector=selected(item, spec.mapping_selector or spec.selector, contexts, key),
    )


def selected(
    item: Item[object], selector: SelectorSpec | None, contexts: Contexts, *keys: str
) -> Labels | None:
    """The labels that are asked for; None for no selector, or an empty one."""
    if selector is None:
        return None
    if selector.match_expressions:
        message = "is not read (nor is it by Emissary); right would be matchLabels"
        item.problem(contexts.reader.report, message, *keys, "matchExpressions")
    return frozenset((selector.match_labels or {}).items()) or None


def labels_of(root: Node) -> Labels:
    """Of a resource (`metadata.labels`) or a flat document (`metadata_labels`)."""
    for node in (root.get("metadata", "labels"), root.get("metadata_labels")):
        if node is not None and node.mapping:
            return frozenset((name, child.text) for name, child in node.mapping.items())
    return NO_LABELS


def _insecure_port(item: Item[HostSpec]) -> int:
    policy = item.spec.request_policy
    insecure = policy.insecure if policy is not None else None
    return max(0, insecure.additional_port or 0) if insecure is not None else 0


def _warn_of_acme(item: Item[HostSpec], contexts: Contexts) -> None:
    acme = item.spec.acme_provider
    if acme is not None and (acme.authority or "").lower() != "none":
        message = (
            "has no effect, there is no ACME here; have cert-manager keep the Secret that tlsSecret "
            "names"
        )
        item.warn(contexts.reader.report, message, "acmeProvider")


# --- what handshakes meet -------------------------------------------------------------------------


def _shown(item: Item[HostSpec], rule: HostRule, contexts: Contexts) -> Shown | None:
    spec, reader = item.spec, contexts.reader
    if spec.tls is not None and spec.tls_context is not None:
        item.problem(reader.report, "and tls say the same; keep one", "tlsContext")
    material = _terms_of(item, contexts)
    if spec.tls_secret is not None:
        material = _with_secret(item, material, contexts)
    if material.chain is None and not material.broken:
        if material.ca is not None:
            message = "certificates of clients need one of our own; add tlsSecret"
            item.problem(reader.report, message)
        return None
    return _show(rule.name, (rule.hostname,), material, strict=reader.strict)


def _terms_of(item: Item[HostSpec], contexts: Contexts) -> Material:
    spec = item.spec
    if spec.tls is not None:
        return contexts.reader.material(item, spec.tls, "tls")
    name = spec.tls_context.name if spec.tls_context is not None else f"{item.name}-context"
    context = contexts.find(name, item.namespace)
    if context is not None:
        return contexts.material(context)
    if spec.tls_context is not None:
        message = f"TLSContext {name} is not there"
        contexts.reader.complain(item, message, "tlsContext", "name")
        return Material(broken=True)
    return Material()


def _with_secret(item: Item[HostSpec], material: Material, contexts: Contexts) -> Material:
    reference = item.spec.tls_secret
    if reference is None:
        return material
    namespace = reference.namespace or item.namespace
    place = split_name(reference.name, namespace, namespacing=reference.namespace is None)
    try:
        secret = contexts.reader.secrets.find(*place)
        chain, key = secret.pem(CHAIN_KEYS, CERTIFICATE), secret.pem(KEY_KEYS, KEY)
    except ValueError as error:
        contexts.reader.complain(item, str(error), "tlsSecret")
        return replace(material, chain=None, key=None, broken=True)
    return replace(material, chain=chain, key=key)


def _show(name: str, globs: tuple[str, ...], material: Material, *, strict: bool) -> Shown:
    """Without its CA the door would stand open, so there is none then."""
    if material.chain is None or material.key is None or (material.broken and material.required):
        return Shown(name, globs, None, material.required)
    tls = ServerTls(
        name=name,
        globs=globs,
        chain=material.chain,
        key=material.key,
        client_ca=material.ca,
        client_required=material.required,
        crl=material.crl,
        terms=material.terms,
        strict=strict,
    )
    return Shown(name, globs, tls, material.required)


def shown_by(contexts: Contexts) -> Iterator[Shown]:
    """Certificates of TLSContexts that name their hosts themselves. All are read, to be told of."""
    reader = contexts.reader
    for item in contexts:
        material = contexts.material(item)
        if not item.spec.hosts:
            continue
        if material.chain is None and not material.broken:
            item.problem(reader.report, "needs secret, or cert_chain_file, beside it", "hosts")
            continue
        globs = tuple(glob.lower() for glob in item.spec.hosts)
        for glob in globs:
            check_hostname(item, reader.report, glob, "hosts")
        yield _show(label_of(item, "TLSContext"), globs, material, strict=reader.strict)
