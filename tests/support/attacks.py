"""What hostile clients are known to send, row by row of the published corpus.

An `Attack` is bytes and how its sender behaves. `ends` are the outcomes that are right: `C11` the
connection closed with that GOAWAY code, `S7` streams reset with that code, `S` streams answered with a
4xx, `A` absorbed. `c`, closed without a word that could still be read, is right where we close on a
peer that does not read or goes on sending: the kernel then resets.
"""

from __future__ import annotations

import select
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Self

from support import rawframes as raw
from support.http_clients import PATIENCE, h2_request
from support.rawframes import RawCoder

CALM = frozenset(("C11", "c"))
"""ENHANCE_YOUR_CALM, RFC 9113 §7."""

Say = Callable[[RawCoder, int], Iterator[bytes]]


@dataclass(frozen=True)
class Attack:
    """`row` is its number in the corpus. `few` events in the tests, `many` as it was published.

    `quiet` attackers do not read until they have said all.
    """

    row: str
    name: str
    few: int
    many: int
    say: Say
    ends: frozenset[str]
    settings: bytes = field(default=raw.settings(), repr=False)
    quiet: bool = False


def ids(step: int, count: int) -> range:
    return range(1, 2 * step * count, 2 * step)


def get(coder: RawCoder, stream: int, path: bytes = b"/attacked") -> bytes:
    return coder.headers(stream, h2_request(path), end=True)


def opened(coder: RawCoder, stream: int, path: bytes = b"/attacked") -> bytes:
    return coder.headers(stream, h2_request(path, method=b"POST"))


def rapid_reset(path: bytes) -> Say:
    def say(coder: RawCoder, count: int) -> Iterator[bytes]:
        for stream in ids(1, count):
            yield get(coder, stream, path) + raw.rst(stream, 8)

    return say


def after_each_request(*wrong: Callable[[int], bytes], ended: bool = False) -> Say:
    """MadeYouReset: each request is followed by what makes *us* reset it."""

    def say(coder: RawCoder, count: int) -> Iterator[bytes]:
        for stream in ids(1, count):
            begin = get if ended else opened
            yield begin(coder, stream, b"/wait") + b"".join(one(stream) for one in wrong)

    return say


def again(frame: bytes) -> Say:
    """The same frame, over and over."""
    return lambda _, count: iter([frame]) if count == 1 else (frame for _ in range(count))


def on_a_stream(*frames: Callable[[int], bytes]) -> Say:
    """A request, and then the same frames on it over and over; each is told its number."""

    def say(coder: RawCoder, count: int) -> Iterator[bytes]:
        yield opened(coder, 1, b"/wait")
        for number in range(count):
            yield b"".join(one(number) for one in frames)

    return say


def continuations(size: int) -> Say:
    """A header block that does not end."""

    def say(coder: RawCoder, count: int) -> Iterator[bytes]:
        yield raw.frame(raw.HEADERS, raw.END_STREAM, 1, coder.block(h2_request(b"/")))
        name = b"\x00\x01a" + bytes((size - 4,)) + bytes(size - 4) if size else b""
        for _ in range(count):
            yield raw.frame(raw.CONTINUATION, 0, 1, name)

    return say


def whole_blocks_of_crumbs(coder: RawCoder, count: int) -> Iterator[bytes]:
    """Good requests, cut into as many empty pieces as are let through."""
    for stream in ids(1, count):
        head = raw.frame(raw.HEADERS, raw.END_STREAM, stream, b"")
        block = coder.block(h2_request(b"/attacked"))
        crumbs = raw.frame(raw.CONTINUATION, 0, stream) * 60
        yield head + crumbs + raw.frame(raw.CONTINUATION, raw.END_HEADERS, stream, block)


def request_block(stream: int, more: bytes, coder: RawCoder) -> bytes:
    """A request whose fields end with the raw octets `more`."""
    block = coder.block(h2_request(b"/attacked")) + more
    pieces = [block[at : at + 16_384] for at in range(0, len(block), 16_384)]
    frames = [raw.frame(raw.HEADERS, raw.END_STREAM, stream, pieces[0])]
    frames += [raw.frame(raw.CONTINUATION, 0, stream, piece) for piece in pieces[1:]]
    last = bytearray(frames[-1])
    last[4] |= raw.END_HEADERS
    return b"".join((*frames[:-1], bytes(last)))


