"""HTTP/1.1 connections that become something else, byte for byte (RFC 9110 §7.8, RFC 6455 §4)."""

from __future__ import annotations

import pytest

from stickyproxy.codec.api import CodecLimits
from stickyproxy.codec.http1 import Http1Codec
from stickyproxy.errors import H2Code
from stickyproxy.events import CodecFailed, DataReceived, Event, HeadReceived, StreamReset
from stickyproxy.model import Headers

ASKED = b"GET /chat HTTP/1.1\r\nHost: svc.example\r\n%b\r\n"
PLAIN = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
ASKING: Headers = [
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":authority", b"svc.example"),
    (b":path", b"/chat"),
    (b":protocol", b"websocket"),
]
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def asked(fields: bytes = PLAIN, *, start: bytes = ASKED) -> tuple[Http1Codec, HeadReceived]:
    """A server codec, and the request that it was sent."""
    codec = Http1Codec(False, CodecLimits())
    [head] = codec.feed(start % fields)
    assert isinstance(head, HeadReceived)
    return codec, head


def asking() -> Http1Codec:
    """A client codec that waits for the answer to its upgrade."""
    codec = Http1Codec(True, CodecLimits())
    codec.open_stream(ASKING, False)
    codec.take_output()
    return codec


def bodies(events: list[Event]) -> list[tuple[bytes, bool]]:
    return [(e.data, e.end_stream) for e in events if isinstance(e, DataReceived)]


@pytest.mark.parametrize(
    "fields",
    [
        PLAIN,
        b"Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n",
        b"Connection: keep-alive\r\nConnection: upgrade\r\nUpgrade: h2c, websocket\r\n",
        PLAIN + b"Content-Length: 0\r\n",
    ],
)
def test_a_request_for_a_websocket_is_told_by_its_protocol(fields: bytes) -> None:
    _, head = asked(fields)
    assert head.headers[:5] == ASKING
    assert not head.end_stream


@pytest.mark.parametrize(
    "fields",
    [
        b"Upgrade: websocket\r\n",
        b"Connection: upgrade\r\n",
        b"Connection: close\r\nUpgrade: websocket\r\n",
        b"Connection: upgrade\r\nUpgrade: h2c\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket/13\r\n",
    ],
)
def test_any_other_upgrade_is_a_plain_request(fields: bytes) -> None:
    codec, head = asked(fields)
    assert head.end_stream
    assert b":protocol" not in head.fields
    assert b"upgrade" not in head.fields
    codec.send_headers(1, [(b":status", b"204")], True)
    assert codec.take_output().startswith(b"HTTP/1.1 204 ")


def test_a_request_with_a_body_is_no_upgrade() -> None:
    codec = Http1Codec(False, CodecLimits())
    events = codec.feed(ASKED % (PLAIN + b"Content-Length: 2\r\n") + b"hi")
    assert isinstance(events[0], HeadReceived)
    assert b":protocol" not in events[0].fields
    assert bodies(list(events)) == [(b"hi", True)]


