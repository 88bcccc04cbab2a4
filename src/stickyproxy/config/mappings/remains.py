"""What is left of a Mapping with fields that could not be read, to be looked at but never served.

Whoever asks what is wrong wants to hear it once and whole, not one mistake after the other.
"""

from __future__ import annotations

from dataclasses import replace

from stickyproxy.config.mappings.draft import Defaults, draft
from stickyproxy.config.resources.items import Entry, Item, Raw
from stickyproxy.config.resources.spellings import folded
from stickyproxy.config.schema.mapping import MappingSpec
from stickyproxy.config.text.compose import Node
from stickyproxy.config.text.decode import Decoder, Report

_DECISIVE = frozenset(
    ("prefix_regex", "prefix_exact", "host_regex", "method_regex", "host_redirect", "shadow")
)
"""Without these the others mean something else, and complaints about them may be untrue."""


def blame_remains(raw: Raw, defaults: Defaults, report: Report) -> None:
    """Complaints about the fields that could be read, as about any Mapping's."""
    entry = _remains(raw)
    if entry is not None:
        draft(entry, defaults, report)


def _remains(raw: Raw) -> Entry | None:
    node = folded(raw.node)
    decoder = Decoder(raw.document, Report(), raw.path)
    spec = decoder.read(node, MappingSpec)
    if spec is None and not decoder.refused & _DECISIVE:
        node = _without(node, decoder.refused)
        spec = decoder.read(node, MappingSpec)
    if spec is None:
        return None
    return Item(raw.document, node, raw.path, raw.name, raw.namespace, spec)


def _without(node: Node, keys: set[str]) -> Node:
    kept = {key: child for key, child in (node.mapping or {}).items() if key not in keys}
    return replace(node, value=kept, keys={key: node.keys[key] for key in kept})
