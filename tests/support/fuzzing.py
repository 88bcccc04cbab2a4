"""What a fuzzer may throw bytes at: each target takes any bytes, and raises if a law is broken.

A codec's law is the seam's: nothing raises because of what a peer did, what it says are whole frames,
heads that it hands on keep RFC 9113's grammar, and after its end it says nothing more. The first byte
says in how large pieces the rest arrives.
"""

from __future__ import annotations

import ipaddress
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from hpack import Decoder as OtherDecoder
from hpack.exceptions import HPACKError

from stickyproxy.codec import validate
from stickyproxy.codec.api import Codec, CodecLimits
from stickyproxy.codec.fast import FastCodec
from stickyproxy.codec.hpack_decode import Decoder, HpackError, TooManyFieldsError
from stickyproxy.codec.http1 import Http1Codec
from stickyproxy.codec.reference import ReferenceCodec
from stickyproxy.config.load import load
from stickyproxy.errors import ConfigError
from stickyproxy.events import (
    CodecFailed,
    DataReceived,
    Event,
    HeadReceived,
    RequestRejected,
    StreamReset,
    TrailersReceived,
)
from stickyproxy.model import Connection, HashPolicy, Headers
from stickyproxy.policy.grpc import format_timeout, parse_timeout
from stickyproxy.policy.hashing import hash_of
from stickyproxy.policy.headers import client_of, join_cookies
from stickyproxy.rules import EdgePolicy
from stickyproxy.wire.hello import _Short, server_name
from stickyproxy.wire.proxy_protocol import ProxyHeaderError, read_header
from support import rawframes as raw

LIMITS = CodecLimits(max_concurrent_streams=8, max_header_list=4096, max_header_count=20)
GET: Headers = [
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":authority", b"a"),
    (b":path", b"/"),
]
OK: Headers = [(b":status", b"200")]
_BEGIN = {False: raw.PREFACE + raw.settings(), True: raw.settings()}


def _pieces(data: bytes) -> Iterable[bytes]:
    size = data[0] + 1 if data else 1
    return (data[at : at + size] for at in range(1, len(data), size))


def _law(held: bool, law: str) -> None:
    if not held:
        raise AssertionError(law)


class _Application:
    """Answers what is whole, grants what comes, and looks at all that is handed on."""

    def __init__(self, codec: Codec, *, whole: Callable[[bytes], object]) -> None:
        self.codec = codec
        self.failed = False
        self._whole = whole

    def hear(self, data: bytes) -> None:
        events = self.codec.feed(data)
        for _ in range(1000):
            for event in events:
                self._on(event)
            if not self.codec.buffered:
                break
            events = self.codec.resume()
        else:
            _law(held=False, law="it resumes for ever")
        self._whole(self.codec.take_output())

    def _on(self, event: Event) -> None:
        _law(not self.failed, "an event after the end")
        if isinstance(event, CodecFailed):
            self.failed = True
        elif isinstance(event, HeadReceived):
            self._on_head(event)
        elif isinstance(event, DataReceived):
            _law(event.credit >= len(event.data), "less credit than data")
            self.codec.grant(event.stream_id, event.credit)
            self._answer(event.stream_id, event.end_stream)
        elif isinstance(event, TrailersReceived):
            _law(validate.trailers_fault(event.headers) is None, "malformed trailers")
            self._answer(event.stream_id, end=True)
        elif isinstance(event, RequestRejected | StreamReset):
            _law(event.stream_id >= 0, "a stream of no number")

    def _on_head(self, event: HeadReceived) -> None:
        judge = validate.response_fault if self.codec.client else validate.request_fault
        known = event.headers
        if self.codec.protocol != "HTTP/2":  # there an upgrade is said by `:protocol` on any method
            known = [field for field in known if field[0] != b":protocol"]
        status = dict(known).get(b":status")
        if event.fault is None and status != b"101":
            _law(judge(known) is None, f"malformed, and handed on: {known}")
        _law(all(b"\n" not in value and b"\r" not in value for _, value in known), "CR or LF")
        self._answer(event.stream_id, event.end_stream)

    def _answer(self, stream: int, end: bool) -> None:
        if end and not self.codec.client:
            self.codec.send_headers(stream, OK, end_stream=True)


