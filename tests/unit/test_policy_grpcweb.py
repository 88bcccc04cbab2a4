"""gRPC-Web's forms, heads and frames; base64 cut at any byte and padded anywhere."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.policy.grpcweb import (
    Form,
    TextDecoder,
    TextEncoder,
    form_of,
    request_head,
    response_head,
    trailers_frame,
    wanted_form,
    without_status,
)
from support.plan import message


@pytest.mark.parametrize(
    ("content_type", "form"),
    [
        (b"application/grpc-web", Form(False, b"")),
        (b"application/grpc-web+proto", Form(False, b"+proto")),
        (b"application/grpc-web; charset=utf-8", Form(False, b"; charset=utf-8")),
        (b"application/grpc-web ; charset=utf-8", Form(False, b"; charset=utf-8")),
        (b"application/grpc-web-text ", Form(True, b"")),
        (b"application/grpc-web-text", Form(True, b"")),
        (b"Application/gRPC-Web-Text+proto", Form(True, b"+proto")),
        (b"application/grpc", None),
        (b"application/grpc-webs", None),
        (b"application/grpc-web-texts", None),
        (b"text/plain", None),
    ],
)
def test_the_form_is_read_from_the_content_type(content_type: bytes, form: Form | None) -> None:
    assert form_of(content_type) == form


def test_accept_says_what_the_response_is() -> None:
    asked = Form(True, b"+proto")
    assert wanted_form(None, asked) == asked
    assert wanted_form(b"*/*", asked) == asked
    assert wanted_form(b"text/html, application/grpc-web", asked) == Form(False, b"+proto")
    assert wanted_form(b"application/grpc-web-text", Form(False, b"")) == Form(True, b"")


def test_a_request_is_translated() -> None:
    head = [
        (b":method", b"POST"),
        (b"content-type", b"application/grpc-web-text+proto"),
        (b"content-length", b"12"),
        (b"accept", b"application/grpc-web-text"),
        (b"x-grpc-web", b"1"),
        (b"grpc-timeout", b"1S"),
    ]
    assert request_head(head, Form(True, b"+proto")) == [
        (b":method", b"POST"),
        (b"x-grpc-web", b"1"),
        (b"grpc-timeout", b"1S"),
        (b"content-type", b"application/grpc+proto"),
        (b"te", b"trailers"),
    ]


def test_a_response_is_translated_and_others_are_not() -> None:
    head = [
        (b":status", b"200"),
        (b"content-type", b"application/grpc+proto"),
        (b"content-length", b"0"),
        (b"x-more", b"1"),
    ]
    assert response_head(head, Form(True, b"+proto")) == [
        (b":status", b"200"),
        (b"content-type", b"application/grpc-web-text+proto"),
        (b"x-more", b"1"),
    ]
    page = [(b":status", b"200"), (b"content-type", b"text/html"), (b"content-length", b"3")]
    assert response_head(page, Form(False, b"")) == page


def test_trailers_only_is_a_head_and_trailers() -> None:
    """Metadata is for the page's code; what is HTTP's is for the browser, and a cookie for nobody else."""
    head = [
        (b":status", b"200"),
        (b"content-type", b"application/grpc-web"),
        (b"set-cookie", b"a=b; HttpOnly"),
        (b"access-control-allow-origin", b"https://a.example"),
        (b"vary", b"origin"),
        (b"date", b"Sun, 29 Nov 2026 10:00:00 GMT"),
        (b"x-stickyproxy-error", b"UF"),
    ]
    ours = (b"x-ours", b"1")
    trailers = [(b"grpc-status", b"5"), (b"x-more", b"1"), (b"x-more", b"2"), (b"y-bin", b"AA")]
    whole = [*head[:4], *trailers, *head[4:], ours]
    theirs = {name for name, _ in [*head, *trailers]}
    assert without_status(whole, theirs) == ([*head, ours], trailers)


def test_trailers_are_a_message_of_their_own() -> None:
    frame = trailers_frame([(b"grpc-status", b"0"), (b"x-a", b"1"), (b"x-a", b"2")])
    lines = b"grpc-status: 0\r\nx-a: 1\r\nx-a: 2\r\n"
    assert frame == b"\x80" + len(lines).to_bytes(4, "big") + lines


@given(
    st.lists(st.binary(max_size=40), max_size=6),
    st.lists(st.integers(1, 9), min_size=1, max_size=20),
)
def test_text_is_read_whatever_the_cut_and_the_padding(
    parts: list[bytes], sizes: list[int]
) -> None:
    text = b"".join(base64.b64encode(part) for part in parts)
    decoder, out, at, turn = TextDecoder(), b"", 0, 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        out += decoder.decode(text[at : at + size])
        at, turn = at + size, turn + 1
    assert out + decoder.end() == b"".join(parts)


def test_the_last_padding_may_be_missing() -> None:
    for data in (b"", b"a", b"ab", b"abc", b"abcd"):
        decoder = TextDecoder()
        read = decoder.decode(base64.b64encode(data).rstrip(b"="))
        assert read + decoder.end() == data


@pytest.mark.parametrize("text", [b"AA A", b"AA\nA", b"A===", b"====", b"AA=A", b"AAA-", b"A"])
def test_what_is_no_base64_is_told(text: bytes) -> None:
    decoder = TextDecoder()
    with pytest.raises(ValueError, match=r"."):
        decoder.decode(text) + decoder.end()


@given(st.lists(st.integers(5, 30), min_size=1, max_size=6), st.integers(1, 40))
def test_text_is_written_so_that_each_message_is_whole_when_it_is_there(
    lengths: list[int], size: int
) -> None:
    encoder, decoder = TextEncoder(), TextDecoder()
    body = b"".join(message(length) for length in lengths)
    written = read = b""
    for at in range(0, len(body), size):
        part = body[at : at + size]
        encoded = encoder.encode(part)
        assert len(encoded) <= TextEncoder.bound(len(part))
        written += part
        read += decoder.decode(encoded)
        whole, rest = 0, len(written)
        for length in lengths:
            if rest < length:
                break
            whole, rest = whole + length, rest - length
        assert len(read) >= whole
    frame = trailers_frame([(b"grpc-status", b"0")])
    read += decoder.decode(encoder.end(frame)) + decoder.end()
    assert read == body + frame
