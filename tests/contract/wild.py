"""What a peer may send, sensible and not: Hypothesis strategies for steps, and their bytes.

A step says what is meant (`what`) and leaves the numbers to `pick` and `size`; the writer turns it
into a frame with what it knows of the connection. So most sequences get far before something breaks.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from hypothesis import strategies as st

from contract.wild_blocks import REQUESTS, RESPONSES, TRAILERS, block, some_block
from stickyproxy.model import Headers
from support import rawframes as raw

PRIORITY_FLAG = 0x20


class Step(NamedTuple):
    """`pick` chooses a stream, `size` is any other number, `block` is HPACK for heads."""

    what: str
    pick: int
    size: int
    flag: bool
    block: bytes


HEADS = ("head", "head", "head", "continued")
SENSIBLE = ("data", "data", "full", "padded", "trailers", "rst", "update")
LATE = ("data", "padded", "trailers", "rst", "update")
CONNECTION = ("settings", "settings", "ping", "pong", "update 0", "updates", "unknown", "goaway")
ORDINARY = (*HEADS, *SENSIBLE, *CONNECTION, "late", "late")
WILD = (
    *("again", "again", "again", "update odd", "update odd", "settings odd", "priority"),
    *("any stream", "any frame", "priority odd", "bytes"),
)
CALLS = (
    "open",
    "open",
    "answer",
    "answer",
    "send",
    "finish",
    "reset",
    "grant",
    "our ping",
    "our goaway",
)


def _step(what: str, number: int, heads: list[Headers]) -> Step:
    chance = Random(number)
    size = chance.randrange(300) if number & 1 else number
    return Step(what, number % 10, size, number % 7 > 4, some_block(chance, heads))


def steps(kinds: tuple[str, ...], *, server: bool) -> st.SearchStrategy[list[Step]]:
    """What a server says, or a client. Short, to which failures shrink, and long, to get somewhere.

    A step is drawn as one number that everything follows from: drawing costs more than running.
    """
    heads = RESPONSES if server else REQUESTS
    numbers = st.integers(0, 2**32 - 1)
    step = st.builds(_step, st.sampled_from(kinds), numbers, st.just(heads))
    return st.one_of(st.lists(step, max_size=9), st.lists(step, min_size=20, max_size=80))


HARMLESS = raw.ping(b"harmless")


class Writer:
    """The bytes of a peer. In `open` are the streams it may send on, true once its head was sent.

    A client opens its own; for a server, `open` is filled by whoever sees its client open them.
    """

    def __init__(self, *, server: bool) -> None:
        self.server = server
        self.open: dict[int, bool] = {}
        self.next = 1
        self._made: dict[str, Callable[[Step, int], bytes]] = {
            "data": lambda s, i: raw.data(i, b"d" * ((0, 1, 5, 5000)[s.size % 4]), end=s.flag),
            "full": lambda s, i: raw.data(i, bytes(16_384 - s.pick), end=s.flag),
            "padded": lambda s, i: raw.data(i, b"dd", end=s.flag, padding=s.size % 256),
            "trailers": lambda s, i: raw.frame(raw.HEADERS, 5, i, block(TRAILERS[s.pick % 6])),
            "rst": lambda s, i: raw.rst(i, s.size % 14),
            "update": lambda s, i: raw.window_update(i, 1 + s.size % 70_000),
            "settings": lambda s, _: raw.settings(_good_settings(s)),
            "ping": lambda s, _: raw.ping(b"%08d" % (s.size % 10**8)),
            "pong": lambda s, _: raw.ping(b"%08d" % (s.size % 10**8), ack=True),
            "updates": lambda s, _: raw.window_update(0, 1) * (s.size % 20),
            "update 0": lambda s, _: raw.window_update(0, 1 + s.size % 70_000),
            "unknown": lambda s, i: raw.frame(0x0B + s.size % 200, s.size % 256, i, b"junk"),
            "priority": lambda s, i: raw.frame(raw.PRIORITY, 0, i, bytes((0, 0, 0, 0, s.pick))),
            "goaway": lambda s, _: raw.goaway(s.size % 9, s.size % 14, b"bye"[: s.size % 4]),
            "settings odd": _odd_settings,
            "update odd": lambda s, i: raw.window_update(i * s.flag, _odd_increment(s)),
            "any stream": lambda s, _: raw.frame(s.size % 11, s.size >> 8 & 0x2D, s.pick, s.block),
            "any frame": lambda s, i: raw.frame(s.size % 11, s.size >> 8 & 0xFF, i, s.block[:9]),
            "priority odd": lambda s, i: raw.frame(raw.PRIORITY, 0, i, s.block[: s.pick % 7]),
            "bytes": lambda s, _: s.size.to_bytes(4, "big") + s.block[:12],
        }

    def write(self, step: Step) -> bytes:
        """The frames of one step, whole. What makes no sense at its turn is a PING."""
        if step.what in ("head", "continued"):
            return self._head(step)
        if step.what == "again":
            return self._block(step, 1 + 2 * (step.size % 4), cut=False)
        if step.what in (*SENSIBLE, "late"):
            return self._on_stream(step)
        if step.what == "goaway" and step.pick:
            return HARMLESS  # one in ten: it ends too much
        return self._made[step.what](step, step.pick)

    def _on_stream(self, step: Step) -> bytes:
        late = step.what == "late"
        ready = [stream for stream, answered in self.open.items() if answered]
        streams = list(range(1, self.next, 2)) if late else ready
        if not streams:
            return HARMLESS
        stream = streams[step.pick % len(streams)]
        if late:
            return self._made[LATE[step.size % len(LATE)]](step, stream)
        if step.what in ("trailers", "rst") or (step.flag and step.what != "update"):
            del self.open[stream]
        return self._made[step.what](step, stream)

    def _head(self, step: Step) -> bytes:
        waiting = [stream for stream, answered in self.open.items() if not answered]
        if not self.server:
            stream, self.next = self.next, self.next + 2 + 2 * (step.pick == 9)
        elif waiting:
            stream = waiting[step.pick % len(waiting)]
        else:
            return HARMLESS
        self.open[stream] = True
        if step.flag:
            del self.open[stream]
        return self._block(step, stream, cut=step.what == "continued")

    def _block(self, step: Step, stream: int, *, cut: bool) -> bytes:
        start = bytes((0, 0, 0, 0, 7)) if step.pick == 8 else b""
        flags = raw.END_STREAM * step.flag | PRIORITY_FLAG * bool(start)
        if not cut:
            return raw.frame(raw.HEADERS, flags | raw.END_HEADERS, stream, start + step.block)
        size = step.size % (len(step.block) + 1)
        first = raw.frame(raw.HEADERS, flags, stream, start + step.block[:size])
        ends = raw.END_HEADERS if step.size % 16 else 0
        return first + raw.frame(raw.CONTINUATION, ends, stream, step.block[size:])


def _good_settings(step: Step) -> dict[int, int]:
    values = {
        raw.HEADER_TABLE_SIZE: (0, 100, 4096, step.size % 9000)[step.size % 4],
        raw.INITIAL_WINDOW_SIZE: step.size % 100_000,
        raw.MAX_CONCURRENT_STREAMS: step.size % 5,
        raw.MAX_FRAME_SIZE: 16_384 + step.size % 1000,
        raw.MAX_HEADER_LIST_SIZE: step.size,
        0x99: step.size,
    }
    chosen = list(values)[max(0, step.pick - 4) :][: 1 + step.flag]
    return {name: values[name] for name in chosen}


def _odd_settings(step: Step, stream: int) -> bytes:
    value = (0, 1, 2, 2**31 - 1, 2**31, 2**24 - 1, 2**24, step.size)[step.size % 8]
    if step.pick == 9:
        return raw.frame(raw.SETTINGS, step.flag, stream * step.flag, step.block[: step.size % 13])
    return raw.settings({step.pick: value})


def _odd_increment(step: Step) -> int:
    return (0, 2**31 - 1, 2**31, 2**31 - 65_536, 1)[step.size % 5]
