"""Header blocks for the wild: heads in every form, and what HPACK may be fed instead."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from contract.harness import REQUEST, RESPONSE
from contract.harness import TRAILERS as _SUMS
from stickyproxy.model import Headers

_huffman = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode


def integer(value: int, first: int, prefix: int) -> bytes:
    """RFC 7541 §5.1."""
    if value < prefix:
        return bytes((first | value,))
    out, value = bytearray((first | prefix,)), value - prefix
    while value > 0x7F:
        out.append(0x80 | value & 0x7F)
        value >>= 7
    return bytes((*out, value))


def string(text: bytes, *, huffman: bool) -> bytes:
    coded = _huffman(text) if huffman else text
    return integer(len(coded), 0x80 if huffman else 0, 0x7F) + coded


def literal(field: tuple[bytes, bytes], first: int, *, huffman: bool) -> bytes:
    """A field with its name spelt out; `first` is 0x40 indexed, 0x00 not, 0x10 never."""
    name, value = field
    return bytes((first,)) + string(name, huffman=huffman) + string(value, huffman=huffman)


def block(headers: Headers, first: int = 0x40, *, huffman: bool = False) -> bytes:
    return b"".join(literal(field, first, huffman=huffman) for field in headers)


_FORMS = (0x40, 0x40, 0x00, 0x10)
_ODD_FIELDS = (
    (b"x-user-id", b"7"),
    (b"cookie", b"a=1"),
    (b"content-length", b"5"),
    (b"content-length", b"0"),
    (b"content-length", b"+5"),
    (b"connection", b"close"),
    (b"te", b"chunked"),
    (b"X-Upper", b"1"),
    (b"", b"1"),
    (b"x-a", b" 1"),
    (b"x-a", b"1\n2"),
    (b":path", b"/twice"),
    (b":status", b"204"),
    (b":status", b"103"),
    (b"host", b"other.example"),
)
_ODD: tuple[Callable[[Random], bytes], ...] = (
    lambda r: literal(r.choice(_ODD_FIELDS), r.choice(_FORMS), huffman=r.random() < 0.5),
    lambda r: literal(r.choice(_ODD_FIELDS), r.choice(_FORMS), huffman=r.random() < 0.5),
    lambda r: integer(r.randrange(131), 0x80, 0x7F),
    lambda r: b"\x82" * r.randrange(2, 50),
    lambda r: integer(r.randrange(1, 70), 0x40, 0x3F) + b"\x01v",
    lambda r: integer(r.randrange(1, 70), 0x00, 0x0F) + b"\x01v",
    lambda r: integer(r.randrange(5000), 0x20, 0x1F),
    lambda r: b"\x40\x01x\x83" + r.randbytes(3),
    lambda r: r.randbytes(r.randrange(20)),
)
"""What a block may hold besides; some of it breaks the block, some only the message."""

_MANY: Headers = [(b"x-%d" % number, b"") for number in range(6)]
_LONG = (b"x-long", b"v" * 500)
"""With these a head is more than `twins.LIMITS` serve, but not more than is decoded."""

REQUESTS: list[Headers] = [
    REQUEST,
    [*REQUEST, (b"content-length", b"5")],
    [(b":method", b"HEAD"), *REQUEST[1:4]],
    [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *REQUEST[1:4]],
    [*REQUEST, *_MANY],
    [*REQUEST, _LONG],
]
RESPONSES: list[Headers] = [
    RESPONSE,
    [(b":status", b"100")],
    [*RESPONSE, (b"content-length", b"5")],
    [(b":status", b"204"), (b"content-length", b"5")],
    [*RESPONSE, *_MANY],
    [*RESPONSE, _LONG],
]
TRAILERS: list[Headers] = [_SUMS, _SUMS, [], _MANY * 3, [_LONG], [(b":path", b"/")]]


def some_block(chance: Random, heads: list[Headers]) -> bytes:
    """A head as it should be, or with a field of the dynamic table; one in twelve is odd."""
    head, first, luck = chance.choice(heads), chance.choice(_FORMS), chance.randrange(12)
    huffman = chance.random() < 0.5
    if luck > 8:
        return block(head, 0x40, huffman=huffman) + integer(62 + luck % 3, 0x80, 0x7F)
    parts = [literal(field, first, huffman=huffman) for field in head]
    if not luck:
        for _ in range(chance.randrange(1, 3)):
            parts.insert(chance.randrange(len(parts) + 1), chance.choice(_ODD)(chance))
    return b"".join(parts)
