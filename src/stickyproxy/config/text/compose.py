"""YAML text into nodes that know their lines, within bounds.

The YAML is what Kubernetes takes: YAML 1.1 with merge keys, keys are text, no tags beyond the plain
types. Values stay as close to the text as can be, so that whoever complains about one can say how
it was written.

What hostile or broken text may do is bounded: nesting, and values *after* aliases are expanded
(nine lines of aliases of aliases otherwise make a billion).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import yaml
from yaml import events as ev

MAX_NODES = 200_000  # some 5,000 Mappings with everything written out
MAX_DEPTH = 50  # the deepest document of Ambassador's has about 8 levels

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser is ten times as fast

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")
_TRUE = frozenset(
    ("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON")  # YAML 1.1, but for y and n
)
_FALSE = frozenset(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"))
_NULL = frozenset(("", "~", "null", "Null", "NULL"))


@dataclass(slots=True, eq=False)
class Node:
    """One value and where it stands.

    `value` is a scalar (str, int, float, bool, None), a list of Nodes, or a dict from key to Node.
    `text` is how a scalar was written, `quoted` whether in quotes or as a block. `keys` holds the
    line of each key. `size` counts nodes with aliases expanded.
    """

    line: int
    value: object = field(repr=False)  # a Secret is read by nodes too
    text: str = field(default="", repr=False)
    quoted: bool = False
    keys: dict[str, int] = field(default_factory=dict)
    size: int = 1
    depth: int = 1

    @property
    def mapping(self) -> dict[str, Node] | None:
        return self.value if isinstance(self.value, dict) else None

    def plain(self) -> object:
        """The value as plain Python data."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def get(self, *path: str) -> Node | None:
        """The node under these keys, or None."""
        node: Node | None = self
        for key in path:
            node = node.mapping.get(key) if node is not None and node.mapping else None
        return node


