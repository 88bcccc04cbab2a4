"""What a codec says happened: the events of the codec seam.

Made for every frame, so they are slotted classes that are filled by hand and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

from stickyproxy.model import Headers


class HeadReceived:
    """A request head (server role) or a final response head (client role).

    `fault` is None for a good head. Otherwise the head breaks a limit that is ours and not the
    protocol's (`"headers_too_large"`): the stream is still answerable, and the answer is 431.
    `fields` has the last value of each name: what stands only once is found there at once. Whoever
    has them already gives them.
    """

    __slots__ = ("end_stream", "fault", "fields", "headers", "stream_id")

    def __init__(
        self,
        stream_id: int,
        headers: Headers,
        end_stream: bool,
        fault: str | None = None,
        fields: Mapping[bytes, bytes] | None = None,
    ) -> None:
        self.stream_id = stream_id
        self.headers = headers
        self.fields = dict(headers) if fields is None else fields
        self.end_stream = end_stream
        self.fault = fault


class InformationalReceived:
    """A 1xx response head other than 101 (RFC 9110 §15.2); a final head follows."""

    __slots__ = ("headers", "stream_id")

    def __init__(self, stream_id: int, headers: Headers) -> None:
        self.stream_id = stream_id
        self.headers = headers


class DataReceived:
    """Body bytes. `credit` is what they cost in flow control: length plus padding (RFC 9113 §6.9.1)."""

    __slots__ = ("credit", "data", "end_stream", "stream_id")

    def __init__(self, stream_id: int, data: bytes, credit: int, end_stream: bool) -> None:
        self.stream_id = stream_id
        self.data = data
        self.credit = credit
        self.end_stream = end_stream


SLIVER = 1024
"""Bytes below which parts of a body that wait are put together: one by one they would cost a hundred times
what flow control counts, 10 MB of a window of 64 KiB."""


def joined(first: object, then: object) -> DataReceived | None:
    """Two parts of a body as one, if they are slivers; None if one is not, or is something else."""
    if type(first) is not DataReceived or type(then) is not DataReceived:
        return None
    if len(first.data) >= SLIVER or len(then.data) >= SLIVER:
        return None
    credit = first.credit + then.credit
    return DataReceived(first.stream_id, first.data + then.data, credit, then.end_stream)


class TrailersReceived:
    """The closing field section; it always ends the stream."""

    __slots__ = ("headers", "stream_id")

    def __init__(self, stream_id: int, headers: Headers) -> None:
        self.stream_id = stream_id
        self.headers = headers


class StreamReset:
    """The stream is over before its time.

    `by_peer`: the peer sent RST_STREAM with `code`. Otherwise the codec ended it because of what
    the peer did on it (malformed head, broken content-length) and has queued the RST_STREAM.
    `unprocessed`: the peer cannot have acted on it (REFUSED_STREAM, above GOAWAY's last id).
    """

    __slots__ = ("by_peer", "code", "reason", "stream_id", "unprocessed")

    def __init__(
        self,
        stream_id: int,
        code: int,
        reason: str = "",
        *,
        by_peer: bool = True,
        unprocessed: bool = False,
    ) -> None:
        self.stream_id = stream_id
        self.code = code
        self.reason = reason
        self.by_peer = by_peer
        self.unprocessed = unprocessed


class RequestRejected:
    """A request that never became a stream: malformed, or over the limit of streams.

    The codec has queued the RST_STREAM (or the HTTP/1.1 error response). Told for the access log
    only: every request head that was delivered gets its line. `headers` is what could be decoded.
    """

    __slots__ = ("code", "headers", "reason", "status", "stream_id")

    def __init__(
        self, stream_id: int, headers: Headers, code: int, status: int, reason: str
    ) -> None:
        self.stream_id = stream_id
        self.headers = headers
        self.code = code
        self.status = status
        self.reason = reason


class WindowOpened:
    """More may be sent: on one stream, or (0) on any stream of the link."""

    __slots__ = ("stream_id",)

    def __init__(self, stream_id: int) -> None:
        self.stream_id = stream_id


class CapacityChanged:
    """How many streams may be opened changed (first SETTINGS, new MAX_CONCURRENT_STREAMS)."""

    __slots__ = ()


class PongReceived:
    """The acknowledgement of a PING of ours."""

    __slots__ = ("payload",)

    def __init__(self, payload: bytes) -> None:
        self.payload = payload


class GoawayReceived:
    """The peer takes no streams above `last_id`; those above it follow as unprocessed resets."""

    __slots__ = ("code", "debug", "last_id")

    def __init__(self, last_id: int, code: int, debug: bytes) -> None:
        self.last_id = last_id
        self.code = code
        self.debug = debug


class CodecFailed:
    """The connection is beyond repair; what there was to say about it is in the output."""

    __slots__ = ("code", "reason")

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason


Event = (
    HeadReceived
    | InformationalReceived
    | DataReceived
    | TrailersReceived
    | StreamReset
    | RequestRejected
    | WindowOpened
    | CapacityChanged
    | PongReceived
    | GoawayReceived
    | CodecFailed
)
