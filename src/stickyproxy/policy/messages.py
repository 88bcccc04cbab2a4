"""gRPC message boundaries in a body, counted without holding a message.

A message is a flag byte, four bytes of length and that many bytes (grpc/grpc doc/PROTOCOL-HTTP2.md,
"Length-Prefixed-Message"). DATA frames have nothing to do with it: one may hold many messages or a
piece of one. Two things need to be known all the same: how many messages passed (access log), and
whether a body that broke off broke off *between* two messages, where closing trailers can still
be understood.
"""

from __future__ import annotations

import struct
from typing import Protocol

_PREFIX_SIZE = 5
_LENGTH = struct.Struct(">xI").unpack_from


class Counter(Protocol):
    """What looks at a body in passing: this one, and `policy.websocket`'s."""

    count: int

    @property
    def at_boundary(self) -> bool: ...

    def feed(self, data: bytes) -> None: ...


class MessageCounter:
    """Feed it the DATA of one direction of one stream, in order.

    `count` is the number of complete messages. At most four bytes are kept between two calls.
    """

    __slots__ = ("_missing", "_prefix", "count")

    def __init__(self) -> None:
        self.count = 0
        self._missing = 0
        self._prefix = b""

    @property
    def at_boundary(self) -> bool:
        """True if no message is incomplete: at the start, and after each complete message."""
        return not (self._missing or self._prefix)

    def feed(self, data: bytes) -> None:
        """Take the next bytes, of any length."""
        at = self._missing
        begins = not at and not self._prefix and len(data) >= _PREFIX_SIZE
        if begins and _PREFIX_SIZE + _LENGTH(data)[0] == len(data):  # the common one, whole
            self.count += 1
            return
        if at > len(data):
            self._missing = at - len(data)
            return
        if at:
            self._missing = 0
            self.count += 1
        elif self._prefix:
            data = self._prefix + data
        self._walk(data, at)

    def _walk(self, data: bytes, at: int) -> None:
        end = len(data)
        while end - at >= _PREFIX_SIZE:
            at += _PREFIX_SIZE + _LENGTH(data, at)[0]
            if at > end:
                self._missing = at - end
                self._prefix = b""
                return
            self.count += 1
        self._prefix = data[at:]
