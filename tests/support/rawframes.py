"""HTTP/2 frames by hand: what a test sends is exactly what it says, well-formed or not.

Nothing here knows a state machine or a rule; only hpack is borrowed. So a peer made of this may
break every law there is, and no codec under test can share its mistakes with it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hpack import Decoder, Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 §3.4

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = range(1, 5)
MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 5, 6
ENABLE_CONNECT_PROTOCOL = 8

Fields = list[tuple[bytes, bytes]]


class Frame(NamedTuple):
    """One frame as it is on the wire; `stream` 0 is the connection."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code of RST_STREAM or GOAWAY."""
        at = 4 if self.kind == GOAWAY else 0
        return int.from_bytes(self.payload[at : at + 4], "big")

    @property
    def number(self) -> int:
        """The increment of WINDOW_UPDATE, or the last id of GOAWAY."""
        return int.from_bytes(self.payload[:4], "big")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


def data(stream: int, body: bytes, *, end: bool = False, padding: int | None = None) -> bytes:
    """DATA; `padding` bytes of padding, None for none (0 still costs the length byte)."""
    flags = END_STREAM if end else 0
    if padding is None:
        return frame(DATA, flags, stream, body)
    return frame(DATA, flags | PADDED, stream, bytes((padding,)) + body + bytes(padding))


def rst(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def goaway(last_id: int, code: int = 0, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">II", last_id, code) + debug)


def ping(payload: bytes, *, ack: bool = False) -> bytes:
    return frame(PING, ACK if ack else 0, 0, payload)


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def settings(values: Mapping[int, int] | None = None) -> bytes:
    payload = b"".join(struct.pack(">HI", *item) for item in (values or {}).items())
    return frame(SETTINGS, 0, 0, payload)


def settings_ack() -> bytes:
    return frame(SETTINGS, ACK, 0)


def read_settings(payload: bytes) -> dict[int, int]:
    return dict(struct.iter_unpack(">HI", payload))


def parse(raw: bytes) -> list[Frame]:
    """Cut whole frames; trailing bytes are an error of the sender."""
    frames = []
    while raw:
        size = int.from_bytes(raw[:3], "big")
        if len(raw) < 9 + size:
            message = f"half a frame: {raw[:32]!r}"
            raise AssertionError(message)
        stream = int.from_bytes(raw[5:9], "big") & 0x7FFF_FFFF
        frames.append(Frame(raw[3], raw[4], stream, raw[9 : 9 + size]))
        raw = raw[9 + size :]
    return frames


class RawCoder:
    """The HPACK state of one raw peer."""

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._decoder = Decoder()

    def resize(self, size: int) -> None:
        """The peer's HEADER_TABLE_SIZE: what may be remembered for it."""
        self._encoder.header_table_size = min(size, self._encoder.header_table_size)

    def block(self, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
        return self._encoder.encode(list(fields), huffman=False)

    def headers(
        self, stream: int, fields: Fields, *, end: bool = False, piece: int = 16_384
    ) -> bytes:
        """HEADERS, and as many CONTINUATION frames as `piece` bytes a frame ask for."""
        block = self.block(fields)
        parts = [block[at : at + piece] for at in range(0, len(block), piece)] or [b""]
        flags = END_STREAM if end else 0
        frames = []
        for index, part in enumerate(parts):
            last = END_HEADERS if index == len(parts) - 1 else 0
            kind = CONTINUATION if index else HEADERS
            frames.append(frame(kind, flags | last, stream, part))
            flags = 0
        return b"".join(frames)

    def fields(self, block: bytes) -> Fields:
        return [
            (bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)
        ]
