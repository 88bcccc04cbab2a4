"""Objects of a Kubernetes cluster into the documents that files have, so that one decoder serves both.

A custom resource is one document. A Service or Ingress is as many as its annotation
`getambassador.io/config` holds; there, lines count within the annotation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from stickyproxy.config.resources.ambassador import ANNOTATION, collect
from stickyproxy.config.resources.items import Resources
from stickyproxy.config.text.compose import MAX_DEPTH, MAX_NODES, DocumentError, Node
from stickyproxy.config.text.decode import Report
from stickyproxy.config.text.documents import Document

Object = Mapping[str, Any]
"""A Kubernetes object as JSON has it, with `kind` and `apiVersion` (list items come without)."""

ANNOTATED = frozenset(("Service", "Ingress"))


class ObjectKey(NamedTuple):
    """`uid` tells an object from one of the same name that was deleted."""

    kind: str
    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one object says. `ours` are its documents that are for us, in their order.

    `unreadable`: there are no documents, for the whole is broken.
    """

    key: ObjectKey
    created: str
    generation: int
    ours: tuple[Document, ...]
    resources: Resources
    report: Report
    unreadable: bool = False

    @property
    def age(self) -> tuple[str, str, str, str]:
        """Sorts the oldest first, and those of one second by name."""
        return self.created, self.key.namespace, self.key.name, self.key.kind


def key_of(found: Object) -> ObjectKey:
    metadata = _metadata(found)
    texts = (str(metadata.get(name) or "") for name in ("namespace", "name", "uid"))
    return ObjectKey(str(found.get("kind") or ""), *texts)


def concerns_us(found: Object) -> bool:
    """Whether there is anything to read: most Services have no annotation of Ambassador's."""
    if found.get("kind") not in ANNOTATED:
        return True
    annotations = _metadata(found).get("annotations")
    return isinstance(annotations, Mapping) and bool(annotations.get(ANNOTATION))


def decode_object(found: Object, ambassador_id: str) -> Decoded:
    """Problems are in the report, those of the whole blamed on the object's own document."""
    key, report = key_of(found), Report()
    metadata = _metadata(found)
    whole = Document(str(key), Node(0, {}))
    ours: list[Document] = []
    resources = Resources()
    try:
        whole.root = node_of(_narrowed(found))
    except DocumentError as error:
        report.problem(whole, 0, "", error.message)
    else:
        ours, resources = collect_ours(whole, ambassador_id, report)
    generation = metadata.get("generation")
    return Decoded(
        key=key,
        created=str(metadata.get("creationTimestamp") or ""),
        generation=generation if isinstance(generation, int) else 0,
        ours=tuple(ours),
        resources=resources,
        report=report,
        unreadable=whole in report.blamed and whole not in ours,
    )


def undecodable(found: Object, bug: Exception) -> Decoded:
    """An object that we fail on, which is our mistake and is told as one."""
    key, report = key_of(found), Report()
    report.problem(Document(str(key), Node(0, {})), 0, "", bug_in(bug))
    created = str(_metadata(found).get("creationTimestamp") or "")
    return Decoded(key, created, 0, (), Resources(), report, unreadable=True)


def bug_in(bug: Exception) -> str:
    return f"a bug of ours: {bug!r}; please report it"


def collect_ours(
    whole: Document, ambassador_id: str, report: Report
) -> tuple[list[Document], Resources]:
    """The documents of one object that have our id, and what they say."""
    ours: list[Document] = []

    def takes(document: Document) -> bool:
        if ambassador_id not in take_ids(document):
            return False
        if document.kind == "StickyProxy":
            message = "kind StickyProxy is for files; it has no effect in a cluster"
            report.warn(document, document.line, "", message)
            return False
        ours.append(document)
        return True

    resources = collect([whole], report, takes)
    return ours, resources


def take_ids(document: Document) -> frozenset[str]:
    """`ambassador_id` as text or list (Host's has an alias); `default` where it is not said.

    Taken out of the document, where nobody else needs it.
    """
    for holder in (document.root.get("spec"), document.root):
        fields = holder.mapping if holder is not None else None
        for name in ("ambassador_id", "ambassadorId"):
            node = fields.pop(name, None) if fields is not None else None
            if node is not None and node.value is not None:
                items = node.value if isinstance(node.value, list) else [node]
                return frozenset(item.text for item in items)
    return frozenset(("default",))


def _metadata(found: Object) -> Mapping[str, Any]:
    metadata = found.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}


def _narrowed(found: Object) -> Object:
    """What can matter of it: a Service's own fields are none of ours, nor is a status."""
    metadata = _metadata(found)
    named = {name: metadata.get(name) for name in ("name", "namespace")}
    named["labels"] = metadata.get("labels") or {}
    if found.get("kind") in ANNOTATED:
        annotations = metadata.get("annotations") or {}
        named["annotations"] = {ANNOTATION: annotations.get(ANNOTATION)}
        return {"kind": found.get("kind"), "metadata": named}
    rest = {name: found[name] for name in found if name not in ("metadata", "status")}
    return {**rest, "metadata": named}


# --- JSON into nodes ------------------------------------------------------------------------------


def node_of(value: Any) -> Node:
    """The tree that YAML would give. Raises `DocumentError` past the bounds that YAML has."""
    node = _node(value, 1)
    if node.size > MAX_NODES:
        raise DocumentError(0, f"has more than {MAX_NODES} values; split it")
    return node


def _node(value: Any, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise DocumentError(0, f"is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        entries = {str(key): _node(child, depth + 1) for key, child in value.items()}
        node = Node(0, entries, keys=dict.fromkeys(entries, 0))
        return _summed(node, iter(entries.values()))
    if isinstance(value, list | tuple):
        items = [_node(child, depth + 1) for child in value]
        return _summed(Node(0, items), iter(items))
    if isinstance(value, bool):
        return Node(0, value, "true" if value else "false")
    if isinstance(value, int | float):
        return Node(0, value, str(value))
    if value is None:
        return Node(0, None)
    return Node(0, str(value), str(value), quoted=True)


def _summed(node: Node, children: Iterator[Node]) -> Node:
    for child in children:
        node.size += child.size
        node.depth = max(node.depth, child.depth + 1)
    return node