def _http2(make: Callable[[bool, CodecLimits], Codec], *, client: bool) -> Callable[[bytes], None]:
    def target(data: bytes) -> None:
        codec = make(client, LIMITS)
        application = _Application(codec, whole=raw.parse)
        first = codec.take_output().removeprefix(raw.PREFACE)
        raw.parse(first)
        application.hear(_BEGIN[client])
        for _ in range(3 if client else 0):
            codec.open_stream(GET, end_stream=True)
        for piece in _pieces(data):
            application.hear(piece)
        application.hear(b"")
        _law(codec.cost >= 0, "a negative price")

    return target


def _http1(*, client: bool) -> Callable[[bytes], None]:
    def target(data: bytes) -> None:
        codec = Http1Codec(client, LIMITS)
        application = _Application(codec, whole=bytes)
        if client:
            codec.open_stream(GET, end_stream=True)
        for piece in _pieces(data):
            application.hear(piece)
        application.hear(b"")

    return target


def hpack(data: bytes) -> None:
    """Ours and the library agree: on every field, or that there is none."""
    ours, other = Decoder(hard_fields=10_000), OtherDecoder(max_header_list_size=1 << 30)
    for block in data.split(b"\xfa\xce"):
        try:
            expected = [(bytes(n), bytes(v)) for n, v in other.decode(block, raw=True)]
        except (HPACKError, UnicodeDecodeError, IndexError):
            expected = None
        try:
            found = ours.decode(block)
        except HpackError:
            found = None
        except TooManyFieldsError:
            return
        _law(found == expected, f"{found} is not {expected}")
        if found is None:
            return


def _fields(data: bytes) -> Headers:
    lines = (line.partition(b":") for line in data.split(b"\n"))
    return [(name.lower(), value) for name, _, value in lines]


_POLICIES = (
    HashPolicy("cookie", "session", ttl=60),
    HashPolicy("cookie", "session"),
    HashPolicy("header", "x-user"),
    HashPolicy("header", "host"),
    HashPolicy("source_ip", ""),
)


def sessions(data: bytes) -> None:
    """Hash policies and cookies, addresses of clients, deadlines: of fields that are anything."""
    headers = _fields(data)
    client = client_of(headers, Connection("10.0.0.1", 1, "10.0.0.2", 2), EdgePolicy())
    hop = EdgePolicy(use_remote_address=False, xff_num_trusted_hops=1)
    client_of(headers, Connection("10.0.0.1", 1), hop)
    for policy in _POLICIES:
        key = hash_of(policy, headers, client, lambda: 7)
        again = hash_of(policy, headers, client, lambda: 7, None)
        _law(key == again, "the same request, another key")
        _law(key.hash is None or 0 <= key.hash < 1 << 64, "no 64-bit number")
    joined = join_cookies(headers)
    _law(sum(name == b"cookie" for name, _ in joined) <= 1, "two cookie fields")
    for _, value in headers:
        seconds = parse_timeout(value)
        if seconds is not None:
            _law(seconds >= 0, "a deadline before now")
            parse_timeout(format_timeout(seconds))


def documents(data: bytes) -> None:
    """A file is taken, or complained about in lines that name it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fuzz.yaml"
        path.write_bytes(data)
        try:
            load([path], None, {})
        except ConfigError as error:
            _law(bool(error.problems), "refused without a word")
            for problem in error.problems:
                _law("\n" not in problem, "a complaint of two lines")


def hello(data: bytes) -> None:
    """The name in a ClientHello."""
    try:
        name = server_name(data)
    except _Short:
        return
    _law(name == name.lower(), "a name in capitals")


def proxy_header(data: bytes) -> None:
    """The PROXY header: ends are addresses and ports, or it is refused; no byte more is read."""
    taken = 0

    async def read(size: int) -> bytes:
        nonlocal taken
        taken += size
        if taken > len(data):
            raise ProxyHeaderError("it ended")
        return data[taken - size : taken]

    reading = read_header(read)
    try:
        reading.send(None)
    except StopIteration as done:
        for address, port in done.value or ():
            _law(bool(ipaddress.ip_address(address)) and 0 <= port < 1 << 16, "no address")
    except ProxyHeaderError:
        return
    else:
        _law(held=False, law="it waits for something")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "h2-fast-server": _http2(FastCodec, client=False),
    "h2-fast-client": _http2(FastCodec, client=True),
    "h2-reference-server": _http2(ReferenceCodec, client=False),
    "h2-reference-client": _http2(ReferenceCodec, client=True),
    "http1-server": _http1(client=False),
    "http1-client": _http1(client=True),
    "hpack": hpack,
    "sessions": sessions,
    "documents": documents,
    "hello": hello,
    "proxy-header": proxy_header,
}
