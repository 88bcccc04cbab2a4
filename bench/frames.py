"""HTTP/2 frames as bytes, for a load generator and a backend that must cost next to nothing.

RFC 9113 §4.1. None of the proxy's own code is used: what measures must not share its errors.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE = range(9)
CONTINUATION = 9

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

HEADER_TABLE_SIZE, _, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = range(1, 6)

FIRST_WINDOW = 65535  # octets, of a stream and of the connection, until told otherwise (§6.9.2)
LARGEST_WINDOW = (1 << 31) - 1

_HEAD = struct.Struct("!IBI")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return _HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def settings(**values: int) -> bytes:
    """A SETTINGS frame; names as the constants above, in lower case."""
    numbers = {
        "header_table_size": HEADER_TABLE_SIZE,
        "max_concurrent_streams": MAX_CONCURRENT_STREAMS,
        "initial_window_size": INITIAL_WINDOW_SIZE,
    }
    pairs = [struct.pack("!HI", numbers[name], value) for name, value in values.items()]
    return frame(SETTINGS, 0, 0, b"".join(pairs))


def window_update(stream: int, credit: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, credit.to_bytes(4))


def opening(window: int, **more: int) -> bytes:
    """SETTINGS with that initial window, and as much for the connection."""
    return settings(initial_window_size=window, **more) + window_update(0, window - FIRST_WINDOW)


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    yield from struct.iter_unpack("!HI", payload)


class FrameReader:
    """Cuts what arrives into frames; keeps the rest for later."""

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, received: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """Each whole frame: type, flags, stream, payload."""
        data = self._kept + received if self._kept else received
        at, end = 0, len(data)
        unpack = _HEAD.unpack_from
        while end - at >= 9:
            first, flags, stream = unpack(data, at)
            after = at + 9 + (first >> 8)
            if after > end:
                break
            yield first & 0xFF, flags, stream, data[at + 9 : after]
            at = after
        self._kept = data[at:]
