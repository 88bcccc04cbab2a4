"""HTTP/2 made for proxying: the sending half; `codec.fast_receive` takes frames in.

What makes it cheap: no frame objects (one pass with a cursor over what was received), HPACK that hands
the same tuples out again, output as pieces that are joined once per wake-up of the writer, and nothing
kept of a stream beyond its windows. What it must not save on is in RFC 9113, whose sections stand
beside the branches, and in the contract suite, which it passes like the reference.
"""

from __future__ import annotations

from collections.abc import Sequence

from stickyproxy.codec import frames
from stickyproxy.codec.api import (
    MAX_STREAM_ID,
    Codec,
    CodecLimits,
    Counter,
    Outlet,
    Piece,
    send_in_turn,
)
from stickyproxy.codec.fast_receive import Receiver
from stickyproxy.codec.fast_state import FatalError, StreamState
from stickyproxy.codec.frames import END_HEADERS, END_STREAM, HEADERS
from stickyproxy.codec.limits import WINDOW_UPDATES_PER_DATA, CreditMark
from stickyproxy.codec.passage import Passage
from stickyproxy.events import CodecFailed, Event
from stickyproxy.model import Headers

_HEAD = (b":method", b"HEAD")
_WHOLE_AND_LAST = END_HEADERS | END_STREAM


