"""Spellings that Emissary's conversion between versions leaves in a Mapping, into those of one version.

A v2 object that is asked for as v3alpha1, or the other way round, carries what its version cannot say
under names made for it (`v2BoolHeaders`, `v3StatsName`). Emissary: api/getambassador.io/v2 and v3alpha1.
"""

from __future__ import annotations

from stickyproxy.config.text.compose import Node

_RENAMED = {"v3StatsName": "stats_name", "v3health_checks": "health_checks"}
_PRESENT = {"v2BoolHeaders": "headers", "v2BoolQueryParameters": "query_parameters"}
_NOTES = frozenset(("v2ExplicitTLS",))
"""How v2 had said it; what it means stands in `service`, whose scheme was set from it."""
_ADDED = ("add_request_headers", "add_response_headers")
_HEADER_NOTE = "v2Representation"


def folded(spec: Node) -> Node:
    """The fields of a Mapping under the names that we read; the same node where nothing is to do."""
    fields = spec.mapping
    if fields is None or not (_has_notes(fields) or any(map(_is_noted, _headers(fields)))):
        return spec
    kept = {key: node for key, node in fields.items() if key not in _NOTES | _PRESENT.keys()}
    kept = {_RENAMED.get(key, key): node for key, node in kept.items()}
    for note, key in _PRESENT.items():
        if note in fields:
            kept[key] = _with_present(kept.get(key), fields[note])
    for key in _ADDED:
        if key in kept:
            kept[key] = _without_notes(kept[key])
    lines = {key: spec.keys.get(key, node.line) for key, node in kept.items()}
    return Node(spec.line, kept, keys=lines, size=spec.size, depth=spec.depth)


def _has_notes(fields: dict[str, Node]) -> bool:
    return not fields.keys().isdisjoint(_NOTES | _PRESENT.keys() | _RENAMED.keys())


def _headers(fields: dict[str, Node]) -> list[Node]:
    found = (fields.get(key) for key in _ADDED)
    return [node for one in found if one is not None for node in (one.mapping or {}).values()]


def _is_noted(header: Node) -> bool:
    return header.mapping is not None and _HEADER_NOTE in header.mapping


def _with_present(conditions: Node | None, names: Node) -> Node:
    """Conditions plus "is there, whatever its value" for each of these names."""
    read = dict(conditions.mapping or {}) if conditions is not None else {}
    listed = names.value if isinstance(names.value, list) else []
    read |= {name.text: Node(name.line, True, "true") for name in listed}
    line = names.line if conditions is None else conditions.line
    return Node(line, read, keys={key: node.line for key, node in read.items()})


def _without_notes(headers: Node) -> Node:
    """Without `v2Representation`, which says only that v2 had a plain text there."""
    read = {
        name: _bare(node) if _is_noted(node) else node
        for name, node in (headers.mapping or {}).items()
    }
    return Node(headers.line, read, keys=dict(headers.keys)) if read else headers


def _bare(header: Node) -> Node:
    kept = {key: node for key, node in (header.mapping or {}).items() if key != _HEADER_NOTE}
    return Node(header.line, kept, keys={key: node.line for key, node in kept.items()})
