"""The fast codec against the reference: any frames, however broken, however cut, the same verdict.

Both are fed frame by frame with an application's calls between, and after each they must have told
the same events, sent frames that mean the same, and stand the same: windows, capacity, what the peer
cost. Where they may differ is `DEVIATIONS`, each with its section; a connection is over for us at the
first of them, for what follows is judged by different rules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from contract.harness import Factory
from contract.test_contract_splits import CUTS, pieces
from contract.twins import Seen, Talk, Twin
from contract.wild import CALLS, ORDINARY, WILD, Step, Writer, steps
from stickyproxy.codec.fast import FastCodec
from stickyproxy.codec.reference import ReferenceCodec
from stickyproxy.errors import H2Code
from support import rawframes as raw

CODECS: tuple[Factory, Factory] = (ReferenceCodec, FastCodec)


class Case(NamedTuple):
    """A frame over which they differ: the codes of connection errors, None where there was none."""

    frame: raw.Frame
    reference: int | None
    fast: int | None
    in_block: bool
    too_long: bool

    @property
    def both_fail(self) -> bool:
        return self.reference is not None and self.fast is not None


class Deviation(NamedTuple):
    section: str
    why: str
    fits: Callable[[Case], bool]


ALT_SVC = 0x0A
LARGEST_FRAME = 16_384  # RFC 9113 §4.2; neither codec announces more

DEVIATIONS = (
    Deviation(
        "RFC 9113 §5.5",
        "hyperframe reads ALTSVC (RFC 7838), which nobody asked for, and fails where it is broken",
        lambda case: case.frame.kind == ALT_SVC and case.fast is None,
    ),
    Deviation(
        "RFC 9113 §8.4",
        "PUSH_PROMISE is refused for what it is; h2 first reads all of it",
        lambda case: case.frame.kind == raw.PUSH_PROMISE and case.fast == H2Code.PROTOCOL_ERROR,
    ),
    Deviation(
        "RFC 9113 §6.9",
        "a stream's WINDOW_UPDATE of 0 is a stream error, for hyperframe it is one of the connection",
        lambda case: (
            case.frame.kind == raw.WINDOW_UPDATE
            and case.frame.stream > 0
            and case.frame.number & 0x7FFF_FFFF == 0
            and (case.reference, case.fast) == (H2Code.PROTOCOL_ERROR, None)
        ),
    ),
    Deviation(
        "RFC 9113 §6.9",
        "the reserved bit of a window's increment is ignored; hyperframe takes it for a large number",
        lambda case: (
            case.frame.kind == raw.WINDOW_UPDATE
            and case.frame.number >> 31 == 1
            and case.reference == H2Code.PROTOCOL_ERROR
        ),
    ),
    Deviation(
        "RFC 9113 §4.2",
        "a frame that is too long is refused for that, whatever else is wrong with it",
        lambda case: case.too_long and case.both_fail and case.fast == H2Code.FRAME_SIZE_ERROR,
    ),
    Deviation(
        "RFC 9113 §6.1",
        "DATA on stream 0 with broken padding has two faults, and either may be told",
        lambda case: case.frame.kind == raw.DATA and not case.frame.stream and case.both_fail,
    ),
    Deviation(
        "RFC 9113 §10.5.1",
        "a list that is too long and broken as well fails for whichever is found first",
        lambda case: (
            {case.reference, case.fast} == {H2Code.COMPRESSION_ERROR, H2Code.ENHANCE_YOUR_CALM}
        ),
    ),
    Deviation(
        "RFC 9113 §6.10",
        "a frame inside a header block is refused for its place; hyperframe first reads its payload",
        lambda case: case.in_block and case.both_fail and case.fast == H2Code.PROTOCOL_ERROR,
    ),
)


def framed(part: bytes) -> raw.Frame:
    """The frame that a slice is; what is shorter than a frame's head is none that there is."""
    if len(part) < 9:
        return raw.Frame(0xFF, 0, 0, part)
    return raw.Frame(part[3], part[4], int.from_bytes(part[5:9], "big") & 0x7FFF_FFFF, part[9:])


