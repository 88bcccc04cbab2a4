"""HPACK decoding made for a proxy (RFC 7541).

A field that was seen before is an index, and an index appends the *same tuple* again: nothing is
built, and whoever looks at fields may remember them by identity. The dynamic table is a list with the
newest entry last, so that index 62 is `table[-1]`. Huffman strings that repeat without being indexed
come from a bounded memo; those that never repeat cost one step a byte.

RFC 7541 §4.2 has a decoder insist on a size update after *it* lowered its limit. We announce the
default and never lower it, so there is nothing to insist on.
"""

from __future__ import annotations

from collections.abc import Callable

from hpack.table import HeaderTable

from stickyproxy.codec import huffman
from stickyproxy.model import Headers

Field = tuple[bytes, bytes]

STATIC: tuple[Field, ...] = (
    (b"", b""),
    *((name, value) for name, value in HeaderTable.STATIC_TABLE),
)
"""RFC 7541 Appendix A, from 1; index 0 is an error of its own."""

STATIC_SIZE = 61
ENTRY_OVERHEAD = 32  # RFC 7541 §4.1
TABLE_SIZE = 4096  # RFC 9113 §6.5.2's default, which we leave as it is
MAX_INTEGER_BYTES = 5  # 2^35 is more than any length here; CVE-2026-59980 is the endless one

_LARGEST_STATIC = max(len(name) + len(value) + ENTRY_OVERHEAD for name, value in STATIC)
_MEMO_ENTRIES = 1024
_MEMO_BYTES = 64
_LAST_STATIC = 0x80 | STATIC_SIZE  # the one-byte index of entry 61


class HpackError(Exception):
    """The compression state is lost: COMPRESSION_ERROR for the connection (RFC 9113 §4.3)."""


class TooManyFieldsError(Exception):
    """More fields than we are ready to decode."""


class _Memo:
    """Huffman strings met lately, in two generations: what is asked for again outlives what is not.

    Only of fields that the peer does not index (nghttp2 indexes no `:path`): the others come as an
    index when they come again. Whatever peers send, it holds twice 1,024 strings of at most 64 bytes,
    102 decoded: under 1 MB a process.
    """

    __slots__ = ("old", "young")

    def __init__(self) -> None:
        self.young: dict[bytes, bytes] = {}
        self.old: dict[bytes, bytes] = {}

    def decode(self, data: bytes) -> bytes:
        text = self.young.get(data)
        if text is not None:
            return text
        text = self.old.get(data)
        if text is None:
            text = huffman.decode(data)
        if len(data) <= _MEMO_BYTES:
            if len(self.young) >= _MEMO_ENTRIES:
                self.old, self.young = self.young, {}
            self.young[data] = text
        return text


_memo = _Memo()


