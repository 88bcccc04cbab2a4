"""A document's node into its struct; all complaints at once, with place and what is right."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, TypeVar

from msgspec import Struct, inspect

from stickyproxy.config.text.compose import Node
from stickyproxy.config.text.documents import Document, describe

S = TypeVar("S", bound=Struct)

_BAD: Final = object()
"""Stands for a value that was complained about."""


@dataclass(slots=True)
class Report:
    """Problems and warnings so far, as complete lines; `blamed` and `warned` are those of each

    document, for where each stands alone.
    """

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    blamed: dict[Document, list[str]] = field(default_factory=dict)
    warned: dict[Document, list[str]] = field(default_factory=dict)

    def problem(self, document: Document, line: int, path: str, message: str) -> None:
        self.blame(document, f"{document.at(line, path)}: {message}")

    def blame(self, document: Document, said: str) -> None:
        """A complete line about a document."""
        self.problems.append(said)
        self.blamed.setdefault(document, []).append(said)

    def warn(self, document: Document, line: int, path: str, message: str) -> None:
        said = f"{document.at(line, path)}: {message}"
        self.warnings.append(said)
        self.warned.setdefault(document, []).append(said)


@dataclass(slots=True)
class Decoder:
    """Reads nodes of one document. `prefix` is the path of its outermost struct.

    There, keys in `silent` are passed over and keys in `without_effect` are told apart from
    unknown ones; both kinds are only warnings. `refused` has the keys there whose values the last
    read complained about.
    """

    document: Document
    report: Report
    prefix: str = ""
    silent: Collection[str] = ()
    without_effect: Collection[str] = ()
    refused: set[str] = field(default_factory=set)

    def read(self, node: Node, shape: type[S]) -> S | None:
        """The struct, or None after at least one complaint."""
        value = self._struct(node, _info(shape), self.prefix)
        return value if isinstance(value, shape) else None

    def _struct(self, node: Node, shape: inspect.Type, path: str) -> Any:
        if not isinstance(shape, inspect.StructType):
            raise TypeError(shape)
        if node.mapping is None:
            self._complain(node, path, f"must be a mapping, not {describe(node)}")
            return _BAD
        fields = {item.encode_name: item for item in shape.fields}
        values: dict[str, Any] = {}
        for key, child in node.mapping.items():
            if key in fields:
                item = fields[key]
                values[item.name] = self._value(child, item.type, join(path, key))
            else:
                self._unknown(node, key, path, fields)
        bad = {item.encode_name for item in shape.fields if values.get(item.name) is _BAD}
        if path == self.prefix:
            self.refused = bad
        missing = [f for key, f in fields.items() if f.required and key not in node.mapping]
        for item in missing:
            where = join(path, item.encode_name)
            self._complain(node, where, f"is missing{_such_as(item.type)}")
        if missing or bad:
            return _BAD
        return shape.cls(**values)

    def _value(self, node: Node, shape: inspect.Type, path: str) -> Any:
        choices = _choices(shape)
        for choice in choices:
            if isinstance(choice, inspect.AnyType):  # a field that nobody looks at
                return None
            if isinstance(choice, inspect.StructType) and node.mapping is not None:
                return self._struct(node, choice, path)
            if isinstance(choice, inspect.ListType) and isinstance(node.value, list):
                return self._items(node.value, choice, path)
            if isinstance(choice, inspect.DictType) and node.mapping is not None:
                return self._entries(node.mapping, choice, path)
            if _fits(node.value, choice):
                return node.value
        self._complain(node, path, _wrong(node, choices, shape))
        return _BAD

    def _items(self, items: list[Node], shape: inspect.ListType, path: str) -> Any:
        found = [self._value(n, shape.item_type, f"{path}[{i}]") for i, n in enumerate(items)]
        return _BAD if any(item is _BAD for item in found) else found

    def _entries(self, entries: dict[str, Node], shape: inspect.DictType, path: str) -> Any:
        found = {
            key: self._value(child, shape.value_type, join(path, key))
            for key, child in entries.items()
        }
        return _BAD if any(item is _BAD for item in found.values()) else found

    def _unknown(self, node: Node, key: str, path: str, fields: Collection[str]) -> None:
        outermost = path == self.prefix
        if outermost and key in self.silent:
            return
        if outermost and key in self.without_effect:
            message = "is known and has no effect in this version"
        else:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            message = f"is unknown and has no effect{hint}"
        self.report.warn(self.document, node.keys[key], join(path, key), message)

    def _complain(self, node: Node, path: str, message: str) -> None:
        self.report.problem(self.document, node.line, path, message)


@cache
def _info(shape: type[Struct]) -> inspect.Type:
    """Looking at a struct with 60 fields takes 4 ms, and a thousand Mappings have the same one."""
    return inspect.type_info(shape)


def join(path: str, key: str) -> str:
    """The path of a key's value."""
    return f"{path}.{key}" if path else key


