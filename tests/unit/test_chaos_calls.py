"""The lab's own client and backend, which must be right before a proxy can be wrong: in memory."""

from __future__ import annotations

import struct

import pytest

from bench import frames
from bench.frames import FrameReader, frame
from chaos.answers import Answers, Chat, Http1, Speech, literal
from chaos.backend import Service
from chaos.calls import Client, Result, client
from chaos.job import CHAT, GET, POST, UNARY, Setup
from chaos.load import arrivals


class Pair:
    """A client and a backend, without a proxy between."""

    def __init__(self, setup: Setup) -> None:
        self.client = client(setup)
        self.speech = Speech("b1", setup.kind, setup.answer)
        self.backend = (Chat if setup.kind == CHAT else Answers)(self.speech)
        self.backend.out.clear()  # SETTINGS come with the first exchange
        del self.client.out[: len(frames.PREFACE)]

    def exchange(self, *, answer: bool = True) -> list[Result]:
        results = []
        while self.client.out or self.backend.out:
            sent, self.client.out[:] = bytes(self.client.out), b""
            self.backend.receive(sent)
            while answer and self.backend.whole:
                self.backend.answer(self.backend.whole.pop(0))
            said, self.backend.out[:] = bytes(self.backend.out), b""
            self.backend.produce()
            results += self.client.receive(said)
        return results


@pytest.mark.parametrize("kind", [GET, POST, UNARY])
@pytest.mark.parametrize("answer", [2, 1_000_000])
def test_a_call_is_answered_by_the_backend_s_name(kind: str, answer: int) -> None:
    pair = Pair(Setup(kind=kind, body=0 if kind == GET else 1024, answer=answer))
    for number in range(3):
        pair.client.call(number)

    assert pair.exchange() == [(number, "200", "b1") for number in range(3)]
    assert pair.speech.counts.requests == 3


def test_a_call_that_was_reset_is_told_by_its_code() -> None:
    pair = Pair(Setup())
    pair.client.call(7)
    pair.exchange(answer=False)

    assert pair.client.receive(frame(frames.RST_STREAM, 0, 1, (8).to_bytes(4))) == [
        (7, "rst:8", "")
    ]


def test_an_answer_to_a_reset_request_is_not_said() -> None:
    pair = Pair(Setup())
    pair.client.call(0)
    pair.exchange(answer=False)
    pair.backend.receive(frame(frames.RST_STREAM, 0, 1, (8).to_bytes(4)))
    pair.backend.answer(1)

    assert not pair.backend.out
    assert pair.speech.counts.resets == 1


def failing(status: bytes, head: bytes = b"\x88") -> bytes:
    """A trailers-only answer, as proxies give, or trailers."""
    fields = head + literal(b"grpc-status", status)
    return frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 1, fields)


def test_a_grpc_status_is_the_ending() -> None:
    pair = Pair(Setup(kind=UNARY))
    pair.client.call(0)

    assert pair.client.receive(failing(b"14")) == [(0, "grpc:14", "")]


def test_messages_on_an_open_stream_come_back_one_by_one() -> None:
    pair = Pair(Setup(kind=CHAT, body=64, streams=2))
    numbers = range(6)
    for number in numbers:
        pair.client.call(number)
    results = pair.exchange()

    assert sorted(results) == [(number, "200", "b1") for number in numbers]
    assert pair.speech.counts.requests == 2  # streams


def test_the_end_of_a_stream_is_that_of_all_messages_on_it_and_the_next_opens_anew() -> None:
    pair = Pair(Setup(kind=CHAT, body=64, streams=1))
    pair.client.call(0)
    pair.exchange()
    pair.client.call(1)
    pair.client.call(2)
    pair.client.out.clear()  # they are lost

    trailers = failing(b"14", head=b"")
    assert pair.client.receive(trailers) == [(1, "grpc:14", "b1"), (2, "grpc:14", "b1")]
    pair.client.call(3)
    assert pair.exchange() == [(3, "200", "b1")]


def test_a_deaf_backend_answers_ping_and_no_call() -> None:
    pair = Pair(Setup(kind=CHAT, body=64))
    pair.speech.deaf = True
    pair.client.call(0)
    pair.client.out += frame(frames.PING, 0, 0, bytes(8))

    assert pair.exchange() == []
    assert pair.speech.counts.pings == 1


def test_after_goaway_what_came_before_is_answered_and_what_comes_after_is_not() -> None:
    pair = Pair(Setup())
    pair.client.call(0)
    pair.exchange(answer=False)
    pair.backend.leave()
    pair.client.call(1)
    results = pair.exchange()

    assert (results, pair.client.leaving, pair.backend.over) == ([(0, "200", "b1")], True, True)


def test_no_more_calls_than_the_proxy_allows_are_open() -> None:
    calls = Client(Setup())
    calls.receive(frame(frames.SETTINGS, 0, 0, struct.pack("!HI", 3, 2)))
    calls.call(0)
    assert calls.free
    calls.call(1)

    assert not calls.free


def test_a_body_waits_for_its_window() -> None:
    calls = Client(Setup(kind=POST, body=40_000))
    calls.call(0)
    assert not calls.free
    calls.receive(frames.window_update(0, 40_000))

    assert calls.free


def test_a_backend_speaks_http1_as_well() -> None:
    backend = Http1(Speech("b2", GET, 2))
    backend.receive(b"GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nab")
    assert backend.whole == [0]
    backend.receive(b"c")
    assert backend.whole == [0, 0]
    backend.answer(0)

    assert b"x-backend: b2" in backend.out


def test_frames_of_many_answers_take_turns() -> None:
    pair = Pair(Setup(answer=100_000))
    pair.client.call(0)
    pair.client.call(1)
    pair.backend.receive(bytes(pair.client.out))
    pair.backend.window = 0
    pair.backend.answer(1)
    pair.backend.answer(3)
    pair.backend.receive(frames.window_update(0, 1 << 20))
    kinds = FrameReader().feed(bytes(pair.backend.out))
    streams = [stream for kind, _, stream, _ in kinds if kind == frames.DATA]

    assert streams[:6] == [1, 3, 1, 3, 1, 3]


def test_answers_take_a_median_and_a_tail_as_asked() -> None:
    constant, tailed = Service(0.01, 1.0), Service(0.01, 20.0)
    took = sorted(tailed.next() for _ in range(20_000))

    assert {constant.next() for _ in range(9)} == {0.01}
    assert took[10_000] == pytest.approx(0.01, rel=0.1)
    assert took[19_800] == pytest.approx(0.2, rel=0.2)


def test_calls_come_by_a_seed_at_the_rate_asked_for() -> None:
    due = arrivals(300, 20, seed=4)

    assert due == arrivals(300, 20, seed=4)
    assert due != arrivals(300, 20, seed=5)
    assert 5_600 < len(due) < 6_400  # 5 standard deviations of a Poisson of 6,000
    assert due == sorted(due)
    assert due[-1] < 20
