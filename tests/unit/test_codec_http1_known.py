"""Heads of HTTP/1.1 that come again: known from the third time on, and judged as the first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stickyproxy.codec.api import CodecLimits
from stickyproxy.codec.http1 import Http1Codec
from stickyproxy.codec.http1_plain import plain_request, plain_response
from stickyproxy.events import HeadReceived
from stickyproxy.model import Section

LIMITS = CodecLimits()
REQUEST = b"GET /%s HTTP/1.1\r\nhost: a.example\r\nx-user-id: 1"
RESPONSE = b"HTTP/1.1 200 OK\r\nserver: %s\r\ncontent-length: 2"


def test_a_request_that_came_twice_is_one_object_from_then_on() -> None:
    head = REQUEST % b"again"
    first, *others = [plain_request(head, b"http", LIMITS) for _ in range(4)]
    assert first is not None
    assert all(other == first for other in others)
    assert type(first.headers) is list
    assert others[-1] is others[-2]
    assert others[-1] is not None
    assert type(others[-1].headers) is Section


def test_its_scheme_is_that_of_its_connection() -> None:
    head = REQUEST % b"schemes"
    for scheme in (b"http", b"https") * 4:
        plain = plain_request(head, scheme, LIMITS)
        assert plain is not None
        assert plain.headers[1] == (b":scheme", scheme)


@pytest.mark.parametrize("secret", [b"authorization: Bearer x", b"cookie: a=b"])
def test_a_secret_goes_with_its_connection(secret: bytes) -> None:
    head = REQUEST % b"secret" + b"\r\n" + secret
    kept = [plain_request(head, b"http", LIMITS) for _ in range(4)]
    assert all(plain is not None and type(plain.headers) is list for plain in kept)


def test_a_response_to_head_has_no_body_however_often_one_to_get_came() -> None:
    head = RESPONSE % b"methods"
    for method, length in ((b"GET", 2), (b"HEAD", 0), (b"POST", 2)) * 4:
        plain = plain_response(head, method, LIMITS)
        assert plain is not None
        assert plain.length == length
    assert plain_response(head, b"CONNECT", LIMITS) is None


@pytest.mark.parametrize(
    "narrow", [replace(LIMITS, max_header_count=1), replace(LIMITS, max_header_list=60)]
)
def test_who_takes_less_does_not_take_it_because_others_did(narrow: CodecLimits) -> None:
    head = REQUEST % b"limits"
    for _ in range(4):
        assert plain_request(head, b"http", LIMITS) is not None
    assert plain_request(head, b"http", narrow) is None


def test_what_is_told_of_it_is_the_same_each_time() -> None:
    codec = Http1Codec(client=False, limits=LIMITS)
    told = []
    for _ in range(5):
        (event,) = codec.feed(REQUEST % b"told" + b"\r\n\r\n")
        assert isinstance(event, HeadReceived)
        told.append((list(event.headers), dict(event.fields), event.end_stream))
        codec.send_headers(event.stream_id, [(b":status", b"204")], end_stream=True)
    assert told == [told[0]] * 5