def literal(name: bytes, value: bytes) -> bytes:
    """A literal that goes into the table, of lengths below 127 and 4,096 + 127."""
    size = len(value)
    if size < 127:
        length = bytes((size,))
    else:
        rest = size - 127
        length = bytes((127, rest & 0x7F | 0x80, rest >> 7))
    return b"\x40" + bytes((len(name),)) + name + length + value


NEWEST = b"\xbe"  # index 62 in one octet, RFC 7541 §6.1


def references(name: bytes, value: bytes, each: int) -> Say:
    """One entry for the table, then requests that name it over and over, an octet a time."""

    def say(_: RawCoder, count: int) -> Iterator[bytes]:
        # Nothing else may go into the table, or 62 would be another one.
        fixed = b"\x82\x86\x84" + b"\x01\x07example"  # GET, http, /, :authority
        for stream in ids(1, count):
            entry = literal(name, value) if stream == 1 else b""
            block = fixed + entry + NEWEST * each
            pieces = [block[at : at + 16_384] for at in range(0, len(block), 16_384)]
            kinds = chain([raw.HEADERS], iter(lambda: raw.CONTINUATION, None))
            for number, (kind, piece) in enumerate(zip(kinds, pieces, strict=False), 1):
                flags = raw.END_HEADERS if number == len(pieces) else 0
                flags |= raw.END_STREAM if number == 1 else 0
                yield raw.frame(kind, flags, stream, piece)

    return say


def endless_integer(coder: RawCoder, count: int) -> Iterator[bytes]:
    """20 frames of 0xFF: an integer that goes on and on (CVE-2026-59980)."""
    yield raw.frame(raw.HEADERS, raw.END_STREAM, 1, coder.block(h2_request(b"/")) + b"\x7f")
    for number in range(count):
        last = raw.END_HEADERS if number == count - 1 else 0
        yield raw.frame(raw.CONTINUATION, last, 1, b"\xff" * 16_000)


def empty_names(coder: RawCoder, count: int) -> Iterator[bytes]:
    for stream in ids(1, count):
        yield request_block(stream, b"\x00\x00\x00" * 20, coder)


def malformed(coder: RawCoder, count: int) -> Iterator[bytes]:
    for stream in ids(1, count):
        yield coder.headers(stream, h2_request(b"/bad")[1:], end=True)


def many_streams(coder: RawCoder, count: int) -> Iterator[bytes]:
    for stream in ids(1, count):
        yield opened(coder, stream, b"/wait")


def late_data(coder: RawCoder, count: int) -> Iterator[bytes]:
    """Bodies that go on although the answer is there and the stream was let go."""
    for stream in ids(1, count):
        yield opened(coder, stream, b"/none/") + raw.data(stream, b"x" * 100) * 5


def after_the_end(coder: RawCoder, count: int) -> Iterator[bytes]:
    """A connection error, and then requests behind it (CVE-2026-27135)."""
    yield raw.window_update(0, 0)
    for stream in ids(1, count):
        yield get(coder, stream, b"/smuggled")


def slow_read(path: bytes) -> Say:
    """Large answers that nobody wants to have."""

    def say(coder: RawCoder, count: int) -> Iterator[bytes]:
        for stream in ids(1, count):
            yield get(coder, stream, path)

    return say


def dribble(coder: RawCoder, count: int) -> Iterator[bytes]:
    """A large answer, taken octet by octet."""
    yield get(coder, 1, b"/bytes?size=1000000")
    for _ in range(count):
        yield raw.window_update(1, 1)


def churn(setting: int, *values: int) -> Say:
    def say(_: RawCoder, count: int) -> Iterator[bytes]:
        for number in range(count):
            yield raw.settings({setting: values[number % len(values)]})

    return say


def unknown_frames(_: RawCoder, count: int) -> Iterator[bytes]:
    for number in range(count):
        yield raw.frame(0x0A + number % 6, 0, 0, b"junk")


PING = raw.ping(b"attacked")
NO_WINDOW = raw.settings({raw.INITIAL_WINDOW_SIZE: 0})
ONE_BYTE = raw.settings({raw.INITIAL_WINDOW_SIZE: 1})
BIG = b"/bytes?size=8000000"

SELF_DEPENDENT = b"\x00\x00\x00\x01\x10"  # PRIORITY of stream 1 on stream 1


def _priority(number: int) -> bytes:
    return raw.frame(raw.PRIORITY, 0, 2 * number + 3, b"\x00\x00\x00\x01\x10")


