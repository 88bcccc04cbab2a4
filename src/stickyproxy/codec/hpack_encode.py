"""HPACK encoding made for a proxy (RFC 7541): cheap to make, small where fields repeat.

A field met again is one index. Strings are sent as they are: Huffman is optional (§5.2), costs us and
the peer more than the bytes it saves. A name whose values never come again is not indexed any more,
for each would push a useful entry out; values that are secrets are never indexed (§7.1.3).
"""

from __future__ import annotations

from stickyproxy.codec.hpack_decode import ENTRY_OVERHEAD, STATIC, STATIC_SIZE, Field
from stickyproxy.model import Headers, Section

_INDEXED = {field: bytes((0x80 | i,)) for i, field in enumerate(STATIC) if i and field[1]}
_NAMES = {name: i for i, (name, _) in reversed(list(enumerate(STATIC))) if i}
"""The first of several entries of one name: most are below the prefix's limit."""

_NEWEST = STATIC_SIZE + 1
"""The index of the newest entry of the dynamic table (§2.3.3)."""

_SECRET = frozenset((b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"))
_EVER_NEW = frozenset(
    (b"traceparent", b"x-request-id", b"content-length", b"grpc-timeout", b"date")
)
"""Names whose values hardly ever come twice."""
_CHURN = 8
"""Values of one name in a row that were indexed and never used again: enough to stop."""
_CHURN_NAMES = 128
"""Names watched for churn: as many as entries fit into the table. Above it all are forgotten, and
learnt again; else a client that makes up names would make us hold them for each connection."""
_SECTIONS = 32
"""Whole sections whose blocks are kept: answers, of which a service has a few."""
MAX_TABLE = 4096
"""The most we use of what a peer offers: it is memory of ours, for each connection."""


class Encoder:
    """One direction of one connection."""

    __slots__ = (
        "_capacity",
        "_churn",
        "_given_up",
        "_inserted",
        "_numbers",
        "_ready",
        "_sections",
        "_size",
        "_smallest",
    )

    def __init__(self) -> None:
        self._capacity = MAX_TABLE
        self._size = 0
        self._inserted = 0
        self._numbers: dict[Field, int] = {}
        """The table, oldest first: which insertion each entry was."""
        self._ready: dict[Field, bytes] = {}
        """Fields that are an index, as they are written while nothing is inserted."""
        self._sections: dict[int, tuple[Section, bytes]] = {}
        """Whole sections as they are written while nothing is inserted, by `id`."""
        self._given_up: dict[bytes, bytes] = {}
        """How the names are written whose values are not inserted any more."""
        self._churn: dict[bytes, int] = {}
        self._smallest: int | None = None
        """The smallest capacity since the last block, where it changed."""

    def resize(self, offered: int) -> None:
        """The peer's SETTINGS_HEADER_TABLE_SIZE; told in the next block (§4.2)."""
        size = min(offered, MAX_TABLE)
        if size != self._capacity:
            self._smallest = size if self._smallest is None else min(size, self._smallest)
            self._capacity = size
            self._moved()
            self._evict()

    def encode(self, headers: Headers) -> bytes:
        if self._smallest is not None:
            return self._size_updates() + self.encode(headers)
        if type(headers) is Section:
            return self._encode_section(headers)
        ready, given_up, pieces = self._ready, self._given_up, list[bytes]()
        for field in headers:
            piece = ready.get(field)
            if piece is None:
                name, value = field
                plain, size = _PLAIN.get(name), len(value)
                if plain is None and name in given_up and field not in self._numbers:
                    plain = given_up[name]
                    self._churn[name] = _CHURN
                if plain and size < 0x7F:  # new each time: written as it is
                    pieces += (plain, _SHORT[size], value)
                    continue
                piece = self._piece(field)
            pieces.append(piece)
        return b"".join(pieces)

    def _encode_section(self, section: Section) -> bytes:
        found = self._sections.get(id(section))
        if found is not None:
            return found[1]
        before, ready = self._inserted, self._ready
        block = b"".join([ready.get(field) or self._piece(field) for field in section])
        if self._inserted == before:
            if len(self._sections) >= _SECTIONS:
                self._sections.clear()
            self._sections[id(section)] = section, block
        return block

    def _piece(self, field: Field) -> bytes:
        """How a field is written that is not ready."""
        name, value = field
        plain = _PLAIN.get(name)
        if plain is not None and len(value) < 0x7F:
            return plain + _SHORT[len(value)] + value
        short = _INDEXED.get(field)
        if short is None:
            number = self._numbers.get(field)
            if number is None:
                return self._literal(name, value)
            short = _integer(_NEWEST + self._inserted - number, 0x80, 0x7F)
            if name in self._given_up:
                self._came_again(name)
                return short
            self._churn.pop(name, None)
        self._ready[field] = short
        return short

    def _literal(self, name: bytes, value: bytes) -> bytes:
        size = len(name) + len(value) + ENTRY_OVERHEAD
        start = self._given_up.get(name)
        if start is not None:
            self._churn[name] = _CHURN
        elif name in _SECRET:
            start = _named(name, 0x10, 0x0F)  # §6.2.3: never indexed, by nobody on the way
        elif name in _EVER_NEW or size > self._capacity:
            start = _named(name, 0x00, 0x0F)
        else:
            start = _named(name, 0x40, 0x3F)
            self._insert((name, value), size)
        return start + _integer(len(value), 0, 0x7F) + value

    def _came_again(self, name: bytes) -> None:
        """As many values in a row as made us give up a name make us take it up again."""
        left = self._churn[name] = self._churn.get(name, 0) - 1
        if left <= 0:
            del self._churn[name], self._given_up[name]

    def _insert(self, field: Field, size: int) -> None:
        self._size += size
        self._inserted += 1
        self._numbers[field] = self._inserted
        self._moved()
        if self._size > self._capacity:
            self._evict()
        churn, name = self._churn, field[0]
        if len(churn) >= _CHURN_NAMES:
            churn.clear()
            self._given_up.clear()
        times = churn[name] = churn.get(name, 0) + 1
        if times == _CHURN:
            self._given_up[name] = _named(name, 0x00, 0x0F)

    def _moved(self) -> None:
        """Every entry has another index now."""
        self._ready.clear()
        self._sections.clear()

    def _evict(self) -> None:
        """Drop the oldest until it fits (§4.4)."""
        numbers = self._numbers
        while self._size > self._capacity:
            oldest = next(iter(numbers))
            del numbers[oldest]
            self._size -= len(oldest[0]) + len(oldest[1]) + ENTRY_OVERHEAD

    def _size_updates(self) -> bytes:
        """§4.2: the smallest size that was in force, then the last."""
        smallest, self._smallest = self._smallest, None
        last = _integer(self._capacity, 0x20, 0x1F)
        if smallest is None or smallest >= self._capacity:
            return last
        return _integer(smallest, 0x20, 0x1F) + last


_SHORT = [bytes((value,)) for value in range(256)]


def _integer(value: int, first: int, prefix: int) -> bytes:
    """RFC 7541 §5.1."""
    if value < prefix:
        return _SHORT[first | value]
    out = bytearray((first | prefix,))
    value -= prefix
    while value >= 0x80:
        out.append(0x80 | value & 0x7F)
        value >>= 7
    out.append(value)
    return bytes(out)


def _named(name: bytes, first: int, prefix: int) -> bytes:
    """How a literal begins (§6.2): its name, as an index where there is one."""
    index = _NAMES.get(name, 0)
    start = _integer(index, first, prefix)
    return start if index else start + _integer(len(name), 0, 0x7F) + name


_PLAIN = {name: _named(name, 0x00, 0x0F) for name in _EVER_NEW}
