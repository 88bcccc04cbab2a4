"""The line of a stream: true to what came, and nobody's to forge."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickyproxy import accesslog
from stickyproxy.accesslog import (
    MAX_VALUE,
    Record,
    escape,
    render_json,
    render_text,
    shorten,
    token_hash,
    trace_id,
)

PEERS_VALUES = ("method", "authority", "path", "xff", "request_id", "trace_id", "user_agent",
                "grpc_message")  # fmt: skip
FIELDS = [
    "start_time", "duration_ms", "ttfb_ms", "protocol", "method", "authority", "path", "route",
    "cluster", "upstream_host", "pod", "session", "http_status", "grpc_status", "grpc_message",
    "bytes_in", "bytes_out", "messages_in", "messages_out", "response_flags", "attempts", "peer",
    "xff", "request_id", "trace_id", "user_agent", "tls",
]  # fmt: skip
HOSTILE = [
    b'" injected="1',
    b"line\nfeed\r\n",
    b"\x1b[31mred\x1b[0m\x07",
    b"\x00\x7f\x80\xff",
    b"back\\slash\\",
    b"\\u0022",
    "\u2028\u202e\U0001f600".encode(),
    b"%d%s%b",
    b"{} {0} {x!r}",
]


def full() -> Record:
    record = Record(1_700_000_000.123456, "HTTP/2", "10.0.0.1:51234", "TLSv1.3")
    record.method, record.authority, record.path = b"POST", b"example.com", b"/a.B/C"
    record.route, record.cluster, record.pod = "greeter", "greeters", "greeter-0"
    record.upstream_host = "10.1.0.1:8080"
    record.session_source, record.session_result = "cookie", "hit"
    record.session_hash = 0x123456789ABCDEF0
    record.http_status, record.grpc_status, record.attempts = 200, 14, 2
    record.duration, record.ttfb = 1.5, 0.25
    record.bytes_in, record.bytes_out, record.messages_in, record.messages_out = 5, 6, 7, 8
    record.response_flags = "UR,URX"
    record.xff, record.request_id, record.trace_id = b"1.2.3.4", b"id-1", b"ab" * 16
    record.user_agent, record.grpc_message = b"grpc-go/1.0", b"no%20more"
    return record


def line(record: Record) -> dict[str, Any]:
    rendered = render_json(record)
    assert rendered.endswith(b"}\n")
    assert all(0x20 <= byte < 0x7F for byte in rendered[:-1])
    found = json.loads(rendered)
    assert isinstance(found, dict)
    return found


def test_the_line_says_everything_that_is_known() -> None:
    assert line(full()) == {
        "start_time": "2023-11-14T22:13:20.123Z",
        "duration_ms": 1500,
        "ttfb_ms": 250,
        "protocol": "HTTP/2",
        "method": "POST",
        "authority": "example.com",
        "path": "/a.B/C",
        "route": "greeter",
        "cluster": "greeters",
        "upstream_host": "10.1.0.1:8080",
        "pod": "greeter-0",
        "session": {"source": "cookie", "result": "hit", "token_hash": "12345678"},
        "http_status": 200,
        "grpc_status": {"number": 14, "name": "Unavailable"},
        "grpc_message": "no%20more",
        "bytes_in": 5,
        "bytes_out": 6,
        "messages_in": 7,
        "messages_out": 8,
        "response_flags": "UR,URX",
        "attempts": 2,
        "peer": "10.0.0.1:51234",
        "xff": "1.2.3.4",
        "request_id": "id-1",
        "trace_id": "ab" * 16,
        "user_agent": "grpc-go/1.0",
        "tls": "TLSv1.3",
    }


def test_a_request_of_which_nothing_is_known_has_all_fields_too() -> None:
    found = line(Record(0.0, "HTTP/1.1", ""))

    assert list(found) == FIELDS
    absent = [name for name, value in found.items() if value is None]
    assert absent == [
        "ttfb_ms", "route", "cluster", "upstream_host", "pod", "session", "grpc_status",
        "grpc_message", "peer", "xff", "request_id", "trace_id", "user_agent", "tls",
    ]  # fmt: skip
    assert found["response_flags"] == "-"


@given(st.fixed_dictionaries({name: st.binary(max_size=40) for name in PEERS_VALUES}))
def test_any_bytes_come_back_from_the_line(values: dict[str, bytes]) -> None:
    record = full()
    for name, value in values.items():
        setattr(record, name, value)
    found = line(record)

    for name, value in values.items():
        may_be_null = name not in {"method", "authority", "path"}
        expected = value.decode("utf-8", "backslashreplace") or (None if may_be_null else "")
        assert found[name] == expected


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("name", PEERS_VALUES)
def test_no_value_ends_its_line_or_its_quotes(name: str, hostile: bytes) -> None:
    record = full()
    setattr(record, name, hostile)

    assert list(line(record)) == FIELDS
    text = render_text(record)
    assert all(0x20 <= byte < 0x7F for byte in text[:-1])
    unescaped = re.sub(rb"\\.", b"", text)
    assert unescaped.count(b'"') == render_text(full()).count(b'"')


@given(st.text(max_size=30), st.text(max_size=30))
def test_names_from_the_configuration_are_escaped_as_well(route: str, pod: str) -> None:
    record = full()
    record.route, record.pod = route, pod
    found = line(record)

    assert found["route"] == (route.encode("utf-8", "backslashreplace").decode() or None)
    assert found["pod"] == (pod.encode("utf-8", "backslashreplace").decode() or None)
    assert render_text(record).count(b"\n") == 1


@pytest.mark.parametrize("status", [17, -1, 99, 2**31])
def test_a_grpc_status_that_does_not_exist_is_told_as_it_is(status: int) -> None:
    record = full()
    record.grpc_status = status

    assert line(record)["grpc_status"] == {"number": status, "name": "Unknown"}
    assert b"grpc=%d(Unknown)" % status in render_text(record)


def test_a_value_of_any_length_makes_a_line_of_bounded_length() -> None:
    record = full()
    record.path = b"/" + b"a" * 60_000
    found = line(record)

    assert found["path"] == "/" + "a" * (MAX_VALUE - 1) + "...(60001 bytes)"
    for name in PEERS_VALUES:
        setattr(record, name, b"\x01" * 60_000)
    assert len(render_json(record)) < 8 * 6 * (MAX_VALUE + 100)


def test_no_more_of_a_session_than_half_its_hash_is_told() -> None:
    assert token_hash(0xFFFFFFFFFFFFFFFF) == b"ffffffff"
    assert token_hash(0x00000001DEADBEEF) == b"00000001"
    assert token_hash(None) == b""
    assert not {"cookie", "authorization", "session_key"} & set(Record.__slots__)


def test_a_session_that_was_asked_for_and_not_found_is_told() -> None:
    record = full()
    record.session_result, record.session_hash = "miss", None

    assert line(record)["session"] == {"source": "cookie", "result": "miss", "token_hash": None}
    assert b"session=cookie/miss/-" in render_text(record)


def test_lines_of_different_kinds_do_not_borrow_from_each_other() -> None:
    """What lines have in common is made once; what differs, or is absent, is each one's own."""
    for _ in range(2):
        record = full()
        expected = line(record)
        for name in ("pod", "route", "session_source", "response_flags", "tls", "xff", "trace_id"):
            absent = full()
            setattr(absent, name, type(getattr(absent, name))())
            assert line(absent) != expected
        record.pod = record.route = "100%d %b"
        record.method = b"%s"
        found = line(record)
        assert (found["pod"], found["route"], found["method"]) == ("100%d %b", "100%d %b", "%s")
        assert {**found, "pod": "greeter-0", "route": "greeter", "method": "POST"} == expected


