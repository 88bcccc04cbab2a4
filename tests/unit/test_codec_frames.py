"""Frames as bytes, read back by hyperframe, which knows nothing of ours."""

from __future__ import annotations

import pytest
from hyperframe.frame import (
    Frame,
    GoAwayFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from stickyproxy.codec import frames


def read(data: bytes) -> Frame:
    """The one frame that `data` is."""
    frame, length = Frame.parse_frame_header(memoryview(data[:9]))
    assert len(data) == 9 + length
    frame.parse_body(memoryview(data[9:]))
    return frame


def test_rst_stream() -> None:
    frame = read(frames.rst_stream(5, 0xFFFF_FFFF))
    assert isinstance(frame, RstStreamFrame)
    assert (frame.stream_id, frame.error_code) == (5, 0xFFFF_FFFF)


def test_window_update() -> None:
    frame = read(frames.window_update(2**31 - 1, 2**31 - 1))
    assert isinstance(frame, WindowUpdateFrame)
    assert (frame.stream_id, frame.window_increment) == (2**31 - 1, 2**31 - 1)


def test_goaway() -> None:
    frame = read(frames.goaway(7, 11))
    assert isinstance(frame, GoAwayFrame)
    assert (frame.stream_id, frame.last_stream_id, frame.error_code) == (0, 7, 11)


def test_settings_both_ways() -> None:
    values = {frames.INITIAL_WINDOW_SIZE: 2**31 - 1, frames.ENABLE_CONNECT_PROTOCOL: 1}
    data = frames.settings(values)
    frame = read(data)
    assert isinstance(frame, SettingsFrame)
    assert dict(frame.settings) == values
    assert dict(frames.read_settings(data[frames.HEAD_SIZE :])) == values


def test_settings_are_read_in_order_and_all_of_them() -> None:
    payload = b"\0\4\0\0\0\1\0\1\0\0\0\2\0\4\0\0\0\3"
    assert frames.read_settings(payload) == [(4, 1), (1, 2), (4, 3)]


@pytest.mark.parametrize("length", [0, 1, 255, 256, 16_384])
def test_a_head_says_length_type_flags_and_stream(length: int) -> None:
    data = frames.frame(frames.CONTINUATION, 0x4, 2**31 - 1, bytes(length))
    head, flags, stream = frames.read_head(data, 0)
    assert (head >> 8, head & 0xFF, flags, stream) == (length, 9, 4, 2**31 - 1)
    assert int.from_bytes(data[: frames.LENGTH_BYTES], "big") == length


def test_the_reserved_bit_is_left_out() -> None:
    assert frames.read_u31(b"\xff\xff\xff\xff") == 2**31 - 1
    assert frames.read_u31(b"----\x80\0\0\1", 4) == 1
    assert frames.read_code(b"\xff\xff\xff\xff") == 2**32 - 1
