"""HTTP/2 by the h2 package: the textbook engine, and the oracle in tests.

h2 keeps the frames, HPACK, the windows and the stream states. What it does not do as a relay must
(4.4.1) is settled here, frame by frame, in `_Engine`:

* After a GOAWAY of either side it refuses every send and every DATA frame (python-hyper/h2 #1181).
  So its state machine never hears of one: we read and write GOAWAY ourselves.
* One malformed head, one content-length that does not add up, one stream over the limit kill the
  connection. RFC 9113 §8.1.1 and §5.1.2 want a stream error; so h2's checks are off and ours are on.
* It credits the connection window for closed streams only. Here the link's credit is granted on
  receipt, always, so that a stuck stream cannot starve its link.
* What escapes it on hostile input (`ValueError`, `KeyError`, …) ends as one clean `CodecFailed`.
"""

from __future__ import annotations

from collections.abc import Sequence

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import H2Error, ProtocolError
from h2.settings import SettingCodes, Settings

from stickyproxy.codec.api import (
    MAX_STREAM_ID,
    Codec,
    CodecLimits,
    Counter,
    Outlet,
    Piece,
    send_in_turn,
)
from stickyproxy.codec.limits import CreditMark
from stickyproxy.codec.reference_engine import Engine
from stickyproxy.codec.reference_streams import StreamNote
from stickyproxy.errors import H2Code
from stickyproxy.events import CodecFailed, Event
from stickyproxy.model import Headers

MAX_HEADER_LIST_SLACK = 2
"""Lists up to twice our limit are decoded (and answered 431); beyond, decoding stops and with it the
connection, because a half-decoded block leaves HPACK's tables apart (RFC 7541 §2.3.1)."""


class ReferenceCodec:
    """One HTTP/2 connection. `client` is true towards a backend."""

    protocol = "HTTP/2"
    bite = 2048
    """230 frames, each of which h2 is busy with for 10 to 20 us, or 70 requests that are cancelled."""
    buffered = False
    paused = False
    passed = 0

    def __init__(
        self, client: bool, limits: CodecLimits | None = None, *, mark: CreditMark | None = None
    ) -> None:
        self.client = client
        self._limits = limits or CodecLimits()
        self._engine = Engine(_configuration(client), self._limits, mark or CreditMark())
        self._failed = False
        self._goaway_sent: int | None = None
        _begin(self._engine, self._limits)

    # --- in ---

    def feed(self, data: bytes) -> Sequence[Event]:
        if self._failed or not data:
            return []
        engine = self._engine
        try:
            engine.receive_data(data)
            engine.refuse_overlong_frame()
        except ProtocolError as error:
            engine.told.append(self._fail(int(error.error_code), str(error) or repr(error)))
        except (H2Error, ArithmeticError, LookupError, TypeError, ValueError) as error:
            engine.write_goaway(engine.highest_inbound_stream_id, H2Code.PROTOCOL_ERROR)
            engine.told.append(self._fail(H2Code.PROTOCOL_ERROR, repr(error)))
        events, engine.told = engine.told, []
        return events

    def straight(
        self, stream_id: int, into: Codec, into_id: int, *, link: Outlet, counter: Counter | None
    ) -> None:
        del stream_id, into, into_id, link, counter

    def take_stirred(self) -> Sequence[Outlet]:
        return ()

    def resume(self) -> Sequence[Event]:
        return []

    def _fail(self, code: int, reason: str) -> CodecFailed:
        self._failed = True
        return CodecFailed(code, reason)

    # --- out ---

    def take_output(self) -> bytes:
        return self._engine.data_to_send()

    def take_pieces(self) -> list[Piece]:
        return [self._engine.data_to_send()]

    @property
    def has_output(self) -> bool:
        return self._engine.has_output

    def open_stream(self, headers: Headers, end_stream: bool) -> int:
        engine = self._engine
        stream_id = engine.get_next_available_stream_id()
        note = engine.begin(stream_id, is_head=(b":method", b"HEAD") in headers)
        engine.send_headers(stream_id, headers, end_stream)
        note.local_done = end_stream
        return stream_id

    def send_headers(self, stream_id: int, headers: Headers, end_stream: bool) -> None:
        if not headers:  # empty trailers, for whose block h2 has no frame
            self.send_data(stream_id, b"", end_stream)
            return
        note = self._sendable(stream_id)
        if note is not None:
            self._engine.send_headers(stream_id, headers, end_stream)
            self._sent(note, end_stream)

    def send_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        note = self._sendable(stream_id)
        if note is None:
            return
        size = self._engine.max_outbound_frame_size
        for start in range(0, len(data) or 1, size):
            last = start + size >= len(data)
            self._engine.send_data(stream_id, data[start : start + size], end_stream and last)
            self._engine.data_frame_sent()
        self._sent(note, end_stream)

    def send_whole(
        self, stream_id: int, headers: Headers, parts: Sequence[bytes], trailers: Headers | None
    ) -> None:
        send_in_turn(self, stream_id, headers, parts, trailers)

    def reset(self, stream_id: int, code: int) -> None:
        if stream_id in self._engine.notes and not self._failed:
            self._engine.reset_now(stream_id, code)

    def ping(self, payload: bytes) -> None:
        if not self._failed:
            self._engine.ping(payload)

    def goaway(self, last_id: int, code: int) -> None:
        if self._failed:
            return
        self._goaway_sent = last_id
        self._engine.refuse_above = last_id
        self._engine.write_goaway(last_id, code)

    def _sendable(self, stream_id: int) -> StreamNote | None:
        note = self._engine.notes.get(stream_id)
        return None if note is None or note.local_done or self._failed else note

    def _sent(self, note: StreamNote, end_stream: bool) -> None:
        if end_stream:
            note.local_done = True
            self._engine.settle(note)

    # --- flow ---

    def window(self, stream_id: int) -> int:
        if not stream_id:
            return self._engine.outbound_flow_control_window
        if stream_id not in self._engine.notes:
            return 0
        return self._engine.local_flow_control_window(stream_id)

    def grant(self, stream_id: int, credit: int) -> None:
        note = self._engine.notes.get(stream_id)
        if note is not None and not note.remote_done and not self._failed:
            self._engine.grant_stream(note, credit)

    def capacity(self) -> int:
        engine = self._engine
        if self._failed or not engine.settings_seen or engine.goaway_seen or self._exhausted():
            return 0
        if engine.outbound_flow_control_window <= 0:
            return 0
        return max(0, engine.remote_settings.max_concurrent_streams - len(engine.notes))

    @property
    def extended_connect(self) -> bool:
        return self._engine.remote_settings.get(SettingCodes.ENABLE_CONNECT_PROTOCOL) == 1

    def _exhausted(self) -> bool:
        return self._engine.highest_outbound_stream_id >= MAX_STREAM_ID - 1

    # --- state ---

    @property
    def cost(self) -> int:
        return self._engine.cost

    @property
    def amid_head(self) -> bool:
        return self._engine.incoming_buffer.amid_block

    def refuse_head(self) -> Sequence[Event]:
        return ()

    @property
    def last_peer_stream(self) -> int:
        return self._engine.last_taken

    @property
    def closing(self) -> bool:
        if self._failed or self._engine.goaway_seen or (self.client and self._exhausted()):
            return True
        return self._goaway_sent is not None and self._goaway_sent != MAX_STREAM_ID


