"""What a hostile backend can do with the corpus of `attacks`, and what only a backend can do.

A `Trick` answers each request with bytes. `ends` are the outcomes that are right for the *link*, as in
`attacks`; its client is told a 5xx or a reset, and its connection lives.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field

from support import rawframes as raw
from support.accepting import Accepting
from support.attacks import CALM, NEWEST, SELF_DEPENDENT, literal
from support.http_clients import PATIENCE
from support.rawframes import RawCoder

Answer = Callable[[RawCoder, int, int], Iterator[bytes]]
"""From the stream and a count to what is said on it."""

OK = [(b":status", b"200")]
LIVES = frozenset("A")


@dataclass(frozen=True)
class Trick:
    row: str
    name: str
    few: int
    many: int
    answer: Answer
    ends: frozenset[str]
    settings: bytes = field(default=raw.settings(), repr=False)


def flood(*frames: Callable[[int, int], bytes], head: bool = False) -> Answer:
    """The same frames over and over; each is told the stream and its number."""

    def answer(coder: RawCoder, stream: int, count: int) -> Iterator[bytes]:
        if head:
            yield coder.headers(stream, OK)
        for number in range(count):
            yield b"".join(one(stream, number) for one in frames)

    return answer


def endless_head(piece: bytes) -> Answer:
    def answer(coder: RawCoder, stream: int, count: int) -> Iterator[bytes]:
        yield raw.frame(raw.HEADERS, 0, stream, coder.block(OK))
        for _ in range(count):
            yield raw.frame(raw.CONTINUATION, 0, stream, piece)

    return answer


def informational(coder: RawCoder, stream: int, count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield coder.headers(stream, [(b":status", b"103"), (b"link", b"</a>; rel=preload")])


def bomb(name: bytes, value: bytes, each: int) -> Answer:
    def answer(_: RawCoder, stream: int, count: int) -> Iterator[bytes]:
        block = b"\x88" + literal(name, value) + NEWEST * each
        pieces = [block[at : at + 16_384] for at in range(0, len(block), 16_384)]
        for number, piece in enumerate(pieces):
            last = raw.END_HEADERS if number == len(pieces) - 1 else 0
            yield raw.frame(raw.CONTINUATION if number else raw.HEADERS, last, stream, piece)
        yield raw.data(stream, b"x" * count, end=True)

    return answer


def frames(*said: Callable[[RawCoder, int], bytes]) -> Answer:
    return lambda coder, stream, _: (one(coder, stream) for one in said)


def _head(coder: RawCoder, stream: int) -> bytes:
    return coder.headers(stream, OK)


PING = raw.ping(b"attacked")

TRICKS = (
    Trick("5", "CONTINUATION flood", 200, 5000, endless_head(b"\x00\x01a\x60" + bytes(96)), CALM),
    Trick("6", "CONTINUATION flood, empty", 200, 20_000, endless_head(b""), CALM),
    Trick("7", "PING flood", 20_000, 200_000, flood(lambda *_: PING), CALM),
    Trick("8", "SETTINGS flood", 20_000, 200_000, flood(lambda *_: raw.settings()), CALM),
    Trick(
        *("8", "SETTINGS flood: windows", 20_000, 100_000),
        flood(lambda _, n: raw.settings({raw.INITIAL_WINDOW_SIZE: n % 2 * 65_535})),
        CALM,
    ),
    Trick(
        "8",
        "SETTINGS acknowledged over and over",
        40_000,
        200_000,
        flood(lambda *_: raw.settings_ack()),
        CALM,
    ),
    Trick(
        "10", "empty DATA", 20_000, 100_000, flood(lambda s, _: raw.data(s, b""), head=True), CALM
    ),
    Trick(
        *("11", "PRIORITY churn", 40_000, 100_000),
        flood(lambda _, n: raw.frame(raw.PRIORITY, 0, 2 * n + 3, SELF_DEPENDENT)),
        CALM,
    ),
    Trick(
        "12",
        "WINDOW_UPDATE flood",
        40_000,
        100_000,
        flood(lambda *_: raw.window_update(0, 1)),
        CALM,
    ),
    Trick(
        "23",
        "unknown frames",
        40_000,
        100_000,
        flood(lambda *_: raw.frame(0x0B, 0, 0, b"junk")),
        CALM,
    ),
    Trick(
        "24", "GOAWAY over and over", 40_000, 100_000, flood(lambda *_: raw.goaway(2**31 - 1)), CALM
    ),
    Trick("", "informational heads without end", 3000, 20_000, informational, CALM),
    Trick("17", "HPACK bomb", 10, 10, bomb(b"x", b"v" * 4000, 4000), CALM),
    Trick("18", "HTTP/2 bomb: tiny fields", 10, 10, bomb(b"a", b"", 15_000), CALM),
    Trick("18", "HTTP/2 bomb: cookie crumbs", 10, 10, bomb(b"set-cookie", b"", 8000), CALM),
    Trick("18", "fields above the limit", 10, 10, bomb(b"a", b"", 1000), LIVES),
    Trick(
        "16",
        "empty field names",
        1,
        1,
        frames(
            lambda _, s: raw.frame(raw.HEADERS, raw.END_HEADERS, s, b"\x88" + b"\x00\x00\x00" * 20)
        ),
        LIVES,
    ),
    Trick(
        "20",
        "HPACK integer without end",
        1,
        1,
        frames(lambda _, s: raw.frame(raw.HEADERS, raw.END_HEADERS, s, b"\x7f" + b"\xff" * 16_000)),
        frozenset(("C9",)),
    ),
    Trick(
        "25",
        "MAX_FRAME_SIZE 0",
        1,
        1,
        frames(_head),
        frozenset(("C1",)),
        settings=raw.settings({raw.MAX_FRAME_SIZE: 0}),
    ),
    Trick("3", "WINDOW_UPDATE 0", 1, 1, frames(lambda _, s: raw.window_update(s, 0)), LIVES),
    Trick(
        "3", "window overflow", 1, 1, frames(lambda _, s: raw.window_update(s, 2**31 - 1)), LIVES
    ),
    Trick(
        "",
        "PUSH_PROMISE",
        1,
        1,
        frames(
            lambda c, s: raw.frame(
                raw.PUSH_PROMISE, raw.END_HEADERS, s, bytes((0, 0, 0, 2)) + c.block(OK)
            )
        ),
        frozenset(("C1",)),
    ),
    Trick(
        "",
        "more DATA than the window",
        1,
        1,
        # Its end, because whoever passes it on as fast as it comes never sees the window overrun.
        frames(
            _head,
            lambda _, s: raw.data(s, bytes(16_384)) * 100,
            lambda _, s: raw.data(s, b"", end=True),
        ),
        frozenset(("A", "C3", "C11")),
    ),
    Trick(
        "22",
        "DATA after the end",
        1,
        1,
        frames(lambda c, s: c.headers(s, OK, end=True), lambda _, s: raw.data(s, b"late") * 5),
        frozenset(("C5", "A")),
    ),
    Trick("", "DATA before a head", 1, 1, frames(lambda _, s: raw.data(s, b"early")), LIVES),
    Trick(
        "",
        "a stream nobody opened",
        1,
        1,
        frames(lambda c, s: c.headers(s + 100, OK)),
        frozenset(("C1",)),
    ),
    Trick(
        "", "no HTTP/2 at all", 1, 1, frames(lambda *_: b"\x00" * 100), frozenset(("C1", "C6", "c"))
    ),
    Trick("", "every request refused", 1, 1, frames(lambda _, s: raw.rst(s, 7)), LIVES),
)
"""Those without a row are not in the corpus: only a backend can."""


class TrickyBackend(Accepting):
    """Plays its trick on every request that comes; `requests` counts them.

    `codes` has one for each connection that is over: of the GOAWAY it was told, -1 without one.
    """

    def __init__(self, trick: Trick, count: int) -> None:
        self.trick = trick
        self.count = count
        self.codes: list[int] = []
        self.requests = 0
        self.changed = threading.Condition()
        super().__init__()

    def outcome(self) -> str:
        """How the link ended; `A` while it lives."""
        if not self.codes:
            return "A"
        return "c" if self.codes[0] < 0 else f"C{self.codes[0]}"

    def serve(self, sock: socket.socket, number: int) -> None:
        del number
        sock.settimeout(PATIENCE)
        talk = _Talk(self, sock)
        with sock, suppress(OSError):
            talk.run()
        with self.changed:
            self.codes.append(talk.goaway)
            self.changed.notify_all()


class _Talk:
    def __init__(self, backend: TrickyBackend, sock: socket.socket) -> None:
        self.goaway = -1
        self._backend = backend
        self._sock = sock
        self._coder = RawCoder()
        self._heard = bytearray()

    def run(self) -> None:
        self._sock.sendall(self._backend.trick.settings)
        while data := self._sock.recv(1 << 16):
            self._heard += data
            self._heard = self._heard.removeprefix(raw.PREFACE)
            while len(self._heard) >= 9 and not raw.PREFACE.startswith(self._heard):
                size = 9 + int.from_bytes(self._heard[:3], "big")
                if len(self._heard) < size:
                    break
                [frame] = raw.parse(bytes(self._heard[:size]))
                del self._heard[:size]
                self._on(frame)

    def _on(self, frame: raw.Frame) -> None:
        if frame.kind == raw.GOAWAY:
            self.goaway = frame.code
        elif frame.kind == raw.SETTINGS and not frame.flags & raw.ACK:
            self._sock.sendall(raw.settings_ack())
        elif frame.kind == raw.HEADERS:
            self._backend.requests += 1
            said = self._backend.trick.answer(self._coder, frame.stream, self._backend.count)
            with suppress(OSError):  # thrown out in the middle; why, lies there to be read
                self._sock.sendall(b"".join(said))


@contextmanager
def tricky_backend(trick: Trick, count: int) -> Iterator[TrickyBackend]:
    with closing(TrickyBackend(trick, count)) as backend:
        yield backend