ATTACKS = (
    Attack("1", "rapid reset", 3000, 5000, rapid_reset(b"/attacked"), CALM),
    Attack("2", "rapid reset, slow upstream", 3000, 3000, rapid_reset(b"/wait"), CALM),
    Attack(
        *("3", "made you reset: WINDOW_UPDATE 0", 3000, 3000),
        after_each_request(lambda stream: raw.window_update(stream, 0)),
        CALM,
    ),
    Attack(
        *("3", "made you reset: window overflow", 3000, 3000),
        after_each_request(lambda stream: raw.window_update(stream, 2**31 - 1)),
        CALM,
    ),
    Attack(
        *("3", "made you reset: DATA after END_STREAM", 3000, 3000),
        after_each_request(lambda stream: raw.data(stream, b"late"), ended=True),
        CALM,
    ),
    Attack(
        *("3", "made you reset: HEADERS after END_STREAM", 3000, 3000),
        after_each_request(
            lambda stream: raw.frame(raw.HEADERS, raw.END_HEADERS, stream, b"\x82"), ended=True
        ),
        CALM,
    ),
    Attack(
        *("3", "made you reset: PRIORITY on itself", 1, 3000),
        after_each_request(
            lambda stream: raw.frame(raw.PRIORITY, 0, stream, stream.to_bytes(4) + b"\x10")
        ),
        frozenset(("C1", "c")),
    ),
    Attack(
        *("3", "made you reset: WINDOW_UPDATE length", 1, 3000),
        after_each_request(lambda stream: raw.frame(raw.WINDOW_UPDATE, 0, stream, b"123")),
        frozenset(("C6", "c")),
    ),
    Attack("4", "malformed requests", 3000, 5000, malformed, CALM),
    Attack("5", "CONTINUATION flood", 200, 5000, continuations(100), CALM),
    Attack("6", "CONTINUATION flood, empty", 200, 20_000, continuations(0), CALM),
    Attack("6", "whole blocks of empty CONTINUATION", 1000, 5000, whole_blocks_of_crumbs, CALM),
    Attack("7", "PING flood", 20_000, 20_000, again(PING), CALM),
    Attack("7", "PING flood, unread", 20_000, 200_000, again(PING), CALM, quiet=True),
    Attack(
        "7",
        "PING answers nobody asked for",
        20_000,
        20_000,
        again(raw.ping(b"attacked", ack=True)),
        CALM,
    ),
    Attack("8", "SETTINGS flood", 20_000, 20_000, again(raw.settings()), CALM),
    Attack("8", "SETTINGS flood, unread", 20_000, 200_000, again(raw.settings()), CALM, quiet=True),
    Attack(
        *("8", "SETTINGS flood: table size", 20_000, 20_000),
        churn(raw.HEADER_TABLE_SIZE, 0, 4096),
        CALM,
    ),
    Attack(
        *("8", "SETTINGS flood: windows", 20_000, 20_000),
        churn(raw.INITIAL_WINDOW_SIZE, 0, 65_535),
        CALM,
    ),
    Attack(
        "8", "SETTINGS acknowledged over and over", 40_000, 200_000, again(raw.settings_ack()), CALM
    ),
    Attack(
        *("10", "empty DATA", 20_000, 20_000),
        on_a_stream(lambda _: raw.data(1, b"")),
        CALM,
    ),
    Attack(
        *("10", "empty DATA, padded", 20_000, 20_000),
        on_a_stream(lambda _: raw.data(1, b"", padding=0)),
        CALM | {"S3"},
    ),
    Attack(
        *("11", "PRIORITY churn", 40_000, 40_000),
        lambda _, count: (_priority(number) for number in range(count)),
        CALM,
    ),
    Attack(
        *("12", "WINDOW_UPDATE flood", 40_000, 40_000),
        lambda _, count: (raw.window_update(0, 1) for _ in range(count)),
        CALM,
    ),
    Attack("13", "data dribble", 2000, 20_000, dribble, CALM | {"A"}, settings=ONE_BYTE),
    Attack("16", "empty field names", 200, 200, empty_names, frozenset(("S1",))),
    Attack("17", "HPACK bomb", 5, 50, references(b"x", b"v" * 4000, 4000), CALM),
    Attack("18", "HTTP/2 bomb: tiny fields", 6, 60, references(b"a", b"", 15_000), CALM),
    Attack("18", "HTTP/2 bomb: cookie crumbs", 6, 30, references(b"cookie", b"", 8000), CALM),
    Attack(
        "18",
        "HTTP/2 bomb: fields above the limit",
        3000,
        5000,
        references(b"a", b"", 1000),
        CALM | {"S"},
        settings=NO_WINDOW,
    ),
    Attack("19", "Host bomb", 6, 30, references(b"host", b"example", 8000), CALM),
    Attack(
        "20", "HPACK integer without end", 2, 20, endless_integer, frozenset(("C9", "C11", "c"))
    ),
    Attack("21", "too many streams", 1500, 1500, many_streams, frozenset(("S7",))),
    Attack("22", "DATA after the response", 20, 1000, late_data, frozenset(("A", "S", "S0"))),
    Attack("23", "unknown frames", 40_000, 40_000, unknown_frames, CALM),
    Attack("24", "frames after a fatal error", 100, 5000, after_the_end, frozenset(("C1", "c"))),
    Attack("24", "GOAWAY over and over", 40_000, 200_000, again(raw.goaway(0)), CALM),
)
"""9 is 3 and 4 again; 14 and 15 hold and do not flood (`HOLDS`), 25 is a backend's, 26 is a table of

its own (`test_bad_input*`).
"""

