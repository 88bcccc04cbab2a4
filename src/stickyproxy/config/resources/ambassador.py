"""Ambassador's documents: Mapping and Module, in all their apiVersions, and where they hide.

One parser serves flat documents (`ambassador/v1`, annotations) and custom resources (`spec`), as
Emissary folds the first into the second. What belongs to other kinds is named and passed over.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator

from stickyproxy.config.resources.items import Item, Raw, Resources
from stickyproxy.config.resources.resolution import ENDPOINT_KIND, SERVICE_KIND
from stickyproxy.config.resources.spellings import folded
from stickyproxy.config.schema import known
from stickyproxy.config.schema.mapping import MappingSpec, ModuleSpec
from stickyproxy.config.text.compose import Node
from stickyproxy.config.text.decode import Decoder, Report, join
from stickyproxy.config.text.documents import Document, parse

API_GROUPS = frozenset(("ambassador", "getambassador.io", "x.getambassador.io"))
API_VERSIONS = frozenset(("v0", "v1", "v2", "v3alpha1"))
CURRENT = "getambassador.io/v3alpha1"
ANNOTATION = "getambassador.io/config"

MAPPING_KINDS = frozenset(("Mapping", "AmbassadorMapping"))
CONSUL_KIND = "ConsulResolver"
_RESOLVER_KINDS = frozenset((ENDPOINT_KIND, SERVICE_KIND, CONSUL_KIND))
_EDGE_KINDS = {
    "Host": "hosts",
    "AmbassadorHost": "hosts",
    "Listener": "listeners",
    "AmbassadorListener": "listeners",
    "TLSContext": "tls_contexts",
}
SERVED_KINDS = MAPPING_KINDS | _RESOLVER_KINDS | _EDGE_KINDS.keys() | {"Module"}


def collect(
    documents: list[Document], report: Report, takes: Callable[[Document], bool] | None = None
) -> Resources:
    """Sort documents by kind and decode Ambassador's; of all, or of those that `takes` takes."""
    found = Resources()
    names: dict[tuple[str | None, str], Document] = {}
    for document, namespace in _unfold(documents, report):
        kind = document.kind
        if takes is not None and not takes(document):
            continue
        if kind == "StickyProxy":
            _take_process(document, found, report)
        elif not kind:
            message = f"is missing; right would be Mapping ({CURRENT})"
            report.problem(document, document.line, "kind", message)
        elif _is_secret(document):
            _take_raw(document, namespace, found.secrets)
        elif not _is_ambassadors(document, report):
            continue
        elif kind in MAPPING_KINDS:
            _take_mapping(document, namespace, found, names, report)
        elif kind == "Module":
            _take_module(document, namespace, found, report)
        elif kind in _RESOLVER_KINDS:
            _take_resolver(document, found, report)
        else:
            _take_raw(document, namespace, getattr(found, _EDGE_KINDS[kind]))
    return found


def _unfold(documents: list[Document], report: Report) -> Iterator[tuple[Document, str | None]]:
    """Documents with their default namespace; lists and annotations are opened."""
    for document in documents:
        items = document.root.get("items")
        annotation = document.root.get("metadata", "annotations", ANNOTATION)
        if document.kind.endswith("List") and items is not None and isinstance(items.value, list):
            inner = [Document(document.file, node) for node in items.value]
            yield from _unfold(inner, report)
        elif annotation is not None and isinstance(annotation.value, str):
            found, problems = _inside(document, annotation)
            for problem in problems:
                report.blame(document, problem)
            namespace = _text(document.root.get("metadata", "namespace"))
            for inside in found:
                _inherit_labels(inside, document)
                yield inside, namespace
        else:
            yield document, None


def _inside(document: Document, annotation: Node) -> tuple[list[Document], list[str]]:
    """Lines go on in a file; of an object in the cluster they count within the annotation."""
    text = annotation.text.encode()
    if not annotation.line:
        return parse(text, f"{document.file} annotation")
    return parse(text, document.file, annotation.line + (b"\n" in text))


def _inherit_labels(inside: Document, around: Document) -> None:
    """A document of an annotation has its Service's labels where it says none itself."""
    labels = around.root.get("metadata", "labels")
    has = inside.root.get("metadata", "labels") or inside.root.get("metadata_labels")
    if labels is not None and has is None and inside.root.mapping is not None:
        inside.root.mapping["metadata_labels"] = labels
        inside.root.keys["metadata_labels"] = labels.line


def _is_ambassadors(document: Document, report: Report) -> bool:
    """Whether it is for us; says so when it is not, or when its version is none."""
    kind = document.kind
    node = document.root.get("apiVersion")
    line = document.line if node is None else node.line
    if node is None or not node.text:
        if kind in SERVED_KINDS:
            message = f"is missing, {CURRENT} is taken"
            report.warn(document, line, "apiVersion", message)
            return True
        _pass_over(document, report)
        return False
    group, _, version = node.text.partition("/")
    if group not in API_GROUPS or kind not in SERVED_KINDS:
        _pass_over(document, report)
        return False
    if version not in API_VERSIONS:
        message = f"{node.text} is no version that we know; right would be {CURRENT}"
        report.problem(document, line, "apiVersion", message)
        return False
    return True


