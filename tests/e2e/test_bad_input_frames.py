"""Broken HTTP/2 connections: each ends with the code of RFC 9113, and nobody else with it.

Throughout, a neighbour holds a request open on a connection of its own; at the end it gets its answer.
"""

from __future__ import annotations

import pytest

from support import rawframes as raw
from support.http_backends import echo_backends
from support.http_clients import RawH2Client, h2_request, raw_client, raw_h2_client
from support.http_lab import Guarded
from support.proxy_process import running_proxy

PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR = 1, 3, 5, 6
REFUSED_STREAM, COMPRESSION_ERROR = 7, 9


def in_block(*frames: bytes) -> bytes:
    """HEADERS without END_HEADERS on stream 1, and then something else."""
    block = raw.RawCoder().block(h2_request(b"/bad"))
    return raw.frame(raw.HEADERS, raw.END_STREAM, 1, block) + b"".join(frames)


def opened(stream: int, *, end: bool = True) -> bytes:
    return raw.RawCoder().headers(stream, h2_request(b"/good"), end=end)


def one_setting(number: int, value: int) -> bytes:
    return raw.settings({number: value})


BROKEN: dict[str, tuple[bytes, set[int]]] = {
    "DATA on idle": (raw.data(1, b"x"), {PROTOCOL_ERROR}),
    "RST_STREAM on idle": (raw.rst(1, 8), {PROTOCOL_ERROR}),
    "WINDOW_UPDATE on idle": (raw.window_update(1, 5), {PROTOCOL_ERROR}),
    "DATA on 0": (raw.data(0, b"x"), {PROTOCOL_ERROR}),
    "HEADERS on 0": (opened(0), {PROTOCOL_ERROR}),
    "even stream": (opened(2), {PROTOCOL_ERROR}),
    "RST_STREAM on 0": (raw.rst(0, 8), {PROTOCOL_ERROR}),
    "RST_STREAM length": (opened(1) + raw.frame(raw.RST_STREAM, 0, 1, b"123"), {FRAME_SIZE_ERROR}),
    "lower stream": (opened(5) + opened(3), {PROTOCOL_ERROR, STREAM_CLOSED}),
    "huge frame": (raw.data(1, b"x" * 16_385), {FRAME_SIZE_ERROR}),
    "SETTINGS length": (raw.frame(raw.SETTINGS, 0, 0, b"12345"), {FRAME_SIZE_ERROR}),
    "SETTINGS ack with payload": (raw.frame(raw.SETTINGS, 1, 0, b"123456"), {FRAME_SIZE_ERROR}),
    "SETTINGS on a stream": (raw.frame(raw.SETTINGS, 0, 1, b""), {PROTOCOL_ERROR}),
    "ENABLE_PUSH 2": (one_setting(raw.ENABLE_PUSH, 2), {PROTOCOL_ERROR}),
    "window over 2^31": (one_setting(raw.INITIAL_WINDOW_SIZE, 2**31), {FLOW_CONTROL_ERROR}),
    "MAX_FRAME_SIZE 0": (one_setting(raw.MAX_FRAME_SIZE, 0), {PROTOCOL_ERROR}),
    "PING length": (raw.frame(raw.PING, 0, 0, b"1234567"), {FRAME_SIZE_ERROR}),
    "PING on a stream": (raw.frame(raw.PING, 0, 1, b"12345678"), {PROTOCOL_ERROR}),
    "WINDOW_UPDATE 0": (raw.window_update(0, 0), {PROTOCOL_ERROR}),
    "window overflow": (raw.window_update(0, 2**31 - 1), {FLOW_CONTROL_ERROR}),
    "WINDOW_UPDATE length": (raw.frame(raw.WINDOW_UPDATE, 0, 0, b"123"), {FRAME_SIZE_ERROR}),
    "GOAWAY on a stream": (raw.frame(raw.GOAWAY, 0, 1, bytes(8)), {PROTOCOL_ERROR}),
    "hpack garbage": (raw.frame(raw.HEADERS, 5, 1, b"\xff" * 30), {COMPRESSION_ERROR}),
    "hpack index": (raw.frame(raw.HEADERS, 5, 1, b"\xfe"), {COMPRESSION_ERROR}),
    "lone CONTINUATION": (raw.frame(raw.CONTINUATION, 4, 1, b""), {PROTOCOL_ERROR}),
    "PING in a block": (in_block(raw.ping(b"12345678")), {PROTOCOL_ERROR}),
    "other stream in a block": (
        in_block(raw.frame(raw.CONTINUATION, raw.END_HEADERS, 3, b"")),
        {PROTOCOL_ERROR},
    ),
    "PUSH_PROMISE": (raw.frame(raw.PUSH_PROMISE, 4, 1, bytes(4)), {PROTOCOL_ERROR}),
    "padding too long": (
        opened(1, end=False) + raw.frame(raw.DATA, raw.PADDED, 1, b"\x09abc"),
        {PROTOCOL_ERROR},
    ),
}


@pytest.mark.parametrize(("sent", "codes"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_connection_ends_with_its_code(
    target: Guarded, sent: bytes, codes: set[int]
) -> None:
    with raw_h2_client(target.port) as client:
        client.send(sent)
        found = wait_for_goaway(client)
        assert found is not None, "it ended without a word"
        assert found.code in codes
        assert client.frame() is None, "and nothing comes after"
    assert "/bad" not in target.asked()


def wait_for_goaway(client: RawH2Client) -> raw.Frame | None:
    while (found := client.frame()) is not None and found.kind != raw.GOAWAY:
        pass
    return found


def test_the_first_frame_must_be_settings(target: Guarded) -> None:
    with raw_client(target.port) as client:
        client.send(raw.PREFACE + raw.ping(b"12345678"))
        frames = raw.parse(client.read_to_end())
        assert [f.code for f in frames if f.kind == raw.GOAWAY] == [PROTOCOL_ERROR]


def test_streams_beyond_the_limit_are_refused_one_by_one() -> None:
    with echo_backends() as [backend]:
        flags = ("--backend", f"http://{backend.address}", "--max-concurrent-streams", "3")
        with running_proxy(*flags) as proxy, raw_h2_client(proxy.port) as client:
            for stream in (1, 3, 5, 7):
                client.request(stream, h2_request(b"/wait"))
            found = client.ending(7)
            assert found is not None
            assert (found.kind, found.code) == (raw.RST_STREAM, REFUSED_STREAM)
            backend.release.set()
            for stream in (1, 3, 5):
                while stream not in client.bodies:
                    assert client.frame() is not None