def _bare(shape: inspect.Type) -> inspect.Type:
    while isinstance(shape, inspect.Metadata):
        shape = shape.type
    return shape


def _choices(shape: inspect.Type) -> list[inspect.Type]:
    bare = _bare(shape)
    if isinstance(bare, inspect.UnionType):
        return [choice for part in bare.types for choice in _choices(part)]
    return [bare]


def _fits(value: object, shape: inspect.Type) -> bool:
    match shape:
        case inspect.NoneType():
            return value is None
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.IntType() | inspect.FloatType():
            number = isinstance(value, int) or (
                isinstance(value, float) and isinstance(shape, inspect.FloatType)
            )
            return number and not isinstance(value, bool) and _in_bounds(value, shape)
        case inspect.StrType(min_length=least):
            return isinstance(value, str) and len(value) >= (least or 0)
        case inspect.LiteralType(values=values):
            return isinstance(value, str) and value in values
    return False


def _in_bounds(value: Any, shape: inspect.IntType | inspect.FloatType) -> bool:
    return (shape.ge is None or value >= shape.ge) and (shape.le is None or value <= shape.le)


# --- words ----------------------------------------------------------------------------------------


def _wrong(node: Node, choices: list[inspect.Type], shape: inspect.Type) -> str:
    has_float = any(isinstance(choice, inspect.FloatType) for choice in choices)
    told = [c for c in choices if not (has_float and isinstance(c, inspect.IntType))]
    expected = " or ".join(word for choice in told if (word := _word(choice)))
    return f"must be {expected}, not {describe(node)}{_remedy(node, choices, shape)}"


def _word(shape: inspect.Type) -> str:
    word = _WORDS.get(type(shape), "")
    if isinstance(shape, inspect.IntType | inspect.FloatType):
        return word + _bounds(shape)
    if isinstance(shape, inspect.LiteralType):
        return word + ", ".join(str(value) for value in shape.values)
    if isinstance(shape, inspect.StrType) and shape.min_length:
        return word + " that is not empty"
    return word


_WORDS: dict[type[inspect.Type], str] = {
    inspect.BoolType: "true or false",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.StrType: "text",
    inspect.LiteralType: "one of ",
    inspect.ListType: "a list",
    inspect.DictType: "a mapping",
    inspect.StructType: "a mapping",
}


def _bounds(shape: inspect.IntType | inspect.FloatType) -> str:
    low = "" if shape.ge is None else f" from {shape.ge:.10g}"
    return low + ("" if shape.le is None else f" to {shape.le:.10g}")


def _remedy(node: Node, choices: list[inspect.Type], shape: inspect.Type) -> str:
    such_as = _such_as(shape)
    kinds = {type(choice) for choice in choices}
    is_scalar = isinstance(node.value, bool | int | float)
    if inspect.StrType in kinds and is_scalar and not such_as:
        return f'; write "{node.text}" in quotes'
    numbers = inspect.IntType in kinds or inspect.FloatType in kinds
    if numbers and isinstance(node.value, str) and node.text.replace(".", "", 1).isdecimal():
        return f"; write {node.text} without quotes"
    return such_as


def _such_as(shape: inspect.Type) -> str:
    """`; such as EXAMPLE`, from the schema, or nothing."""
    while isinstance(shape, inspect.Metadata):
        examples = (shape.extra_json_schema or {}).get("examples")
        if examples:
            return f"; right would be {examples[0]}"
        shape = shape.type
    return ""
