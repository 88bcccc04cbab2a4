"""HTTP/2 frames in: one pass over what was received, each frame to its handler (RFC 9113 §5, §6).

Header blocks are `codec.fast_heads`, the state is `codec.fast_state`.
"""

from __future__ import annotations

from stickyproxy.codec import frames
from stickyproxy.codec import limits as guard
from stickyproxy.codec.api import MAX_STREAM_ID, CodecLimits
from stickyproxy.codec.fast_heads import Heads, check_priority, without_padding
from stickyproxy.codec.fast_state import FatalError, StreamState
from stickyproxy.codec.frames import END_STREAM, HEAD_SIZE, PADDED
from stickyproxy.codec.limits import CreditMark, Ledger
from stickyproxy.codec.passage import Passage
from stickyproxy.errors import H2Code
from stickyproxy.events import (
    CapacityChanged,
    DataReceived,
    GoawayReceived,
    PongReceived,
    StreamReset,
    WindowOpened,
)

_WORTH_A_VIEW = 4096
"""Bytes that cost more to copy than a view of them. All that was read lives as long as it, so only where it
is about to be written."""


class Receiver(Heads):
    """What the peer's frames do to a connection."""

    __slots__ = ("_preface", "_waiting", "passages")

    def __init__(self, client: bool, limits: CodecLimits, mark: CreditMark) -> None:
        super().__init__(client, limits, mark)
        self._waiting = b""
        self.passages: dict[int, Passage] = {}
        self._preface = b"" if client else frames.PREFACE

    # --- frames ---

    def receive(self, data: bytes) -> None:
        """Raises `FatalError`; what happened before it is in `told`."""
        self.passed = 0
        at = self._take_preface(data) if self._preface else 0
        if self._waiting:
            data, at = self._finish_frame(data)
        self._walk(data, at)

    def _finish_frame(self, data: bytes) -> tuple[bytes, int]:
        """What is to be walked, and from where: the frame that had begun is dealt with on its own where

        all else would have to be copied for it.
        """
        begun, self._waiting = self._waiting, b""
        if len(begun) < HEAD_SIZE or len(data) < frames.DEFAULT_FRAME_SIZE:
            return begun + data, 0
        size = HEAD_SIZE + int.from_bytes(begun[: frames.LENGTH_BYTES], "big")
        missing = size - len(begun)
        if missing > len(data):
            return begun + data, 0
        self._walk(begun + data[:missing], 0)
        return data, missing

    def _walk(self, data: bytes, at: int) -> None:  # noqa: C901, PLR0912, PLR0915 - see below
        """Frame after frame.

        What a passage takes is dealt with here and not in a function of its own: for a message of a
        stream that is open this is all there is, and a call would be a tenth of it.
        """
        end = len(data)
        handlers, passages, passed = self._handlers, self.passages, 0
        while end - at >= HEAD_SIZE:
            head, flags, stream_id = frames.read_head(data, at)
            length = head >> 8
            start = at + HEAD_SIZE
            if length > frames.DEFAULT_FRAME_SIZE or start + length > end:
                break
            at = start + length
            kind = head & 0xFF
            if not (kind or flags) and stream_id in passages and self._block is None:
                passage = passages[stream_id]
                into, out, link = passage.into, passage.out, passage.link
                if length >= link.room and link.taking:
                    link.push()
                fits = 0 < length <= out.window and length <= into.window_left
                if fits and length < link.room and not link.turns:
                    passed += 1
                    out.window -= length
                    into.window_left -= length
                    into.updates_paid += guard.WINDOW_UPDATES_PER_DATA
                    link.room -= length
                    pieces = into.out
                    if not pieces:
                        self.stirred.append(link)
                    if length != passage.length:
                        passage.rewrite(length)
                    if passage.counter is not None:
                        piece = data[start:at]
                        passage.counter.feed(piece)
                        pieces += (passage.head, piece)
                    elif length >= _WORTH_A_VIEW and link.taking:
                        pieces += (passage.head, memoryview(data)[start:at])
                    else:
                        pieces += (passage.head, data[start:at])
                    self._link_owed += length
                    if self._link_owed >= self._half_credit:
                        self._repay_link()
                    passage.left -= length
                    if passage.left <= 0:
                        passage.renew()
                    continue
                passage.close()
            stream_id &= MAX_STREAM_ID
            if self._block is not None or not self.settings_seen:
                self._check_order(kind, flags, stream_id)
            if kind < len(handlers):
                handlers[kind](self, flags, stream_id, data[start:at])
            else:
                self.cost += guard.COST_SMALL_FRAME  # §5.5: unknown types are ignored
        self.passed += passed
        if at < end:
            self._keep(data[at:])

    def _keep(self, rest: bytes) -> None:
        """The beginning of a frame, which is judged by its header before it is held."""
        if len(rest) >= frames.LENGTH_BYTES:
            length = int.from_bytes(rest[: frames.LENGTH_BYTES], "big")
            if length > frames.DEFAULT_FRAME_SIZE:
                raise FatalError(H2Code.FRAME_SIZE_ERROR, "a frame longer than MAX_FRAME_SIZE")
        self._waiting = rest

    def _take_preface(self, data: bytes) -> int:
        size = min(len(data), len(self._preface))
        if data[:size] != self._preface[:size]:
            raise FatalError(H2Code.PROTOCOL_ERROR, "not the HTTP/2 preface")  # §3.4
        self._preface = self._preface[size:]
        return size

    def _check_order(self, kind: int, flags: int, stream_id: int) -> None:
        if not self.settings_seen and (kind != frames.SETTINGS or flags & frames.ACK):
            raise FatalError(H2Code.PROTOCOL_ERROR, "the first frame is not SETTINGS")  # §3.4
        if self._block is None:
            return
        if kind != frames.CONTINUATION or stream_id != self._block_stream:  # §6.10
            raise FatalError(H2Code.PROTOCOL_ERROR, "a frame inside a header block")

    # --- bodies ---

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        credit = len(payload)
        self._link_owed += credit
        if self._link_owed >= self._half_credit:
            self._repay_link()
        if flags & PADDED:
            payload = without_padding(payload)
        stream = self.streams.get(stream_id)
        if stream is None:
            self._late_data(stream_id)
            return
        if stream_id in self.passages:
            self.passages[stream_id].close()
        end = flags & END_STREAM == END_STREAM
        plain = stream.expected is None and stream.head_seen and not stream.remote_done
        taken = stream.taken + credit
        if plain and stream.ledger is None and taken < self._half_stream:
            stream.taken = taken  # nothing can be wrong with it, nothing is to be granted yet
        else:
            wrong = self._data_fault(stream, len(payload), credit, end)
            if wrong is not None:
                self._break(stream, *wrong)
                return
        if not payload and not end:
            self.cost += guard.COST_EMPTY_DATA
        self.told.append(DataReceived(stream_id, payload, credit, end))
        if end:
            self._remote_end(stream)

    def _repay_link(self) -> None:
        """Granted on receipt: one stuck stream must not starve its link."""
        if self._link_owed > self.limits.link_credit:
            raise FatalError(H2Code.FLOW_CONTROL_ERROR, "more DATA than the connection's window")
        self.out.append(frames.window_update(0, self._link_owed))
        self._link_owed = 0

    def _data_fault(
        self, stream: StreamState, length: int, credit: int, end: bool
    ) -> tuple[int, str] | None:
        if stream.remote_done:
            return H2Code.STREAM_CLOSED, "DATA after END_STREAM"  # §5.1
        if not stream.head_seen:
            return H2Code.PROTOCOL_ERROR, "DATA before a response head"
        if not self._take_credit(stream, credit):
            return H2Code.FLOW_CONTROL_ERROR, "more DATA than the stream's window"
        if stream.expected is not None:
            stream.expected -= length
            if stream.expected < 0 or (end and stream.expected):
                return H2Code.PROTOCOL_ERROR, "body does not match content-length"  # §8.1.1
        return None

    def _take_credit(self, stream: StreamState, credit: int) -> bool:
        if stream.ledger is not None:
            return stream.ledger.received(credit)
        stream.taken += credit
        if stream.taken < self._half_stream:
            return True
        # Half the window is used: from now on what is granted may be worth a WINDOW_UPDATE.
        stream.ledger = Ledger(self.limits.stream_credit, self.mark)
        fits = stream.ledger.received(stream.taken)
        stream.ledger.grant(stream.granted)
        return fits

    def _late_data(self, stream_id: int) -> None:
        """The link's credit is back already."""
        self.cost += guard.COST_EMPTY_DATA
        if self._is_idle(stream_id):
            raise FatalError(H2Code.PROTOCOL_ERROR, "DATA on a stream that was never opened")
        self._late(stream_id, "DATA")

    # --- ends ---

    def forget(self, stream: StreamState) -> None:
        self.passages.pop(stream.stream_id, None)
        super().forget(stream)

    def _on_rst_stream(self, _: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise FatalError(H2Code.PROTOCOL_ERROR, "RST_STREAM on stream 0")
        if len(payload) != 4:  # §6.4
            raise FatalError(H2Code.FRAME_SIZE_ERROR, "RST_STREAM of a wrong length")
        if self._is_idle(stream_id):
            raise FatalError(H2Code.PROTOCOL_ERROR, "RST_STREAM on an idle stream")
        stream = self.streams.get(stream_id)
        if stream is None:
            self.cost += guard.COST_SMALL_FRAME
            return
        if not (stream.local_done or self.client):  # a server resets what we asked for
            self.cost += guard.COST_RESET
        self.forget(stream)
        self._remember(stream_id, by_us=False)
        code = frames.read_code(payload)
        unprocessed = code == H2Code.REFUSED_STREAM  # §8.7
        self.told.append(StreamReset(stream_id, code, unprocessed=unprocessed))

    def _on_goaway(self, _: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise FatalError(H2Code.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:  # §6.8
            raise FatalError(H2Code.FRAME_SIZE_ERROR, "GOAWAY of a wrong length")
        self.cost += guard.COST_SMALL_FRAME
        self.goaway_seen = self.closing = True
        last_id = frames.read_u31(payload)
        self.told.append(GoawayReceived(last_id, frames.read_code(payload, 4), payload[8:]))
        if not self.client:
            return
        for stream in [s for s in self.streams.values() if s.stream_id > last_id]:
            # Nothing is sent, the peer never saw it; but what it sends on it is to be let go.
            self.forget(stream)
            self._remember(stream.stream_id, by_us=True)
            reason = "above GOAWAY's last id"
            code = H2Code.REFUSED_STREAM
            self.told.append(StreamReset(stream.stream_id, code, reason, unprocessed=True))

    # --- windows and settings ---

    def _on_window_update(self, _: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:  # §6.9
            raise FatalError(H2Code.FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong length")
        if self.updates_paid > 0:
            self.updates_paid -= 1
        else:
            self.cost += guard.COST_SMALL_FRAME
        increment = frames.read_u31(payload)
        if stream_id:
            self._open_stream_window(stream_id, increment)
            return
        if not increment:
            raise FatalError(H2Code.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        self.window_left += increment
        if self.window_left > frames.MAX_WINDOW:
            raise FatalError(H2Code.FLOW_CONTROL_ERROR, "connection window above 2^31-1")
        self.told.append(WindowOpened(0))

    def _open_stream_window(self, stream_id: int, increment: int) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            if self._is_idle(stream_id):
                raise FatalError(H2Code.PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream")
            return
        stream.window += increment
        if not increment:
            self._break(stream, H2Code.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")  # §6.9
        elif stream.window > frames.MAX_WINDOW:
            self._break(stream, H2Code.FLOW_CONTROL_ERROR, "window above 2^31-1")  # §6.9.1
        else:
            self.told.append(WindowOpened(stream_id))

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise FatalError(H2Code.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & frames.ACK:
            if payload:
                raise FatalError(H2Code.FRAME_SIZE_ERROR, "SETTINGS with ACK and values")
            self.cost += guard.COST_SMALL_FRAME
            return
        if len(payload) % frames.SETTING_SIZE:
            raise FatalError(H2Code.FRAME_SIZE_ERROR, "SETTINGS of a wrong length")
        if len(payload) > guard.MAX_SETTINGS * frames.SETTING_SIZE:
            raise FatalError(H2Code.ENHANCE_YOUR_CALM, "SETTINGS without end")
        if self.settings_seen:
            self.cost += guard.COST_SETTINGS + len(self.streams) // guard.STREAMS_MOVED
        self.settings_seen = True
        window = self._initial_window
        for name, value in frames.read_settings(payload):  # §6.5.3: in the order they came
            if name == frames.INITIAL_WINDOW_SIZE:
                window = value
            self._apply(name, value)
        if window != self._initial_window:
            self._move_windows(window)
        self.out.append(frames.frame(frames.SETTINGS, frames.ACK, 0))
        self.told.append(CapacityChanged())
        self.told.append(WindowOpened(0))

    def _apply(self, name: int, value: int) -> None:
        if name == frames.INITIAL_WINDOW_SIZE:
            if value > frames.MAX_WINDOW:
                raise FatalError(H2Code.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE {value}")
        elif name == frames.MAX_FRAME_SIZE:
            if not frames.DEFAULT_FRAME_SIZE <= value < 2**24:
                raise FatalError(H2Code.PROTOCOL_ERROR, f"MAX_FRAME_SIZE {value}")
            self.max_frame = value
        elif name == frames.MAX_CONCURRENT_STREAMS:
            self.max_streams = value
        elif name == frames.HEADER_TABLE_SIZE:
            self.encoder.resize(value)
        elif name == frames.ENABLE_PUSH:
            if value > 1 or (value and self.client):
                raise FatalError(H2Code.PROTOCOL_ERROR, f"ENABLE_PUSH {value}")
        elif name == frames.ENABLE_CONNECT_PROTOCOL:
            self._allow_connect(value)

    def _allow_connect(self, value: int) -> None:
        if value > 1:  # RFC 8441 §3
            raise FatalError(H2Code.PROTOCOL_ERROR, f"ENABLE_CONNECT_PROTOCOL {value}")
        self.extended_connect = value == 1

    def _move_windows(self, value: int) -> None:
        """§6.9.2: windows move by the difference, below zero too; over the maximum is an error."""
        difference = value - self._initial_window
        self._initial_window = value
        for stream in self.streams.values():
            stream.window += difference
            if stream.window > frames.MAX_WINDOW:
                raise FatalError(H2Code.FLOW_CONTROL_ERROR, "SETTINGS push a window above 2^31-1")

    # --- the rest ---

    def _on_priority(self, _: int, stream_id: int, payload: bytes) -> None:
        self.cost += guard.COST_SMALL_FRAME
        if not stream_id:
            raise FatalError(H2Code.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:  # §6.3
            raise FatalError(H2Code.FRAME_SIZE_ERROR, "PRIORITY of a wrong length")
        check_priority(stream_id, payload)

    def _on_push_promise(self, _: int, _stream_id: int, _payload: bytes) -> None:
        raise FatalError(H2Code.PROTOCOL_ERROR, "PUSH_PROMISE, which nobody may send us")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise FatalError(H2Code.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:  # §6.7
            raise FatalError(H2Code.FRAME_SIZE_ERROR, "PING of a wrong length")
        if self.updates_paid > 0:
            self.updates_paid -= 1
        else:
            self.cost += guard.COST_PING
        if flags & frames.ACK:
            self.told.append(PongReceived(payload))
        else:
            self.out.append(frames.frame(frames.PING, frames.ACK, 0, payload))

    _handlers = (  # by type; of the class, for bound methods would tie each connection into a cycle
        _on_data,
        Heads.on_headers,
        _on_priority,
        _on_rst_stream,
        _on_settings,
        _on_push_promise,
        _on_ping,
        _on_goaway,
        _on_window_update,
        Heads.on_continuation,
    )
