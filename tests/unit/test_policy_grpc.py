"""What a proxy knows of gRPC: content types, deadlines, statuses, answers of its own."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.errors import ErrorKind, GrpcStatus
from stickyproxy.model import Headers
from stickyproxy.policy import grpc


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc;charset=utf-8", True),
        (b"Application/gRPC+json", True),
        (b"application/grpc-web", False),
        (b"application/grpc-web+proto", False),
        (b"application/grpcfoo", False),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_grpc_is_told_by_its_content_type(content_type: bytes, *, expected: bool) -> None:
    assert grpc.is_grpc([(b":path", b"/"), (b"content-type", content_type)]) is expected


def test_no_content_type_is_no_grpc() -> None:
    assert not grpc.is_grpc([(b":path", b"/")])


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"1H", 3600.0),
        (b"2M", 120.0),
        (b"10S", 10.0),
        (b"99999999m", 99999.999),
        (b"300u", 0.0003),
        (b"1n", 1e-9),
        (b"0S", 0.0),
    ],
)
def test_a_timeout_is_read_in_its_unit(value: bytes, seconds: float) -> None:
    assert grpc.parse_timeout(value) == seconds


@pytest.mark.parametrize(
    "value", [b"", b"S", b"10", b"10s", b"-1S", b"+1S", b"1.5S", b"123456789S", b" 1S", b"\xb2S"]
)
def test_a_malformed_timeout_is_none(value: bytes) -> None:
    assert grpc.parse_timeout(value) is None


@pytest.mark.parametrize(
    ("seconds", "value"),
    [
        (0.05, b"50000000n"),
        (1.0, b"1000000u"),
        (99.9999999, b"99999999u"),
        (100.0, b"100000m"),
        (86_400.0, b"86400000m"),
        (1e6, b"1000000S"),
        (6e9 - 60, b"99999999M"),
        (3.6e11, b"99999999H"),
        (float("inf"), b"99999999H"),
        (0.0, b"1n"),
        (-3.0, b"1n"),
    ],
)
def test_a_timeout_is_written_in_the_finest_unit_that_fits(seconds: float, value: bytes) -> None:
    assert grpc.format_timeout(seconds) == value


@given(st.floats(min_value=1e-9, max_value=3e11))
def test_a_forwarded_deadline_is_never_later_and_loses_at_most_a_millionth(seconds: float) -> None:
    written = grpc.format_timeout(seconds)
    assert len(written) <= 9
    read = grpc.parse_timeout(written)
    assert read is not None
    # one part in 2**52 is what the last bit of a float may say
    assert read <= seconds * (1 + 2**-52)
    assert read >= seconds - max(seconds * 2e-5, 1e-9)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_message_comes_back_from_its_percent_encoding(text: str) -> None:
    encoded = grpc.percent_encode(text)
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert unquote_to_bytes(encoded).decode() == text


def test_spaces_stay_and_percent_and_newlines_do_not() -> None:
    assert grpc.percent_encode("50 % ü\n") == b"50 %25 %C3%BC%0A"


def test_a_lone_surrogate_in_a_detail_harms_nobody() -> None:
    assert grpc.percent_encode("a\udcff") == b"a?"


@pytest.mark.parametrize(
    ("value", "status"), [(b"0", 0), (b"16", 16), (b"17", 2), (b"", 2), (b"-1", 2), (b"ok", 2)]
)
def test_a_status_that_is_none_counts_as_unknown(value: bytes, status: int) -> None:
    assert grpc.status_of([(b"x", b"y"), (b"grpc-status", value)]) == status


def test_no_status_is_none() -> None:
    assert grpc.status_of([(b":status", b"200")]) is None


def test_every_status_has_a_name() -> None:
    assert [grpc.STATUS_NAMES[status] for status in GrpcStatus][:5] == [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
    ]
    assert len(grpc.STATUS_NAMES) == len(GrpcStatus)


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_a_grpc_client_hears_of_our_failure_in_one_head(kind: ErrorKind) -> None:
    headers, body = grpc.local_answer(kind, "backend a:1: 100 % gone\n", grpc=True)
    told = dict(headers)
    assert headers[0] == (b":status", b"200")
    assert body == b""
    assert told[b"content-type"] == b"application/grpc"
    assert told[b"grpc-status"] == b"%d" % kind.grpc
    assert b"backend a:1: 100 %25 gone" in told[b"grpc-message"]
    assert kind.flag.encode() in told[b"grpc-message"]
    assert told[b"x-stickyproxy-error"] == kind.flag.encode()


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_an_http_client_hears_of_our_failure_by_status_and_one_line(kind: ErrorKind) -> None:
    headers, body = grpc.local_answer(kind, "backend a:1:\r\n refused", grpc=False)
    told = dict(headers)
    assert headers[0] == (b":status", b"%d" % kind.http)
    assert told[b"content-length"] == b"%d" % len(body)
    assert told[b"content-type"].startswith(b"text/plain")
    assert told[b"x-stickyproxy-error"] == kind.flag.encode()
    assert body.endswith(b"\n")
    assert body.count(b"\n") == 1


def test_head_gets_the_same_head_without_the_body() -> None:
    asked, body = grpc.local_answer(ErrorKind.NO_ROUTE, "no route", grpc=False)
    headers, nothing = grpc.local_answer(ErrorKind.NO_ROUTE, "no route", grpc=False, head=True)
    assert headers == asked
    assert (nothing, len(body) > 0) == (b"", True)


def test_trailers_of_a_death_hold_status_and_message_but_no_head() -> None:
    trailers = dict(grpc.death_trailers(ErrorKind.UPSTREAM_CLOSED, "a:1 went away"))
    assert trailers[b"grpc-status"] == b"14"
    assert b"a:1 went away" in trailers[b"grpc-message"]
    assert not any(name.startswith(b":") or name == b"content-type" for name in trailers)


def head(status: int, *fields: tuple[bytes, bytes]) -> Headers:
    return [(b":status", b"%d" % status), *fields]


HTML = (b"content-type", b"text/html")
GRPC = (b"content-type", b"application/grpc")


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (200, head(200, GRPC), False),
        (200, head(200, GRPC, (b"grpc-status", b"14")), False),
        (200, head(200), False),
        (200, head(200, HTML), True),
        (200, head(200, HTML, (b"grpc-status", b"5")), False),
        (200, head(200, (b"content-type", b"application/grpc-web")), True),
        (502, head(502, HTML), True),
        (502, head(502), True),
        (503, head(503, GRPC), True),
        (503, head(503, (b"grpc-status", b"8")), False),
        (431, head(431, HTML), False),  # clients differ in what it says to them
    ],
)
def test_only_what_a_grpc_client_cannot_read_is_translated(
    status: int, headers: Headers, *, expected: bool
) -> None:
    assert grpc.needs_translation(status, headers) is expected


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, 13),
        (401, 16),
        (403, 7),
        (404, 12),
        (429, 14),
        (502, 14),
        (503, 14),
        (504, 14),
        (200, 2),
        (302, 2),
        (500, 2),
    ],
)
def test_an_http_answer_becomes_the_status_of_the_official_table(status: int, code: int) -> None:
    answer = head(status, HTML, (b"content-length", b"9"), (b"set-cookie", b"a=1"))
    headers = grpc.translate_http_error(status, answer)
    told = dict(headers)
    assert headers[0] == (b":status", b"200")
    assert told[b"content-type"] == b"application/grpc"
    assert told[b"grpc-status"] == b"%d" % code
    assert b"HTTP %d" % status in told[b"grpc-message"]
    assert b'"text/html"' in told[b"grpc-message"]
    assert told[b"set-cookie"] == b"a=1"
    assert b"content-length" not in told
    assert [name for name, _ in headers].count(b":status") == 1


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (b"application/grpc+json", b"application/grpc+json"),
        (b"application/grpc+proto", b"application/grpc+proto"),
        (b"application/grpc", b"application/grpc"),
        (b"application/grpc+json; charset=utf-8", b"application/grpc+json"),
        (b"application/grpc-web+json", b"application/grpc+json"),
        (b"application/grpc-web-text", b"application/grpc"),
        (b"application/ld+json", b"application/grpc"),
        (None, b"application/grpc"),
    ],
)
def test_an_answer_of_ours_is_of_the_kind_that_was_asked_for(
    asked: bytes | None, told: bytes
) -> None:
    answer = grpc.translate_http_error(502, head(502, HTML))
    of_kind = grpc.in_kind(answer, asked)
    assert [value for name, value in of_kind if name == b"content-type"] == [told]
    assert [field for field in of_kind if field[0] != b"content-type"] == [
        field for field in answer if field[0] != b"content-type"
    ]


def test_a_status_of_the_server_is_never_overwritten() -> None:
    answer = head(503, HTML, (b"grpc-status", b"8"), (b"grpc-message", b"full"))
    assert grpc.translate_http_error(503, answer) is answer


def test_a_missing_content_type_is_named_as_missing() -> None:
    told = dict(grpc.translate_http_error(502, head(502)))
    assert b"no content-type" in told[b"grpc-message"]
