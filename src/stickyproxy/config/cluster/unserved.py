"""Broken Mappings of which no good version is known: their requests are answered 503.

They must not fall through to a shorter prefix, where another service would answer what was not meant
for it. So as much of the match is read as can be read: of a header or a method that makes no sense
the condition is dropped, for the prefix is what counts; without a readable prefix and host nobody
knows whose requests they were, and then there is no route.
"""

from __future__ import annotations

from stickyproxy.config.edge.hosts import labels_of
from stickyproxy.config.mappings.draft import match_of
from stickyproxy.config.resources.items import Entry, Item, Raw
from stickyproxy.config.schema.mapping import MappingSpec
from stickyproxy.config.text.compose import Node
from stickyproxy.config.text.decode import Decoder, Report
from stickyproxy.model import Route, RouteMatch, Target

_NEEDED = ("prefix", "prefix_regex", "prefix_exact", "hostname", "host", "host_regex")
_CONDITIONS = (
    ("case_sensitive",),
    ("method", "method_regex"),
    ("headers",),
    ("regex_headers",),
    ("query_parameters",),
    ("regex_query_parameters",),
    ("precedence",),
)


def unserved_route(item: Entry | Raw, match: RouteMatch) -> Route:
    """A route to a cluster that is not there, which is how its answer and its log line say why."""
    name = item.name or "unnamed"
    place = f"{item.namespace}/{name}" if item.namespace else name
    cluster = f"(Mapping {place} is broken)"
    labels = labels_of(item.document.root)
    target = Target(name=name, cluster=cluster, labels=labels, origin=item.origin)
    return Route(name, match, (target,))


def unserved_match(item: Entry | Raw) -> RouteMatch | None:
    """What of a broken Mapping's match is readable, None if that is too little.

    A shadow answers nobody, so none is missed.
    """
    fields = item.node.mapping or {}
    shadow = fields.get("shadow")
    if shadow is not None and shadow.value:
        return None
    read = {key: fields[key] for key in _NEEDED if key in fields}
    found = _read(item, read)
    if found is None:
        return None
    for keys in _CONDITIONS:
        more = read | {key: fields[key] for key in keys if key in fields}
        if more.keys() != read.keys() and (narrower := _read(item, more)) is not None:
            read, found = more, narrower
    return found


def _read(item: Entry | Raw, fields: dict[str, Node]) -> RouteMatch | None:
    report = Report()
    service = Node(0, "unserved", "unserved")
    node = Node(item.node.line, {"service": service, **fields})
    node.keys = dict.fromkeys(fields, item.node.line)
    spec = Decoder(item.document, report).read(node, MappingSpec)
    if spec is None:
        return None
    entry = Item(item.document, node, item.path, item.name, item.namespace, spec)
    match = match_of(entry, report)
    return None if report.problems else match