def _is_secret(document: Document) -> bool:
    version = document.root.get("apiVersion")
    return document.kind == "Secret" and version is not None and version.text == "v1"


def _pass_over(document: Document, report: Report) -> None:
    name = name_of(document)
    called = f" {name}" if name else ""
    hint = _near_kind(document.kind)
    report.warn(document, document.line, "", f"kind {document.kind}{called} is passed over{hint}")


def _near_kind(kind: str) -> str:
    """Whole documents without effect deserve a guess. TCPMapping is not meant as a Mapping."""
    known = {name.lower(): name for name in sorted(SERVED_KINDS | {"StickyProxy"})}
    near = difflib.get_close_matches(kind.lower(), known, n=1, cutoff=0.85)
    return f"; did you mean {known[near[0]]}?" if near and known[near[0]] != kind else ""


def _take_raw(document: Document, namespace: str | None, into: list[Raw]) -> None:
    """Fields stand in `spec`, or (flat documents, Secrets) beside the kind."""
    spec = document.root.get("spec")
    name, own = name_of(document), namespace_of(document)
    path = "" if spec is None else "spec"
    into.append(Item(document, spec or document.root, path, name, own or namespace, None))


def _take_resolver(document: Document, found: Resources, report: Report) -> None:
    name = name_of(document)
    if not name:
        report.problem(document, document.line, "name", "is missing; right would be my-resolver")
    elif found.resolvers.setdefault(name, document.kind) != document.kind:
        message = f"resolver {name} is already a {found.resolvers[name]}; give it another name"
        report.problem(document, document.line, "name", message)
    elif document.kind == CONSUL_KIND:
        message = f"{CONSUL_KIND} {name} is not served; Mappings that name it are refused"
        report.warn(document, document.line, "", message)


def namespace_of(document: Document) -> str | None:
    root = document.root
    return _text(root.get("metadata", "namespace")) or _text(root.get("namespace"))


def _take_process(document: Document, found: Resources, report: Report) -> None:
    if found.process is not None:
        first = found.process
        message = f"is given twice (first in {first.at(first.line)}); keep one"
        report.problem(document, document.line, "StickyProxy", message)
        return
    found.process = document


def _take_mapping(
    document: Document,
    namespace: str | None,
    found: Resources,
    names: dict[tuple[str | None, str], Document],
    report: Report,
) -> None:
    name = name_of(document)
    namespace = namespace_of(document) or namespace
    if not name:
        report.problem(document, document.line, "name", "is missing; right would be qotm_mapping")
    elif (first := names.setdefault((namespace, name), document)) is not document:
        message = f"Mapping {name} is already in {first.at(first.line)}; give it another name"
        report.problem(document, document.line, "name", message)
    node, path, spec = _spec(document, report)
    if spec is None or node is None or not name:
        _take_raw(document, namespace, found.unread)
        return
    found.mappings.append(Item(document, node, path, name, namespace, spec))


def _take_module(
    document: Document, namespace: str | None, found: Resources, report: Report
) -> None:
    name = name_of(document)
    if name != "ambassador":
        report.warn(document, document.line, "", f"kind Module {name} is passed over")
        return
    if found.module is not None:
        first = found.module.document
        message = f"Module ambassador is already in {first.at(first.line)}; keep one"
        report.problem(document, document.line, "name", message)
        return
    holder = document.root.get("spec") or document.root
    path = "spec" if holder is not document.root else ""
    config = holder.get("config")
    if config is None or config.value is None:
        report.warn(document, document.line, join(path, "config"), "is missing or empty")
        return
    path = join(path, "config")
    decoder = Decoder(document, report, path, without_effect=known.MODULE_IGNORED)
    spec = decoder.read(config, ModuleSpec)
    if spec is not None:
        own = namespace_of(document) or namespace
        found.module = Item(document, config, path, name, own, spec)


def _spec(document: Document, report: Report) -> tuple[Node | None, str, MappingSpec | None]:
    """The node that holds the fields, its path, and what it says."""
    node, path, silent = document.root, "", known.IDENTITY
    if "spec" in document.root.keys or "metadata" in document.root.keys:
        spec = document.root.get("spec")
        if spec is None:
            report.problem(document, document.line, "spec", "is missing; it holds prefix, service")
            return None, "", None
        node, path, silent = spec, "spec", frozenset()
    node = folded(node)
    decoder = Decoder(document, report, path, silent, known.MAPPING_IGNORED)
    return node, path, decoder.read(node, MappingSpec)


def name_of(document: Document) -> str:
    return _text(document.root.get("metadata", "name")) or _text(document.root.get("name")) or ""


def _text(node: Node | None) -> str | None:
    """The text of a scalar, however YAML would read it; None for anything else."""
    if node is None or isinstance(node.value, dict | list) or not node.text:
        return None
    return node.text
