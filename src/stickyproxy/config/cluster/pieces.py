"""The documents of files and cluster in one row, the oldest first, each with what is known of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stickyproxy.config.cluster.objects import Decoded
from stickyproxy.config.cluster.status import Good, PieceKey
from stickyproxy.config.resources.ambassador import (
    MAPPING_KINDS,
    SERVED_KINDS,
    name_of,
    namespace_of,
)
from stickyproxy.config.resources.items import Item, Resources
from stickyproxy.config.text.compose import Node
from stickyproxy.config.text.decode import Report
from stickyproxy.config.text.documents import Document

EDGE_LISTS = ("hosts", "listeners", "tls_contexts", "secrets")

_MORE_KINDS = frozenset(("Secret",))


@dataclass(slots=True, eq=False)
class Piece:
    """One document. `item` is None where its fields cannot be read; `last` is how it last was good."""

    key: PieceKey
    document: Document
    generation: int
    item: Item[Any] | None
    last: Good | None
    place: str = ""
    superseded: bool = False

    @property
    def is_mapping(self) -> bool:
        return self.key.kind in MAPPING_KINDS


def pieces_of_files(resources: Resources, good: Mapping[PieceKey, Good]) -> Iterator[Piece]:
    """Mappings and Module, which a cluster's may get in the way of. Files come first."""
    items: list[Item[Any]] = [*resources.mappings]
    if resources.module is not None:
        items.append(resources.module)
    for item in items:
        document = item.document
        key = PieceKey(None, document.kind, item.namespace or "", item.name)
        yield Piece(key, document, 0, item, good.get(key))


def pieces_of(decoded: Decoded, good: Mapping[PieceKey, Good]) -> Iterator[Piece]:
    """The documents of one object that we serve."""
    items = _by_document(decoded.resources)
    seen: Counter[PieceKey] = Counter()
    for document in decoded.ours:
        kind = document.kind
        if kind not in SERVED_KINDS | _MORE_KINDS:
            if document in decoded.report.blamed:  # nobody's by itself, so told of at its object
                key = PieceKey(decoded.key, *decoded.key[:3])
                yield Piece(key, document, decoded.generation, None, None)
            continue
        item, place = items.get(document, (None, ""))
        namespace = (item and item.namespace) or namespace_of(document) or decoded.key.namespace
        key = PieceKey(decoded.key, kind, namespace, name_of(document))
        seen[key] += 1
        if seen[key] > 1:  # a broken twin must not take the place of the good one
            key = key._replace(name=f"{key.name} #{seen[key]}")
        yield Piece(key, document, decoded.generation, item, good.get(key), place)
    if decoded.unreadable:
        yield from _remembered(decoded, good)


def _remembered(decoded: Decoded, good: Mapping[PieceKey, Good]) -> Iterator[Piece]:
    """Of an object that cannot be read at all: itself, and all that it once said."""
    whole = next(iter(decoded.report.blamed), Document(str(decoded.key), Node(0, {})))
    owner = decoded.key
    itself = PieceKey(owner, owner.kind, owner.namespace, owner.name)
    known = {key: last for key, last in good.items() if key.owner == owner}
    for key in {itself: None, **known}:
        last = known.get(key)
        place = "" if last is None else place_of(last.item)
        yield Piece(key, whole, decoded.generation, None, last, place)


def place_of(item: Item[Any]) -> str:
    """The list of `Resources` that it belongs to, "" for Mappings and the Module."""
    return _PLACES.get(item.document.kind, "")


_PLACES = {
    "Host": "hosts",
    "AmbassadorHost": "hosts",
    "Listener": "listeners",
    "AmbassadorListener": "listeners",
    "TLSContext": "tls_contexts",
    "Secret": "secrets",
}


def _by_document(resources: Resources) -> dict[Document, tuple[Item[Any], str]]:
    listed: list[Item[Any]] = [*resources.mappings, *resources.unread]
    found = {item.document: (item, "") for item in listed}
    if resources.module is not None:
        found[resources.module.document] = (resources.module, "")
    for name in EDGE_LISTS:
        found |= {item.document: (item, name) for item in getattr(resources, name)}
    return found


def refuse_same_names(pieces: Iterable[Piece], report: Report) -> None:
    """Of two Mappings with one name the older one has it."""
    first: dict[tuple[str, str], Piece] = {}
    for piece in pieces:
        if not piece.is_mapping or not piece.key.name or piece.item is None:
            continue
        older = first.setdefault((piece.key.namespace, piece.key.name), piece)
        if older is not piece and piece.document not in report.blamed:
            where = older.document.at(older.document.line)
            message = f"Mapping {piece.key.name} is already in {where}; give it another name"
            report.problem(piece.document, piece.document.line, "name", message)
            piece.superseded = True


def only_module(pieces: Iterable[Piece], report: Report) -> Piece | None:
    """The Module `ambassador`: the oldest one, broken or not."""
    chosen: Piece | None = None
    for piece in pieces:
        if piece.key.kind != "Module" or piece.key.name != "ambassador":
            continue
        if chosen is None:
            chosen = piece
            continue
        where = chosen.document.at(chosen.document.line)
        message = f"Module ambassador is already in {where}; keep one"
        report.problem(piece.document, piece.document.line, "name", message)
        piece.superseded = True
    return chosen


def resolvers_of(files: Resources, decoded: Iterable[Decoded], report: Report) -> dict[str, str]:
    """Names and kinds of all resolver resources; the older one has a name."""
    found = dict(files.resolvers)
    for one in decoded:
        for name, kind in one.resources.resolvers.items():
            if found.setdefault(name, kind) != kind:
                document = _resolver(one, name)
                message = f"resolver {name} is already a {found[name]}; give it another name"
                report.problem(document, document.line, "name", message)
    return found


def _resolver(decoded: Decoded, name: str) -> Document:
    kind = decoded.resources.resolvers[name]
    found = (one for one in decoded.ours if one.kind == kind and name_of(one) == name)
    return next(found)
