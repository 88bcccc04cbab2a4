"""Codecs with one deliberate fault each: the contract must notice every one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stickyproxy.codec.api import Codec
from stickyproxy.events import (
    DataReceived,
    Event,
    GoawayReceived,
    HeadReceived,
    InformationalReceived,
    PongReceived,
    RequestRejected,
    StreamReset,
    TrailersReceived,
)
from stickyproxy.model import Headers


class Mutant:
    """Behaves as the codec it wraps; a subclass spoils one thing."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)

    def feed(self, data: bytes) -> Sequence[Event]:
        return [told for event in self._codec.feed(data) for told in self.spoil(event)]

    def spoil(self, event: Event) -> list[Event]:
        return [event]


class CreditLost(Mutant):
    def grant(self, stream_id: int, credit: int) -> None:
        self._codec.grant(stream_id, credit - credit // 8)


class CreditTwice(Mutant):
    def spoil(self, event: Event) -> list[Event]:
        if isinstance(event, DataReceived):
            self._codec.grant(event.stream_id, event.credit)
        return [event]


class PaddingIgnored(Mutant):
    def spoil(self, event: Event) -> list[Event]:
        if isinstance(event, DataReceived):
            event.credit = len(event.data)
        return [event]


class EndInferred(Mutant):
    def spoil(self, event: Event) -> list[Event]:
        if isinstance(event, HeadReceived) and (b"content-length", b"0") in event.headers:
            event.end_stream = True
        return [event]


class PeersCodeChanged(Mutant):
    def spoil(self, event: Event) -> list[Event]:
        if isinstance(event, StreamReset) and event.by_peer:
            event.code = 2
        return [event]


class OurCodeChanged(Mutant):
    def reset(self, stream_id: int, code: int) -> None:
        self._codec.reset(stream_id, code and 8)


class ResetTakenForTheEnd(Mutant):
    def spoil(self, event: Event) -> list[Event]:
        if isinstance(event, StreamReset) and event.by_peer:
            return [DataReceived(event.stream_id, b"", 0, end_stream=True)]
        return [event]


class RefusalForgotten(Mutant):
    def spoil(self, event: Event) -> list[Event]:
        if isinstance(event, StreamReset):
            event.unprocessed = False
        return [event]


class TrailersCutInTwo(Mutant):
    def __init__(self, codec: Codec) -> None:
        super().__init__(codec)
        self._begun: set[int] = set()

    def send_headers(self, stream_id: int, headers: Headers, end_stream: bool) -> None:
        if end_stream and stream_id in self._begun:
            self._codec.send_data(stream_id, b"", True)
            return
        self._begun.add(stream_id)
        self._codec.send_headers(stream_id, headers, end_stream)


class TrailersOnlyCutInTwo(Mutant):
    def send_headers(self, stream_id: int, headers: Headers, end_stream: bool) -> None:
        self._codec.send_headers(stream_id, headers, False)
        if end_stream:
            self._codec.send_data(stream_id, b"", True)


class GoawayKillsAll(Mutant):
    def __init__(self, codec: Codec) -> None:
        super().__init__(codec)
        self._open: list[int] = []

    def open_stream(self, headers: Headers, end_stream: bool) -> int:
        stream = self._codec.open_stream(headers, end_stream)
        self._open.append(stream)
        return stream

    def spoil(self, event: Event) -> list[Event]:
        if isinstance(event, GoawayReceived):
            return [event, *(StreamReset(s, 7, unprocessed=True) for s in self._open)]
        return [event]


class GoawayIgnored(Mutant):
    def spoil(self, event: Event) -> list[Event]:
        unprocessed = isinstance(event, StreamReset) and event.unprocessed
        return [] if unprocessed else [event]


class DeafAfterOurGoaway(Mutant):
    """What stock h2 does (python-hyper/h2 #1181)."""

    _deaf = False

    def goaway(self, last_id: int, code: int) -> None:
        self._codec.goaway(last_id, code)
        self._deaf = True

    def send_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        if not self._deaf:
            self._codec.send_data(stream_id, data, end_stream)


class CapacityBeforeSettings(Mutant):
    def capacity(self) -> int:
        return max(1, self._codec.capacity())


class WindowNeverNegative(Mutant):
    def window(self, stream_id: int) -> int:
        return max(1, self._codec.window(stream_id))


class InformationalTakenForTheHead(Mutant):
    def spoil(self, event: Event) -> list[Event]:
        if isinstance(event, InformationalReceived):
            return [HeadReceived(event.stream_id, event.headers, end_stream=False)]
        return [event]


class TrailersDropped(Mutant):
    def spoil(self, event: Event) -> list[Event]:
        if isinstance(event, TrailersReceived):
            return [DataReceived(event.stream_id, b"", 0, end_stream=True)]
        return [event]


class FieldsSorted(Mutant):
    def spoil(self, event: Event) -> list[Event]:
        if isinstance(event, HeadReceived):
            event.headers = sorted(event.headers)
        return [event]


class OversizeNotTold(Mutant):
    def spoil(self, event: Event) -> list[Event]:
        if isinstance(event, HeadReceived):
            event.fault = None
        return [event]


class RejectedAnyway(Mutant):
    def spoil(self, event: Event) -> list[Event]:
        if isinstance(event, RequestRejected):
            return [HeadReceived(event.stream_id, event.headers, end_stream=True)]
        return [event]


class PongSwallowed(Mutant):
    def spoil(self, event: Event) -> list[Event]:
        return [] if isinstance(event, PongReceived) else [event]


class OutputLosesPings(Mutant):
    def take_output(self) -> bytes:
        output = self._codec.take_output()
        return b"" if output[3:5] == b"\x06\x01" else output


MUTANTS: list[type[Mutant]] = Mutant.__subclasses__()
