"""The handshake's arithmetic, and the scanner: whatever the cut, the same count and code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.policy.websocket import (
    FrameScanner,
    accept_of,
    accepting,
    asking,
    close_frame,
    is_proven,
    key_of,
    refusal_of,
)
from support.websockets import ACCEPT, KEY, MASK, frame

payloads = st.one_of(st.binary(max_size=130), st.integers(65_530, 65_540).map(bytes))
frames = st.tuples(st.sampled_from([0, 1, 2, 9, 10]), st.booleans(), payloads)


def scanned(data: bytes, size: int) -> FrameScanner:
    scanner = FrameScanner()
    for at in range(0, len(data), size):
        scanner.feed(data[at : at + size])
    return scanner


@given(
    st.lists(frames, max_size=5),
    st.sampled_from([b"", MASK, b"\0\0\0\0"]),
    st.sampled_from([1, 2, 3, 5, 13, 1000, 1 << 20]),
)
def test_messages_are_counted_whatever_the_cut(
    said: list[tuple[int, bool, bytes]], mask: bytes, size: int
) -> None:
    data = b"".join(
        frame(payload[:125] if opcode > 2 else payload, opcode, fin=fin or opcode > 2, mask=mask)
        for opcode, fin, payload in said
    )
    scanner = scanned(data, size)
    assert scanner.count == sum(fin and opcode < 3 for opcode, fin, _ in said)
    assert scanner.at_boundary
    assert scanner.close_code is None


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("mask", [b"", MASK])
def test_the_code_of_a_close_is_read(mask: bytes, size: int) -> None:
    scanner = scanned(frame(b"x", mask=mask) + close_frame(4321, "goodbye", mask), size)
    assert (scanner.count, scanner.close_code) == (1, 4321)


def test_the_first_close_counts_and_one_without_a_code_is_1005() -> None:
    assert scanned(frame(b"", 8) + close_frame(1000, ""), 1).close_code == 1005
    assert scanned(close_frame(1000, "") + frame(b"", 8), 1).close_code == 1000


@pytest.mark.parametrize("whole", [frame(bytes(10)), frame(bytes(300)), frame(bytes(70_000))])
def test_there_is_a_boundary_only_behind_a_whole_frame(whole: bytes) -> None:
    scanner = FrameScanner()
    for at in range(len(whole) - 1):
        scanner.feed(whole[at : at + 1])
        assert not scanner.at_boundary
    scanner.feed(whole[-1:])
    assert scanner.at_boundary


@given(st.binary(max_size=300))
def test_what_is_no_websocket_is_looked_at_all_the_same(data: bytes) -> None:
    one, other = scanned(data, 1), scanned(data, 1 << 20)
    assert (one.count, one.close_code, one.at_boundary) == (
        other.count,
        other.close_code,
        other.at_boundary,
    )


def test_a_close_frame_fits_a_control_frame_whatever_its_reason() -> None:
    told = close_frame(1001, "r" * 500)
    assert told[1] == 125
    assert scanned(told, 1).close_code == 1001
    assert scanned(close_frame(1001, "ü" * 500, MASK), 1).close_code == 1001


def test_the_accept_is_rfc_6455s() -> None:
    assert accept_of(KEY) == ACCEPT
    assert len(key_of(2**128 - 1)) == 24
    assert is_proven([(b":status", b"101"), (b"sec-websocket-accept", ACCEPT)], KEY)
    assert not is_proven([(b":status", b"101")], KEY)
    twice = [(b":status", b"101"), *[(b"sec-websocket-accept", ACCEPT)] * 2]
    assert not is_proven(twice, KEY)


def test_the_head_for_a_backend_is_its_https_own() -> None:
    get = [
        (b":method", b"GET"),
        (b":path", b"/"),
        (b"te", b"trailers"),
        (b"sec-websocket-key", KEY),
        (b"sec-websocket-version", b"13"),
    ]
    version = (b"sec-websocket-version", b"13")
    protocol = (b":protocol", b"websocket")
    assert asking(get, b"") == [(b":method", b"CONNECT"), (b":path", b"/"), protocol, version]
    assert asking(get, b"ours") == [*get[:2], protocol, version, (b"sec-websocket-key", b"ours")]


def test_the_answer_for_a_client_is_its_https_own() -> None:
    answer = [(b":status", b"101"), (b"sec-websocket-accept", b"x"), (b"set-cookie", b"a=b")]
    assert accepting(answer, b"") == [(b":status", b"200"), (b"set-cookie", b"a=b")]
    assert accepting(answer, KEY) == [
        (b":status", b"101"),
        (b"set-cookie", b"a=b"),
        (b"sec-websocket-accept", ACCEPT),
    ]


def test_a_good_handshake_has_no_refusal() -> None:
    good = [(b":method", b"GET"), (b"sec-websocket-version", b"13")]
    assert refusal_of(good, keyed=False) is None
    assert refusal_of([*good, (b"sec-websocket-key", KEY)], keyed=True) is None
    assert refusal_of(good, keyed=True) is not None