def test_kinds_made_up_by_peers_are_not_collected() -> None:
    record = full()
    for number in range(accesslog._MEMO_LIMIT + 10):
        record.method = b"M%d" % number
        render_json(record)
    record.method = b"M" * 3000
    render_json(record)
    assert len(accesslog._formats) <= accesslog._MEMO_LIMIT
    assert all(len(made) < 2000 for made in accesslog._formats.values())


@given(st.floats(0, 4e9))
def test_the_time_is_the_records_own(start: float) -> None:
    line(Record(1_700_000_000.0, "", ""))  # the kept second is another one's
    stamp = line(Record(start, "", ""))["start_time"]

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp)
    assert abs(int(stamp[-4:-1]) - (start - math.floor(start)) * 1000) <= 1


def test_the_text_line_says_the_same() -> None:
    assert render_text(full()) == (
        b'[2023-11-14T22:13:20.123Z] "POST /a.B/C HTTP/2" 200 grpc=14(Unavailable) flags=UR,URX '
        b"bytes=5/6 messages=7/8 ms=1500.000 ttfb_ms=250.000 attempts=2 "
        b'authority="example.com" route="greeter" cluster="greeters" upstream="10.1.0.1:8080" '
        b'pod="greeter-0" session=cookie/hit/12345678 peer="10.0.0.1:51234" xff="1.2.3.4" '
        b'id="id-1" trace="abababababababababababababababab" agent="grpc-go/1.0" tls="TLSv1.3" '
        b'grpc_message="no%20more"\n'
    )


@pytest.mark.parametrize(
    ("traceparent", "expected"),
    [
        (b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", b"4bf92f3577b34da6a3ce929d0e0e4736"),
        (b"", b""),
        (b"00-short-01", b""),
        (b"x" * 60, b""),
    ],
)  # fmt: skip
def test_a_trace_id_is_taken_from_a_traceparent_only(traceparent: bytes, expected: bytes) -> None:
    assert trace_id(traceparent) == expected


@given(st.binary(max_size=100))
def test_escaping_is_json(value: bytes) -> None:
    assert json.loads(b'"' + escape(value) + b'"') == value.decode("utf-8", "backslashreplace")


@pytest.mark.parametrize("style", [render_json, render_text])
@pytest.mark.parametrize("octet", [b"x", b"\x00", b"\xff", b'"'])
def test_a_shortened_record_makes_a_line_that_a_pipe_takes_whole(
    style: Callable[[Record], bytes], octet: bytes
) -> None:
    record = Record(0.0, "HTTP/2", "10.0.0.1:1234", "TLSv1.3")
    for name in ("authority", "grpc_message", "method", "path", "request_id", "user_agent", "xff"):
        setattr(record, name, octet * 60_000)
    shorten(record, 48)
    line = style(record)
    assert len(line) <= 4096  # Linux' PIPE_BUF
    assert line.count(b"\n") == 1
