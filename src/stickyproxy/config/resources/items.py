"""What was found in documents: one `Item` for each resource, sorted by kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from stickyproxy.config.schema.mapping import MappingSpec, ModuleSpec
from stickyproxy.config.text.compose import Node
from stickyproxy.config.text.decode import Report, join
from stickyproxy.config.text.documents import Document

S_co = TypeVar("S_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Item(Generic[S_co]):
    """One resource as decoded, with its place for complaints that need more than one field.

    `node` holds the fields, `path` is where it stands in the document (`spec`, `config`, "").
    """

    document: Document
    node: Node
    path: str
    name: str
    namespace: str | None
    spec: S_co

    @property
    def origin(self) -> str:
        return self.document.at(self.document.line)

    def line_of(self, *keys: str) -> int:
        """The line of the value under these keys, or of what is nearest to it."""
        node = self.node
        for key in keys:
            found = node.get(key)
            if found is None:
                break
            node = found
        return node.line

    def problem(self, report: Report, message: str, *keys: str) -> None:
        report.problem(self.document, self.line_of(*keys), self._path(keys), message)

    def warn(self, report: Report, message: str, *keys: str) -> None:
        report.warn(self.document, self.line_of(*keys), self._path(keys), message)

    def _path(self, keys: tuple[str, ...]) -> str:
        path = self.path
        for key in keys:
            path = join(path, key)
        return path


Entry = Item[MappingSpec]
ModuleEntry = Item[ModuleSpec]
Raw = Item[None]
"""A resource whose fields nobody has decoded yet; `node` has them.

These names are for annotations; `Item(...)` makes one (a slotted generic alias cannot be called)."""


@dataclass(slots=True)
class Resources:
    """All that was found in the documents, in their order.

    `unread` are Mappings whose fields could not be decoded. `resolvers` has names and kinds
    (`config.resources.resolution.BUILT_IN` not among them). `awaited`: a cluster's are to join them, and what
    is not there now may come; `secrets_unread`: they have, but for its Secrets.
    """

    mappings: list[Entry] = field(default_factory=list)
    unread: list[Raw] = field(default_factory=list)
    module: ModuleEntry | None = None
    process: Document | None = None
    resolvers: dict[str, str] = field(default_factory=dict)
    hosts: list[Raw] = field(default_factory=list)
    listeners: list[Raw] = field(default_factory=list)
    tls_contexts: list[Raw] = field(default_factory=list)
    secrets: list[Raw] = field(default_factory=list)
    awaited: bool = False
    secrets_unread: bool = False