class DocumentError(Exception):
    """A file cannot be read as YAML. `line` is 0 where there is none to name."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


class _Open:
    """A list or mapping that is being filled; `key` is the one whose value comes next."""

    __slots__ = ("anchor", "key", "merges", "node")

    def __init__(self, node: Node, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: Node | None = None
        self.merges: list[Node] = []


def compose(text: str) -> Iterator[Node]:
    """Root nodes. Iterative, so that nesting is limited by us and not by the stack."""
    try:
        yield from _Composer().run(yaml.parse(text, Loader=_LOADER))
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        problem = exc.problem or exc.context or "unknown trouble"
        if "tab" in problem or r"\t" in problem:
            problem += "; indent with spaces"
        raise DocumentError(mark.line + 1 if mark else 0, f"is not YAML: {problem}") from None
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        raise DocumentError(line, "is not YAML: a control character") from None
    except yaml.YAMLError as exc:
        raise DocumentError(0, f"is not YAML: {exc}") from None


class _Composer:
    def __init__(self) -> None:
        self._anchors: dict[str, Node | None] = {}
        self._stack: list[_Open] = []
        self._nodes = 0

    def run(self, events: Iterable[ev.Event]) -> Iterator[Node]:
        for event in events:
            done = self._take(event)
            if done is None:
                continue
            if not self._stack:
                yield done
            else:
                self._place(done)

    def _take(self, event: ev.Event) -> Node | None:
        """Note an event; the node that it completes, if it does."""
        if isinstance(event, ev.DocumentStartEvent):
            self._anchors = {}
        elif isinstance(event, ev.ScalarEvent):
            return self._named(event.anchor, scalar(event))
        elif isinstance(event, ev.AliasEvent):
            return self._alias(event)
        elif isinstance(event, ev.MappingStartEvent | ev.SequenceStartEvent):
            self._start(event)
        elif isinstance(event, ev.MappingEndEvent | ev.SequenceEndEvent):
            return self._end()
        return None

    def _start(self, event: ev.MappingStartEvent | ev.SequenceStartEvent) -> None:
        line = line_of(event)
        if len(self._stack) >= MAX_DEPTH:
            raise DocumentError(line, f"is nested deeper than {MAX_DEPTH} levels")
        if event.anchor is not None:
            self._anchors[event.anchor] = None  # known, but not complete
        value: object = {} if isinstance(event, ev.MappingStartEvent) else []
        self._stack.append(_Open(Node(line, value), event.anchor))

    def _end(self) -> Node:
        done = self._stack.pop()
        for merged in done.merges:
            _merge(done.node, merged)
        return self._named(done.anchor, done.node)

    def _named(self, anchor: str | None, node: Node) -> Node:
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _alias(self, event: ev.AliasEvent) -> Node:
        line = line_of(event)
        if event.anchor not in self._anchors:
            raise DocumentError(line, f"alias *{event.anchor} has no anchor &{event.anchor} before")
        node = self._anchors[event.anchor]
        if node is None:
            raise DocumentError(line, f"alias *{event.anchor} contains itself")
        return node

    def _place(self, node: Node) -> None:
        """Put a finished node into the list or mapping around it."""
        around = self._stack[-1]
        if isinstance(around.node.value, list):
            around.node.value.append(node)
        elif around.key is None:
            around.key = _checked_key(around.node, node)
            return
        else:
            self._place_value(around, around.key, node)
            around.key = None
        self._account(around.node, node)

    def _place_value(self, around: _Open, key: Node, node: Node) -> None:
        if key.text == "<<" and not key.quoted:
            around.merges.extend(node.value if isinstance(node.value, list) else [node])
            return
        mapping = around.node.mapping
        if mapping is not None:
            mapping[key.text] = node
            around.node.keys[key.text] = key.line

    def _account(self, around: Node, node: Node) -> None:
        around.size += node.size
        around.depth = max(around.depth, node.depth + 1)
        self._nodes += 1
        if max(around.size, self._nodes) > MAX_NODES:
            raise DocumentError(node.line, f"has more than {MAX_NODES} values; split it")
        if around.depth > MAX_DEPTH:
            raise DocumentError(node.line, f"is nested deeper than {MAX_DEPTH} levels")


def _checked_key(mapping: Node, key: Node) -> Node:
    if isinstance(key.value, dict | list):
        raise DocumentError(key.line, "a key must be text, not a list or mapping")
    if key.text in mapping.keys and key.text != "<<":
        first = mapping.keys[key.text]
        raise DocumentError(
            key.line, f"{key.text}: is given twice (first in line {first}); keep one"
        )
    return key


def _merge(into: Node, merged: Node) -> None:
    if not isinstance(into.value, dict) or not isinstance(merged.value, dict):
        raise DocumentError(merged.line, "<<: takes a mapping or a list of mappings")
    for key, node in merged.value.items():
        if key not in into.value:
            into.value[key] = node
            into.keys[key] = merged.keys[key]


def line_of(event: ev.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


def scalar(event: ev.ScalarEvent) -> Node:
    """A scalar as Kubernetes' YAML reads it; dates and base-60 numbers stay text."""
    quoted = not event.implicit[0] if event.tag is None else event.tag == "!"
    line, text = line_of(event), str(event.value)
    tag = event.tag if event.tag not in (None, "!") else None
    if tag is not None and tag != "tag:yaml.org,2002:str":
        shown = tag.replace("tag:yaml.org,2002:", "!!")
        raise DocumentError(line, f"tag {shown} is not taken; write the plain value")
    is_text = quoted or tag is not None
    return Node(line, text if is_text else resolve(text), text, is_text)


def resolve(text: str) -> object:
    """The value of a plain scalar."""
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if _INT.fullmatch(text) and len(text) <= 20:  # more digits than 2**64 are text
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def substitute(node: Node, change: Callable[[str, int], str]) -> Node:
    """A copy in which every scalar's text went through `change(text, line)` and is read anew."""
    if isinstance(node.value, dict):
        value: object = {key: substitute(child, change) for key, child in node.value.items()}
        return Node(node.line, value, keys=dict(node.keys))
    if isinstance(node.value, list):
        return Node(node.line, [substitute(child, change) for child in node.value])
    text = change(node.text, node.line)
    return Node(node.line, text if node.quoted else resolve(text), text, node.quoted)