class FastCodec(Receiver):
    """One HTTP/2 connection. `client` is true towards a backend."""

    __slots__ = ()
    protocol = "HTTP/2"
    bite = 65_536
    """7,000 frames at about 1 us."""
    buffered = False
    paused = False

    def __init__(
        self, client: bool, limits: CodecLimits | None = None, *, mark: CreditMark | None = None
    ) -> None:
        super().__init__(client, limits or CodecLimits(), mark or CreditMark())
        self._begin()

    def _begin(self) -> None:
        limits = self.limits
        values = {
            frames.INITIAL_WINDOW_SIZE: limits.stream_credit,
            frames.MAX_HEADER_LIST_SIZE: limits.max_header_list,
        }
        if self.client:
            values[frames.ENABLE_PUSH] = 0  # §8.4: a relay has no use for pushes
            self.out.append(frames.PREFACE)
        else:
            values[frames.MAX_CONCURRENT_STREAMS] = limits.max_concurrent_streams
            values[frames.ENABLE_CONNECT_PROTOCOL] = 1  # it cannot be withdrawn later
        self.out.append(frames.settings(values))
        if limits.link_credit > frames.DEFAULT_WINDOW:
            extra = limits.link_credit - frames.DEFAULT_WINDOW
            self.out.append(frames.window_update(0, extra))

    # --- in ---

    def feed(self, data: bytes) -> Sequence[Event]:
        if self.failed or not data:
            return []
        try:
            self.receive(data)
        except FatalError as error:
            self.failed = self.closing = True
            self.window_left = 0
            self.out.append(frames.goaway(self.last_taken, error.code))
            self.told.append(CodecFailed(error.code, str(error)))
        events, self.told = self.told, []
        return events

    def straight(
        self, stream_id: int, into: Codec, into_id: int, *, link: Outlet, counter: Counter | None
    ) -> Passage | None:
        if not isinstance(into, FastCodec):
            return None
        stream, out = self.streams.get(stream_id), into.streams.get(into_id)
        if stream is None or out is None or stream.remote_done or out.local_done:
            return None
        return Passage(self, stream, into, out, opened=self.passages, link=link, counter=counter)

    def take_stirred(self) -> Sequence[Outlet]:
        stirred, self.stirred = self.stirred, []
        return stirred

    def resume(self) -> Sequence[Event]:
        return []

    # --- out ---

    def take_output(self) -> bytes:
        out = self.out
        if not out:
            return b""
        data = bytes(out[0]) if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    def take_pieces(self) -> list[Piece]:
        out, self.out = self.out, []
        return out

    @property
    def has_output(self) -> bool:
        return bool(self.out)

    def open_stream(self, headers: Headers, end_stream: bool) -> int:
        stream_id = self.next_id
        self.next_id += 2
        if self.next_id > MAX_STREAM_ID:
            self.closing = True
        stream = self.streams[stream_id] = StreamState(stream_id, self._initial_window)
        if headers[0][0] != b":method" or headers[0] == _HEAD:
            stream.is_head = _HEAD in headers
        stream.local_done = end_stream
        self._write_headers(stream_id, headers, end_stream)
        return stream_id

    def send_headers(self, stream_id: int, headers: Headers, end_stream: bool) -> None:
        stream = self.streams.get(stream_id)
        if stream is None or stream.local_done or self.failed:
            return
        self._write_headers(stream_id, headers, end_stream)
        if end_stream:
            self._local_end(stream)

    def send_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        stream = self.streams.get(stream_id)
        if stream is None or stream.local_done or self.failed:
            return
        size = len(data)
        stream.window -= size
        self.window_left -= size
        if size <= self.max_frame:
            self.out.append(frames.head(size << 8, END_STREAM if end_stream else 0, stream_id))
            self.out.append(data)
            self.updates_paid += WINDOW_UPDATES_PER_DATA
        else:
            self._write_in_frames(stream_id, data, end_stream)
        if end_stream:
            self._local_end(stream)

    def send_whole(
        self, stream_id: int, headers: Headers, parts: Sequence[bytes], trailers: Headers | None
    ) -> None:
        """The common answer, one small message between two blocks, is one piece of output."""
        stream = self.streams.get(stream_id)
        if stream is None or stream.local_done or self.failed:
            return
        if trailers is None or len(parts) != 1:
            send_in_turn(self, stream_id, headers, parts, trailers)
            return
        encode, data, limit = self.encoder.encode, parts[0], self.max_frame
        first, last = encode(headers), encode(trailers)
        size, length, ending = len(data), len(first), len(last)
        if size > limit or length > limit or ending > limit:
            self._write_block(stream_id, first, end_stream=False)
            self.send_data(stream_id, data, end_stream=False)
            self._write_block(stream_id, last, end_stream=True)
        else:
            stream.window -= size
            self.window_left -= size
            self.updates_paid += WINDOW_UPDATES_PER_DATA
            head = frames.head
            pieces = (
                head(length << 8 | HEADERS, END_HEADERS, stream_id), first,
                head(size << 8, 0, stream_id), data,
                head(ending << 8 | HEADERS, _WHOLE_AND_LAST, stream_id), last,
            )  # fmt: skip
            self.out.append(b"".join(pieces))
        self._local_end(stream)

    def _write_in_frames(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        for start in range(0, len(data), self.max_frame):
            chunk = data[start : start + self.max_frame]
            last = end_stream and start + self.max_frame >= len(data)
            self.out.append(frames.head(len(chunk) << 8, END_STREAM if last else 0, stream_id))
            self.out.append(chunk)
            self.updates_paid += WINDOW_UPDATES_PER_DATA

    def _write_headers(self, stream_id: int, headers: Headers, end_stream: bool) -> None:
        block = self.encoder.encode(headers)
        size = len(block)
        if size <= self.max_frame:
            flags = _WHOLE_AND_LAST if end_stream else END_HEADERS
            self.out.append(frames.head(size << 8 | HEADERS, flags, stream_id) + block)
        else:
            self._write_block(stream_id, block, end_stream)

    def _write_block(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        size = len(block)
        if size <= self.max_frame:
            flags = _WHOLE_AND_LAST if end_stream else END_HEADERS
            self.out.append(frames.head(size << 8 | frames.HEADERS, flags, stream_id) + block)
            return
        flags = END_STREAM if end_stream else 0
        kind = frames.HEADERS
        for start in range(0, size, self.max_frame):  # §6.10
            last = END_HEADERS if start + self.max_frame >= size else 0
            chunk = block[start : start + self.max_frame]
            self.out.append(frames.frame(kind, flags | last, stream_id, chunk))
            kind, flags = frames.CONTINUATION, 0

    def reset(self, stream_id: int, code: int) -> None:
        stream = self.streams.get(stream_id)
        if stream is not None and not self.failed:
            self.reset_now(stream, code)

    def ping(self, payload: bytes) -> None:
        if not self.failed:
            self.out.append(frames.frame(frames.PING, 0, 0, payload))

    def goaway(self, last_id: int, code: int) -> None:
        if not self.failed:
            self.refuse_above = last_id
            self.closing = self.closing or last_id != MAX_STREAM_ID
            self.out.append(frames.goaway(last_id, code))

    # --- flow ---

    def window(self, stream_id: int) -> int:
        if not stream_id:
            return self.window_left
        stream = self.streams.get(stream_id)
        if stream is None:
            return 0
        return min(stream.window, self.window_left)

    def grant(self, stream_id: int, credit: int) -> None:
        stream = self.streams.get(stream_id)
        if stream is None or stream.remote_done or self.failed:
            return
        if stream.ledger is None:
            stream.granted = min(stream.granted + credit, stream.taken)
            return
        update = stream.ledger.grant(credit)
        if update:
            self.out.append(frames.window_update(stream_id, update))

    def capacity(self) -> int:
        if self.failed or not self.settings_seen or self.goaway_seen or self.window_left <= 0:
            return 0
        if self.next_id > MAX_STREAM_ID:
            return 0
        free = self.max_streams - len(self.streams)
        return free if free > 0 else 0  # noqa: FURB136 - max() costs four times as much

    # --- state ---

    @property
    def amid_head(self) -> bool:
        return self._block is not None

    def refuse_head(self) -> Sequence[Event]:
        return ()

    @property
    def last_peer_stream(self) -> int:
        return self.last_taken