def test_http_1_0_has_no_upgrade() -> None:
    _, head = asked(start=ASKED.replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert head.end_stream
    assert b":protocol" not in head.fields


def test_a_method_that_is_not_get_is_told_too() -> None:
    _, head = asked(start=ASKED.replace(b"GET", b"POST"))
    assert head.fields[b":method"] == b"POST"
    assert head.fields[b":protocol"] == b"websocket"


def test_101_switches_and_says_so() -> None:
    codec, _ = asked()
    codec.send_headers(1, [(b":status", b"101"), (b"sec-websocket-accept", b"x")], False)
    assert codec.take_output() == (
        b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: x\r\n"
        b"connection: Upgrade\r\nupgrade: websocket\r\n\r\n"
    )
    codec.send_data(1, b"\x81\x02hi", False)
    assert codec.take_output() == b"\x81\x02hi"


def test_101_that_nobody_asked_for_cannot_be_said() -> None:
    codec, _ = asked(b"")
    codec.send_headers(1, [(b":status", b"101")], False)
    [told] = codec.resume()
    assert isinstance(told, StreamReset)
    assert codec.take_output() == b""
    assert codec.closing


def test_bytes_before_the_101_wait_for_it() -> None:
    codec = Http1Codec(False, CodecLimits())
    events = codec.feed(ASKED % PLAIN + b"\x81\x80abcd")
    assert len(events) == 1
    assert codec.resume() == []
    codec.send_headers(1, [(b":status", b"101")], False)
    assert bodies(list(codec.resume())) == [(b"\x81\x80abcd", False)]


def test_bytes_behind_a_refused_upgrade_are_the_next_request() -> None:
    codec = Http1Codec(False, CodecLimits())
    assert len(codec.feed(ASKED % PLAIN + b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")) == 1
    codec.send_headers(1, [(b":status", b"403")], True)
    [head] = codec.resume()
    assert isinstance(head, HeadReceived)
    assert head.fields[b":path"] == b"/next"
    assert head.stream_id == 3


def test_early_bytes_without_end_stop_the_reading() -> None:
    codec, _ = asked()
    codec.feed(bytes(1 << 14))
    assert codec.paused


def test_426_names_what_is_wanted() -> None:
    codec, _ = asked()
    codec.send_headers(1, [(b":status", b"426"), (b"sec-websocket-version", b"13")], True)
    assert b"connection: Upgrade\r\nupgrade: websocket\r\n" in codec.take_output()


def test_a_client_that_leaves_before_the_answer_is_gone() -> None:
    codec, _ = asked()
    [told] = codec.feed(b"")
    assert isinstance(told, StreamReset)
    assert (told.code, told.by_peer) == (H2Code.CANCEL, True)


def test_an_upgrade_is_written_as_http_1_1_has_it() -> None:
    codec = Http1Codec(True, CodecLimits())
    codec.open_stream([*ASKING, (b"sec-websocket-key", b"k")], False)
    assert codec.take_output() == (
        b"GET /chat HTTP/1.1\r\nhost: svc.example\r\nsec-websocket-key: k\r\n"
        b"connection: Upgrade\r\nupgrade: websocket\r\n\r\n"
    )
    assert codec.capacity() == 0


def test_a_101_that_was_asked_for_is_a_head_and_what_follows_is_bytes() -> None:
    codec = asking()
    events = list(codec.feed(SWITCH + b"\x81\x02hi"))
    assert isinstance(events[0], HeadReceived)
    assert events[0].headers == [(b":status", b"101")]
    assert bodies(events) == [(b"\x81\x02hi", False)]
    assert bodies(list(codec.feed(b""))) == [(b"", True)]
    assert codec.closing


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        SWITCH.replace(b"websocket", b"h2c"),
        SWITCH.replace(b"Connection: Upgrade\r\n", b""),
    ],
)
def test_a_101_to_something_else_breaks_the_connection(answer: bytes) -> None:
    codec = asking()
    [told] = codec.feed(answer)
    assert isinstance(told, StreamReset)
    assert not told.by_peer
    assert codec.closing


def test_a_101_that_was_not_asked_for_breaks_the_connection() -> None:
    codec = Http1Codec(True, CodecLimits())
    codec.open_stream(ASKING[:4], True)
    [told] = codec.feed(SWITCH)
    assert isinstance(told, StreamReset | CodecFailed)
    assert codec.closing


def test_informational_heads_may_come_before_the_101() -> None:
    codec = asking()
    events = codec.feed(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + SWITCH)
    assert [type(e).__name__ for e in events] == ["InformationalReceived", "HeadReceived"]


def test_nothing_may_be_sent_before_the_101() -> None:
    codec = asking()
    codec.send_data(1, b"early", False)
    assert codec.take_output() == b""
    assert codec.closing