HOLDS = (
    Attack(
        "14",
        "internal buffering",
        6,
        40,
        slow_read(BIG),
        frozenset("A"),
        settings=raw.settings({raw.INITIAL_WINDOW_SIZE: 2**31 - 1}),
        quiet=True,
    ),
    Attack("15", "slow read", 10, 90, slow_read(BIG), frozenset("A"), settings=NO_WINDOW),
)


@dataclass
class Seen:
    """What an attacker was told."""

    resets: Counter[int] = field(default_factory=Counter)
    statuses: Counter[bytes] = field(default_factory=Counter)
    goaway: int | None = None
    ended: bool = False
    answered: bool = False
    """A PING behind all of it came back."""

    @property
    def outcome(self) -> str:
        if self.goaway:
            return f"C{self.goaway}"
        if self.ended:
            return "c"
        if self.resets:
            return f"S{self.resets.most_common(1)[0][0]}"
        refused = sum(count for status, count in self.statuses.items() if status[:1] == b"4")
        return "S" if refused else "A"


LAST_PING = b"survived"
_PIECE = 1 << 18


class Attacker:
    """One connection that says all of an attack as fast as it is taken. `hold` leaves it open."""

    def __init__(self, attack: Attack, port: int, count: int) -> None:
        self.attack = attack
        self.seen = Seen()
        coder = RawCoder()
        said = raw.PREFACE + attack.settings + b"".join(attack.say(coder, count))
        self._unsaid = memoryview(said + raw.ping(LAST_PING))
        self._heard = bytearray()
        self._coder = RawCoder()
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def run(self) -> Seen:
        """Until it is thrown out, or has said all and was told so."""
        self.sock.setblocking(False)
        while not (self.seen.ended or (self.seen.answered and not self._unsaid)):
            reads = not (self.attack.quiet and self._unsaid)
            can_read, can_write, _ = select.select(
                [self.sock] if reads else [], [self.sock] if self._unsaid else [], [], PATIENCE
            )
            if not (can_read or can_write):
                raise AssertionError(f"{self.attack.name}: nothing moves, {self.seen}")
            if can_write:
                self._send()
            if can_read:
                self._read()
        return self.seen

    def send_only(self) -> None:
        """For attacks that hold: all of it, unread."""
        self.sock.setblocking(True)
        self.sock.sendall(self._unsaid)

    def _send(self) -> None:
        try:
            self._unsaid = self._unsaid[self.sock.send(self._unsaid[:_PIECE]) :]
        except BlockingIOError:
            return
        except OSError:
            self._unsaid = memoryview(b"")  # thrown out; what was said before it may be there

    def _read(self) -> None:
        try:
            data = self.sock.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._heard += data
        self.seen.ended |= not data
        at = 0
        while len(self._heard) - at >= 9:
            size = int.from_bytes(self._heard[at : at + 3], "big")
            if len(self._heard) - at < 9 + size:
                break
            [frame] = raw.parse(bytes(self._heard[at : at + 9 + size]))
            at += 9 + size
            self._note(frame)
        del self._heard[:at]

    def _note(self, frame: raw.Frame) -> None:
        if frame.kind == raw.GOAWAY:
            self.seen.goaway = frame.code
        elif frame.kind == raw.RST_STREAM:
            self.seen.resets[frame.code] += 1
        elif frame.kind == raw.HEADERS:
            self.seen.statuses[dict(self._coder.fields(frame.payload)).get(b":status", b"")] += 1
        elif frame.kind == raw.PING and frame.payload == LAST_PING:
            self.seen.answered = True