def _configuration(client: bool) -> H2Configuration:
    return H2Configuration(
        client_side=client,
        header_encoding=None,
        validate_inbound_headers=False,
        normalize_inbound_headers=False,
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
    )


def _begin(engine: H2Connection, limits: CodecLimits) -> None:
    """Queue the preface. Both sides announce the same; only a server's stream limit means much."""
    values: dict[SettingCodes, int] = {
        SettingCodes.MAX_CONCURRENT_STREAMS: limits.max_concurrent_streams,
        SettingCodes.INITIAL_WINDOW_SIZE: limits.stream_credit,
        SettingCodes.MAX_HEADER_LIST_SIZE: limits.max_header_list,
    }
    client = engine.config.client_side
    if client:
        values[SettingCodes.ENABLE_PUSH] = 0  # RFC 9113 §8.4: a relay has no use for pushes
        del values[SettingCodes.MAX_CONCURRENT_STREAMS]
    else:
        values[SettingCodes.ENABLE_CONNECT_PROTOCOL] = 1  # it cannot be withdrawn later
    engine.local_settings = Settings(client=bool(client), initial_values=values)
    engine.initiate_connection()
    if not client:
        # Ours is the count (a stream error over it, not the end); h2 must see none.
        engine.local_settings = _without_stream_limit(engine.local_settings)
    engine.decoder.max_header_list_size = MAX_HEADER_LIST_SLACK * limits.max_header_list
    engine.increment_flow_control_window(limits.link_credit - 65_535)  # RFC 9113 §6.9.2's default


def _without_stream_limit(settings: Settings) -> Settings:
    values = {SettingCodes(code): value for code, value in settings.items()}
    values[SettingCodes.MAX_CONCURRENT_STREAMS] = 2**31 - 1
    return Settings(client=False, initial_values=values)
