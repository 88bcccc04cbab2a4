"""Header blocks as real gRPC clients write them, encoded before the clock starts.

Two dialects of HPACK (RFC 7541), one for every other connection, since a proxy meets both:

- `GO`: every field enters the dynamic table, values that never repeat included, and strings are
  Huffman-coded whenever that is shorter (golang.org/x/net/http2/hpack).
- `CORE`: only what repeats enters the table; what does not is a literal without Huffman
  (the C core that Python, C++, Ruby and PHP use).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator

from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable

Field = tuple[bytes, bytes]

TABLE_SIZE = 4096  # octets, until a peer says otherwise (RFC 9113 §6.5.2)
ENTRY = 32  # octets an entry costs besides its name and value (RFC 7541 §4.1)

GO = "go"
CORE = "core"

_STATIC = {field: at for at, field in reversed(list(enumerate(HeaderTable.STATIC_TABLE, 1)))}
_STATIC_NAMES = {name: at for (name, _), at in _STATIC.items()}
_HUFFMAN = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def integer(value: int, prefix: int, flags: int) -> bytes:
    """RFC 7541 §5.1; `flags` are the bits above the prefix."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes([flags | value])
    octets = bytearray([flags | most])
    value -= most
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


class Writer:
    """The encoder of one connection. `passing` names the fields whose values never repeat."""

    def __init__(self, dialect: str, passing: frozenset[bytes]) -> None:
        self._huffman = dialect == GO
        self._literal = frozenset() if dialect == GO else passing
        self._entries: deque[Field] = deque()  # the newest first
        self._size = 0
        self._strings: dict[bytes, bytes] = {}

    def block(self, fields: list[Field]) -> bytes:
        return b"".join(self._field(field) for field in fields)

    def _field(self, field: Field) -> bytes:
        name, value = field
        if at := self._index(field):
            return integer(at, 7, 0x80)
        literal = name in self._literal
        flags, prefix = (0x00, 4) if literal else (0x40, 6)
        at = self._name(name)
        out = integer(at, prefix, flags) + (b"" if at else self._string(name))
        if not literal:
            self._insert(field)
        return out + self._string(value)

    def _index(self, field: Field) -> int:
        if at := _STATIC.get(field):
            return at
        return self._entries.index(field) + 62 if field in self._entries else 0

    def _name(self, name: bytes) -> int:
        if at := _STATIC_NAMES.get(name):
            return at
        return next((at for at, (known, _) in enumerate(self._entries, 62) if known == name), 0)

    def _insert(self, field: Field) -> None:
        self._entries.appendleft(field)
        self._size += weight(field)
        while self._size > TABLE_SIZE:
            self._size -= weight(self._entries.pop())

    def _string(self, value: bytes) -> bytes:
        if self._huffman and len(coded := _HUFFMAN.encode(value)) < len(value):
            return integer(len(coded), 7, 0x80) + coded
        return integer(len(value), 7, 0) + value


def weight(field: Field) -> int:
    return len(field[0]) + len(field[1]) + ENTRY


def unary_fields(path: bytes, authority: bytes) -> list[Field]:
    """What a gRPC client says with each call of a method."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", authority),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"user-agent", b"grpc-go/1.72.0"),
        (b"grpc-accept-encoding", b"gzip"),
    ]


def calls(constant: list[Field], users: int, seed: str) -> Iterator[list[Field]]:
    """Requests without end: one of `users`, and ids as W3C Trace Context and UUID 4 write them."""
    ids = random.Random(seed)
    names = [b"user-%04d" % number for number in range(users)]
    while True:
        trace, span, request = ids.getrandbits(128), ids.getrandbits(64), ids.getrandbits(128)
        text = b"%032x" % request
        uuid = b"-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
        yield [
            *constant,
            (b"x-user-id", names[ids.randrange(users)]),
            (b"traceparent", b"00-%032x-%016x-01" % (trace, span)),
            (b"x-request-id", uuid),
        ]


PASSING = frozenset((b"traceparent", b"x-request-id"))
"""What never repeats in `calls`."""


def heavy_calls(constant: list[Field], users: int, seed: str) -> Iterator[list[Field]]:
    """30 fields and 4 KiB a head (cookies, tokens, baggage), half of the added ones never repeating."""
    ids = random.Random(f"{seed} heavy")
    plain = calls(constant, users, seed)
    added = 30 - len(next(plain))
    size = (4096 - sum(map(weight, next(plain)))) // added - ENTRY
    kept = [(b"x-kept-%02d" % at, _text(ids, size)) for at in range(added - added // 2)]
    while True:
        fresh = [(b"x-fresh-%02d" % at, _text(ids, size)) for at in range(added // 2)]
        yield [*next(plain), *kept, *fresh]


HEAVY_PASSING = PASSING | {b"x-fresh-%02d" % at for at in range(30)}


def _text(ids: random.Random, size: int) -> bytes:
    """Like a token: hexadecimal digits without meaning, with the name's octets counted in `size`."""
    return (b"%x" % ids.getrandbits(4 * size))[: size - 10].ljust(size - 10, b"0")
