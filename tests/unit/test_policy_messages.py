"""Message boundaries are found however the bytes are cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.policy.messages import MessageCounter


def message(body: bytes) -> bytes:
    return b"\0" + len(body).to_bytes(4, "big") + body


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(min_value=0, max_value=30)))
def test_messages_are_counted_whatever_the_frames(bodies: list[bytes], cuts: list[int]) -> None:
    rest = b"".join(map(message, bodies))
    counter = MessageCounter()
    for cut in cuts:
        counter.feed(rest[:cut])
        rest = rest[cut:]
    counter.feed(rest)
    assert counter.count == len(bodies)
    assert counter.at_boundary


@given(st.lists(st.binary(max_size=12), min_size=1, max_size=4))
def test_a_boundary_is_exactly_the_end_of_a_message(bodies: list[bytes]) -> None:
    counter = MessageCounter()
    ends = {0}
    for body in bodies:
        ends.add(max(ends) + len(message(body)))
    assert counter.at_boundary
    for at, byte in enumerate(b"".join(map(message, bodies)), start=1):
        counter.feed(bytes([byte]))
        assert counter.at_boundary is (at in ends)


def test_an_empty_frame_changes_nothing() -> None:
    counter = MessageCounter()
    counter.feed(b"")
    assert counter.at_boundary
    counter.feed(message(b"abc")[:-1])
    counter.feed(b"")
    assert (counter.count, counter.at_boundary) == (0, False)


def test_the_longest_length_is_awaited_not_held() -> None:
    counter = MessageCounter()
    counter.feed(b"\1\xff\xff\xff\xff" + bytes(100))
    assert (counter.count, counter.at_boundary) == (0, False)
    counter.feed(bytes(1000))
    assert (counter.count, counter.at_boundary) == (0, False)