class Decoder:
    """One direction of one connection. Decoding stops at `hard_fields`."""

    __slots__ = ("_capacity", "_size", "_table", "changes", "hard_fields", "largest")

    def __init__(self, *, hard_fields: int) -> None:
        self.hard_fields = hard_fields
        self.largest = _LARGEST_STATIC
        """The largest entry that there ever was: what an index can cost at the most."""
        self.changes = 0
        """How often the table changed: while it does not, equal blocks are equal lists."""
        self._capacity = TABLE_SIZE
        self._size = 0
        self._table: list[Field] = []

    def decode(self, data: bytes) -> Headers:
        """All fields of a block.

        Raises:
            HpackError: the block is broken.
            TooManyFieldsError: it is too much.

        """
        out: Headers = []
        try:
            if len(data) <= self.hard_fields:  # one byte makes one field at the most
                self._indexed_run(data, out)
            if len(out) != len(data):
                self._decode_from(data, len(out), out)
        except IndexError:
            raise HpackError("an index out of the table, or a block cut short") from None
        except huffman.HuffmanError as error:
            raise HpackError(str(error)) from None
        return out

    def _indexed_run(self, data: bytes, out: Headers) -> None:
        """One-byte indexes up to the first byte that is none: mostly the whole block."""
        table = self._table
        for byte in data:
            if byte > _LAST_STATIC:
                if byte == 0xFF:
                    return
                out.append(table[_LAST_STATIC - byte])
            elif byte > 0x80:
                out.append(STATIC[byte & 0x7F])
            else:
                return

    def _decode_from(self, data: bytes, at: int, out: Headers) -> None:
        end, table = len(data), self._table
        while at < end:
            byte = data[at]
            if _LAST_STATIC < byte < 0xFF:
                field = table[_LAST_STATIC - byte]
                at += 1
            elif byte >= 0x80:
                field, at = self._indexed(data, at)
            elif byte >= 0x40:
                field, at = self._indexable(data, at, byte & 0x3F)
                size = len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
                if size > self.largest:  # noqa: PLR1730 - max() costs four times as much
                    self.largest = size
                self.changes += 1
                table.append(field)
                self._size += size
                if self._size > self._capacity:
                    self._evict()
            elif byte < 0x20:
                field, at = self._literal(data, at, 0x0F, _memo.decode)
            else:
                at = self._resize(data, at, began=bool(out))
                continue
            out.append(field)
            if len(out) > self.hard_fields:
                raise TooManyFieldsError

    def _indexed(self, data: bytes, at: int) -> tuple[Field, int]:
        index, at = _integer(data, at, 0x7F)
        if index > STATIC_SIZE:
            return self._table[STATIC_SIZE - index], at
        if not index:
            raise HpackError("index 0")
        return STATIC[index], at

    def _indexable(self, data: bytes, at: int, index: int) -> tuple[Field, int]:
        """A literal that goes into the table: mostly its name is an index and its value is short."""
        start = at + 2
        if index == 0x3F and data[at + 1] < 0x80:  # one more byte of index
            index += data[at + 1]
            start += 1
        first = data[start - 1]
        size = first & 0x7F
        at_end = start + size
        if not index or index == 0x3F or size == 0x7F or at_end > len(data):
            return self._literal(data, at, 0x3F, huffman.decode)
        value = data[start:at_end]
        if first >= 0x80:
            value = huffman.decode(value)
        if index <= STATIC_SIZE:
            return (STATIC[index][0], value), at_end
        return (self._table[STATIC_SIZE - index][0], value), at_end

    def _literal(
        self, data: bytes, at: int, prefix: int, unpack: Callable[[bytes], bytes]
    ) -> tuple[Field, int]:
        index = data[at] & prefix
        at += 1
        if index == prefix:
            index, at = _integer(data, at - 1, prefix)
        if not index:
            name, at = _string(data, at, unpack)
        elif index <= STATIC_SIZE:
            name = STATIC[index][0]
        else:
            name = self._table[STATIC_SIZE - index][0]
        first = data[at]
        start = at + 1
        at = start + (first & 0x7F)
        if first & 0x7F == 0x7F or at > len(data):
            value, at = _string(data, start - 1, unpack)
            return (name, value), at
        value = data[start:at]
        return (name, unpack(value) if first >= 0x80 else value), at

    def _evict(self) -> None:
        """Drop the oldest until it fits; a field larger than all empties the table (§4.4)."""
        table, gone, size = self._table, 0, self._size
        while size > self._capacity:
            name, value = table[gone]
            size -= len(name) + len(value) + ENTRY_OVERHEAD
            gone += 1
        self._size = size
        del table[:gone]

    def _resize(self, data: bytes, at: int, *, began: bool) -> int:
        if began:
            raise HpackError("a table size update after a field")  # §4.2
        size, at = _integer(data, at, 0x1F)
        if size > TABLE_SIZE:
            raise HpackError("a table size above what SETTINGS allow")  # §6.3
        self.changes += 1
        self._capacity = size
        self._evict()
        return at


def _integer(data: bytes, at: int, prefix: int) -> tuple[int, int]:
    """RFC 7541 §5.1."""
    value = data[at] & prefix
    at += 1
    if value < prefix:
        return value, at
    for shift in range(0, 7 * MAX_INTEGER_BYTES, 7):
        byte = data[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise HpackError("an integer longer than any we take")


def _string(data: bytes, at: int, unpack: Callable[[bytes], bytes]) -> tuple[bytes, int]:
    """RFC 7541 §5.2."""
    first = data[at]
    length = first & 0x7F
    at += 1
    if length == 0x7F:
        length, at = _integer(data, at - 1, 0x7F)
    end = at + length
    if end > len(data):
        raise IndexError
    text = data[at:end]
    return (unpack(text) if first >= 0x80 else text), end


def list_size(headers: Headers) -> int:
    """RFC 9113 §6.5.2's measure of a field section."""
    return sum([len(name) + len(value) for name, value in headers]) + ENTRY_OVERHEAD * len(headers)
