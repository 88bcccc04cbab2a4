"""However a sequence of frames is cut on its way, it says the same."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.harness import REQUEST, Factory, Plain, merged, plain
from contract.test_contract_laws import HTTP2
from stickyproxy.codec.api import CodecLimits
from stickyproxy.codec.http1 import Http1Codec
from stickyproxy.events import DataReceived, Event, HeadReceived, TrailersReceived
from support import rawframes as raw


class Step(NamedTuple):
    """One thing a raw client does; what makes no sense at its turn is left out."""

    what: str
    pick: int
    size: int
    flag: bool


ON_CONNECTION = ("ping", "settings", "unknown", "goaway")
ON_STREAM = ("data", "data", "padded", "trailers", "rst", "update", "priority")
STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(("open", "open", "malformed", *ON_CONNECTION, *ON_STREAM)),
        st.integers(0, 7),
        st.integers(0, 300),
        st.booleans(),
    ),
    max_size=40,
)
CUTS = st.lists(st.integers(0, 20_000), max_size=30)


class Writer(raw.RawCoder):
    """Turns steps into the bytes of one connection's client."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[int] = []
        self.next = 1

    def write(self, step: Step) -> bytes:
        if step.what in ("open", "malformed"):
            return self.head(step)
        if step.what in ON_CONNECTION or not self.open:
            return self.on_connection(step)
        return self.on_stream(step, self.open[step.pick % len(self.open)])

    def on_connection(self, step: Step) -> bytes:
        frames = {
            "ping": raw.ping(b"%08d" % step.size),
            "settings": raw.settings({raw.INITIAL_WINDOW_SIZE: 1000 + step.size}),
            "unknown": raw.frame(0xF0, step.pick, step.pick, bytes(step.size)),
            "goaway": raw.goaway(0, step.pick),
        }
        return frames.get(step.what, raw.window_update(0, 1 + step.size))

    def head(self, step: Step) -> bytes:
        stream, self.next = self.next, self.next + 2
        fields = [*REQUEST, (b"x-size", b"%d" % step.size)]
        if step.what == "malformed":
            fields = fields[1:]
        elif not step.flag:
            self.open.append(stream)
        return self.headers(stream, fields, end=step.flag, piece=20 + step.size % 90)

    def on_stream(self, step: Step, stream: int) -> bytes:
        ended = step.flag and step.what in ("data", "padded")
        if ended or step.what in ("trailers", "rst"):
            self.open.remove(stream)
        if step.what == "trailers":
            return self.headers(stream, [(b"x-sum", b"1")], end=True)
        if step.what == "rst":
            return raw.rst(stream, step.pick)
        if step.what == "priority":
            return raw.frame(raw.PRIORITY, 0, stream, bytes(4) + b"\x01")
        if step.what == "update":
            return raw.window_update(stream, 1 + step.size)
        padding = step.size % 200 if step.what == "padded" else None
        return raw.data(stream, b"d" * step.size, end=step.flag, padding=padding)


def pieces(whole: bytes, cuts: list[int]) -> list[bytes]:
    marks = sorted({cut % (len(whole) + 1) for cut in cuts} | {0, len(whole)})
    return [whole[a:b] for a, b in pairwise(marks) if b > a]


def heard(make: Factory, parts: list[bytes]) -> list[Plain]:
    codec = make(False, CodecLimits())
    codec.take_output()
    events = [event for part in parts for event in codec.feed(part)]
    return [plain(event) for event in events]


@pytest.mark.parametrize("codec", HTTP2)
@given(steps=STEPS, cuts=CUTS)
def test_cut_anywhere_frames_say_the_same(codec: str, steps: list[Step], cuts: list[int]) -> None:
    writer = Writer()
    whole = raw.PREFACE + raw.settings() + b"".join(writer.write(step) for step in steps)
    told = heard(HTTP2[codec], [whole])
    assert told[-1][0] != "CodecFailed"
    assert heard(HTTP2[codec], pieces(whole, cuts)) == told
    assert heard(HTTP2[codec], [whole[at : at + 1] for at in range(len(whole))]) == told


MESSAGE = st.tuples(
    st.sampled_from(["none", "length", "chunked", "trailers"]),
    st.lists(st.binary(min_size=1, max_size=60), max_size=4),
)


def written(number: int, framing: str, parts: list[bytes]) -> bytes:
    """One HTTP/1.1 request."""
    head = b"POST /%d HTTP/1.1\r\nHost: svc.example\r\n" % number
    body = b"".join(parts)
    if framing == "none":
        return head + b"\r\n"
    if framing == "length":
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    trailers = b"x-sum: %d\r\nx-b: c\r\n" % number if framing == "trailers" else b""
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailers + b"\r\n"


def served(parts: list[bytes]) -> tuple[list[Plain], bytes]:
    """Feed an HTTP/1.1 server codec that grants at once and answers each whole request."""
    codec = Http1Codec(False, CodecLimits(stream_credit=50))
    seen: list[Event] = []

    def take(events: list[Event]) -> None:
        for event in events:
            seen.append(event)
            if isinstance(event, DataReceived):
                codec.grant(event.stream_id, event.credit)
            ended = isinstance(event, TrailersReceived) or (
                isinstance(event, HeadReceived | DataReceived) and event.end_stream
            )
            if ended and isinstance(event, HeadReceived | DataReceived | TrailersReceived):
                codec.send_headers(event.stream_id, [(b":status", b"204")], True)

    for part in parts:
        take(list(codec.feed(part)))
        while codec.buffered:
            take(list(codec.resume()))
    return merged(seen), codec.take_output()


@given(messages=st.lists(MESSAGE, max_size=4), cuts=CUTS)
def test_cut_anywhere_pipelined_requests_say_the_same(
    messages: list[tuple[str, list[bytes]]], cuts: list[int]
) -> None:
    whole = b"".join(written(number, *message) for number, message in enumerate(messages))
    told = served([whole])
    assert told[1] == b"HTTP/1.1 204 No Content\r\n\r\n" * len(messages)
    assert served(pieces(whole, cuts)) == told
    assert served([whole[at : at + 1] for at in range(len(whole))]) == told
