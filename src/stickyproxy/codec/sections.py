"""Header blocks that come again: answers above all, whose heads and trailers are mostly the same.

While a decoder's table does not change equal bytes are equal fields. So a short block that was decoded
twice, and was good both times, is one look-up from then on, and what it stands for is one object
(`model.Section`) on whichever connection it comes.
"""

from __future__ import annotations

from stickyproxy.codec.hpack_decode import Decoder
from stickyproxy.codec.validate import NOT_KEPT
from stickyproxy.model import Headers, Section

LONGEST = 64
"""Bytes of a block. Longer ones hold literals, which seldom come again."""
_BLOCKS = 32  # a connection; all of them under 10 KB
_SHARED = 512  # a process; with LONGEST and entries of at most 4 KiB under 2 MB in practice

_shared: dict[tuple[tuple[bytes, bytes], ...], Section] = {}


class Sections:
    """Of one connection, those of one kind: heads, or trailers."""

    __slots__ = ("_block", "_changes", "_decoder", "_known")

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._changes = 0
        self._block = b""
        self._known: dict[bytes, Section | None] = {}
        """None stands for a block that came once."""

    def find(self, block: bytes) -> Section | None:
        """What the block stands for, if that is known and good."""
        self._block = block
        changes = self._decoder.changes
        if changes != self._changes:
            self._changes = changes
            if self._known:
                self._known.clear()
        return self._known.get(block)

    def keep(self, headers: Headers) -> None:
        """What was looked for last was this, and is good."""
        block, known = self._block, self._known
        if self._decoder.changes != self._changes or len(block) > LONGEST:
            return
        if not NOT_KEPT.isdisjoint([name for name, _ in headers]):
            return  # a secret goes with its connection
        if block in known:
            known[block] = _one(headers)
            return
        if len(known) >= _BLOCKS:
            known.clear()
        known[block] = None


def _one(headers: Headers) -> Section:
    fields = tuple(headers)
    found = _shared.get(fields)
    if found is None:
        if len(_shared) >= _SHARED:
            _shared.clear()
        found = _shared[fields] = Section(headers)
    return found