class Walk:
    """One connection on both codecs. `over` once a deviation was met or both have failed."""

    def __init__(self, *, client: bool, cuts: list[int]) -> None:
        self.twins = [Twin(make, client=client) for make in CODECS]
        self.talk = Talk(self.twins, client=client)
        self.writer = Writer(server=client)
        self.cuts = cuts
        self.over = False
        self.in_block = False
        self._waiting = b""

    def call(self, step: Step) -> None:
        opened = self.talk.act(step)
        if opened is not None:
            self.writer.open[opened], self.writer.next = False, opened + 2
        self.compare([twin.seen() for twin in self.twins], b"")

    def feed(self, more: bytes) -> None:
        """Frame by frame, by what length fields say, true or not; what is not whole waits."""
        self._waiting += more
        while not self.over and len(self._waiting) >= 9:
            size = 9 + int.from_bytes(self._waiting[:3], "big")
            if size > len(self._waiting):
                break
            part, self._waiting = self._waiting[:size], self._waiting[size:]
            self.take(part)

    def end(self) -> None:
        """No more comes. Of a frame that is not whole only the length can be judged."""
        if int.from_bytes(self._waiting[:3], "big") > LARGEST_FRAME and not self.over:
            self.take(self._waiting)

    def take(self, part: bytes) -> None:
        reference, fast = self.twins
        seen = [reference.feed([part])]
        self.talk.hear(reference.heard)
        seen.append(fast.feed(pieces(part, self.cuts)))
        self.compare(seen, part)

    def compare(self, seen: list[Seen], part: bytes) -> None:
        reference, fast = (twin.failed for twin in self.twins)
        frame = framed(part)
        if seen[0] != seen[1]:
            too_long = int.from_bytes(part[:3], "big") > LARGEST_FRAME
            case = Case(frame, reference, fast, self.in_block, too_long)
            assert any(known.fits(case) for known in DEVIATIONS), (case, *seen)
            self.over = True
        self.over |= reference is not None
        if frame.kind in (raw.HEADERS, raw.CONTINUATION):
            self.in_block = not frame.flags & raw.END_HEADERS


def walk(steps: list[Step], cuts: list[int], *, client: bool) -> None:
    both = Walk(client=client, cuts=cuts)
    both.take(raw.settings() if client else raw.PREFACE + raw.settings())
    for pick in range(3 * client):
        both.call(Step("open", pick, 0, pick > 1, b""))
    for step in steps:
        if step.what in CALLS:
            both.call(step)
        else:
            both.feed(both.writer.write(step))
        if both.over:
            return
    both.end()


ANY = ORDINARY * 2 + CALLS * 2 + WILD


@given(steps=steps(ORDINARY + CALLS, server=False), cuts=CUTS)
def test_ordinary_frames_to_a_server(steps: list[Step], cuts: list[int]) -> None:
    walk(steps, cuts, client=False)


@given(steps=steps(ORDINARY + CALLS, server=True), cuts=CUTS)
def test_ordinary_frames_to_a_client(steps: list[Step], cuts: list[int]) -> None:
    walk(steps, cuts, client=True)


@given(steps=steps(ANY, server=False), cuts=CUTS)
def test_any_frames_to_a_server(steps: list[Step], cuts: list[int]) -> None:
    walk(steps, cuts, client=False)


@given(steps=steps(ANY, server=True), cuts=CUTS)
def test_any_frames_to_a_client(steps: list[Step], cuts: list[int]) -> None:
    walk(steps, cuts, client=True)


EDITS = st.lists(
    st.tuples(st.integers(0, 5000), st.sampled_from(("flip", "drop", "add")), st.integers(0, 255)),
    min_size=1,
    max_size=6,
)


def edited(whole: bytes, edits: list[tuple[int, str, int]]) -> bytes:
    changed = bytearray(whole)
    for position, what, value in edits:
        at = position % (len(changed) + 1)
        if what == "add":
            changed.insert(at, value)
        elif what == "drop":
            del changed[at : at + 1 + value % 8]
        elif at < len(changed):
            changed[at] ^= 1 << value % 8
    return bytes(changed)


def written(steps: list[Step]) -> bytes:
    writer = Writer(server=False)
    return b"".join(writer.write(step) for step in steps)


@given(steps=steps(ORDINARY, server=False), edits=EDITS, cuts=CUTS)
def test_bytes_changed_on_their_way(
    steps: list[Step], edits: list[tuple[int, str, int]], cuts: list[int]
) -> None:
    both = Walk(client=False, cuts=cuts)
    both.take(raw.PREFACE + raw.settings())
    both.feed(edited(written(steps), edits))
    both.end()


@given(noise=st.binary(max_size=200), client=st.booleans())
def test_noise(noise: bytes, client: bool) -> None:
    both = Walk(client=client, cuts=[])
    both.take(b"" if client else raw.PREFACE)
    both.feed(noise)
    both.end()


@given(steps=steps(ORDINARY * 2 + WILD, server=False), edits=EDITS, cuts=CUTS)
def test_broken_frames_say_the_same_however_cut(
    steps: list[Step], edits: list[tuple[int, str, int]], cuts: list[int]
) -> None:
    whole = raw.PREFACE + raw.settings() + edited(written(steps), edits)
    one, other = Twin(FastCodec, client=False), Twin(FastCodec, client=False)
    assert one.feed([whole]) == other.feed(pieces(whole, cuts))
