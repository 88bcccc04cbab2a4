"""DATA that goes straight on: all of it arrives, in order, within windows, and its credit goes back."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.codec import frames
from stickyproxy.codec.fast import FastCodec
from stickyproxy.codec.passage import Passage
from stickyproxy.codec.reference import ReferenceCodec
from stickyproxy.events import CodecFailed, DataReceived, Event, StreamReset
from stickyproxy.policy.messages import MessageCounter
from support.plan import GRPC, POST, message

Client = FastCodec | ReferenceCodec


class Way:
    """The link that a passage leads to."""

    def __init__(self, room: int = 1 << 40) -> None:
        self.room = room
        self.taking = True
        self.pushed = self.gives = 0
        self.turns: list[object] = []

    def push(self) -> None:
        self.pushed += 1
        self.room += self.gives


class Relay:
    """A client, the two codecs of a proxy with a passage between them, and a backend.

    What does not go straight on waits in `kept`, as it would for a task.
    """

    def __init__(
        self,
        *,
        headers: list[tuple[bytes, bytes]] | None = None,
        counter: MessageCounter | None = None,
    ) -> None:
        self.client = ReferenceCodec(client=True)
        self.source, self.into = FastCodec(client=False), FastCodec(client=True)
        self.backend = ReferenceCodec(client=False)
        self.way = Way()
        self.kept: deque[DataReceived] = deque()
        self.ended: list[Event] = []
        self.arrived = bytearray()
        self.by_events = self.owed = self.said = 0
        for _ in range(3):
            self._exchange(self.client, self.source)
            self._exchange(self.into, self.backend)
        self.id = self.client.open_stream(headers or POST, end_stream=False)
        self.to = self.into.open_stream(POST, end_stream=False)
        self._exchange(self.into, self.backend)
        self.source.feed(self.client.take_output())
        made = self.source.straight(self.id, self.into, self.to, link=self.way, counter=counter)
        assert made is not None
        self.passage: Passage = made
        self.passage.open()

    @staticmethod
    def _exchange(one: Client, other: Client) -> None:
        other.feed(one.take_output())
        one.feed(other.take_output())

    def say(self, data: bytes) -> None:
        """The client's DATA, as it is."""
        self.said += len(data)
        for event in self.source.feed(data):
            if isinstance(event, DataReceived):
                self.by_events += len(event.data)
                self.kept.append(event)
            elif isinstance(event, StreamReset | CodecFailed):
                self.ended.append(event)

    def pump(self) -> None:
        """What a task does: hand on what fits, give its credit back, and wait again."""
        while self.kept and self.into.window(self.to) >= len(self.kept[0].data):
            event = self.kept.popleft()
            self.into.send_data(self.to, event.data, event.end_stream)
            self.source.grant(self.id, event.credit)
        if not self.kept:
            self.passage.open()

    def arrive(self, *, grant: bool = True) -> None:
        """The backend reads what there is, and gives credit back or does not."""
        for event in self.backend.feed(self.into.take_output()):
            if isinstance(event, DataReceived):
                self.arrived += event.data
                self.owed += event.credit
        if grant:
            self.backend.grant(self.to, self.owed)
            self.owed = 0
        self.into.feed(self.backend.take_output())
        self.client.feed(self.source.take_output())


def data(relay: Relay, payload: bytes, *, padding: int | None = None, end: bool = False) -> bytes:
    flags = frames.END_STREAM if end else 0
    if padding is None:
        return frames.frame(frames.DATA, flags, relay.id, payload)
    padded = bytes([padding]) + payload + bytes(padding)
    return frames.frame(frames.DATA, flags | frames.PADDED, relay.id, padded)


sizes = st.integers(0, 9000)
steps = st.lists(
    st.tuples(sizes, st.none() | st.integers(0, 255), st.booleans(), st.booleans(), st.booleans()),
    min_size=1,
    max_size=40,
)


@given(steps)
def test_every_byte_arrives_in_order_whichever_way_it_went(
    parts: list[tuple[int, int | None, bool, bool, bool]],
) -> None:
    relay, said, number = Relay(), bytearray(), 0
    waiting = b""
    for size, padding, together, pumps, grants in parts:
        number += 1
        payload = bytes([number % 251]) * size
        part = data(relay, payload, padding=padding)
        for _ in range(9):  # as a client waits for its window
            if relay.said + len(waiting) + len(part) < relay.client.window(relay.id):
                break
            relay.say(waiting)
            waiting = b""
            relay.pump()
            relay.arrive()
        said += payload
        waiting += part
        if together:
            continue
        relay.say(waiting)
        waiting = b""
        if pumps:
            relay.pump()
        relay.arrive(grant=grants)
    relay.say(waiting + data(relay, b"last", end=True))
    for _ in range(200):
        relay.arrive()
        relay.pump()
    assert not relay.ended
    assert bytes(relay.arrived) == bytes(said + b"last")
    assert relay.passage.passed + relay.by_events == len(relay.arrived)


def test_what_comes_behind_a_part_that_did_not_fit_does_not_overtake_it() -> None:
    relay = Relay()
    relay.way.room = 100
    relay.say(data(relay, b"a" * 90) + data(relay, b"b" * 90) + data(relay, b"c"))
    assert relay.passage.passed == 90
    assert [event.data[:1] for event in relay.kept] == [b"b", b"c"]


def test_a_link_without_room_is_asked_once_to_write_what_it_has() -> None:
    relay = Relay()
    relay.way.room, relay.way.gives = 100, 100
    relay.say(data(relay, b"a" * 90) + data(relay, b"b" * 90))
    assert (relay.passage.passed, relay.way.pushed) == (180, 1)


def test_who_waits_for_a_turn_is_not_overtaken() -> None:
    relay = Relay()
    relay.way.turns = [object()]
    relay.say(data(relay, b"a"))
    assert (relay.passage.passed, len(relay.kept)) == (0, 1)


def test_a_stream_may_send_without_end_for_its_credit_goes_back() -> None:
    relay, payload = Relay(), bytes(16_384)
    for _ in range(500):
        relay.client.send_data(relay.id, payload, end_stream=False)  # a KeyError beyond its window
        relay.say(relay.client.take_output())
        relay.pump()
        relay.arrive()
    assert len(relay.arrived) == 500 * 16_384
    assert relay.passage.passed > 0.9 * len(relay.arrived)
    assert relay.client.window(relay.id) > 0


def test_a_window_that_is_drained_grows_as_it_does_for_a_task() -> None:
    relay = Relay()
    for _ in range(20):
        relay.say(data(relay, bytes(16_384)))
        relay.arrive()
    ledger = relay.passage.stream.ledger
    assert ledger is not None
    assert ledger.window > relay.source.limits.stream_credit


def test_a_receiver_that_grants_nothing_gets_its_window_and_no_more() -> None:
    relay = Relay()
    for _ in range(6):
        relay.say(data(relay, bytes(16_000)))
        relay.arrive(grant=False)
    assert len(relay.arrived) == relay.passage.passed == 4 * 16_000
    assert relay.by_events == 2 * 16_000


def test_more_than_the_window_is_still_an_error() -> None:
    relay = Relay()
    for _ in range(14):  # the backend grants nothing, and the client goes on all the same
        relay.say(data(relay, bytes(16_384)))
    (reset,) = relay.ended
    assert isinstance(reset, StreamReset)
    assert not reset.by_peer


def test_more_than_the_content_length_is_still_an_error() -> None:
    relay = Relay(headers=[*POST, (b"content-length", b"20000")])
    for _ in range(3):
        relay.say(data(relay, bytes(8000)))
        relay.arrive()
    assert [type(event) for event in relay.ended] == [StreamReset]
    assert len(relay.arrived) <= 20_000


def test_less_than_the_content_length_is_still_an_error() -> None:
    relay = Relay(headers=[*POST, (b"content-length", b"60000")])
    relay.say(data(relay, bytes(8000)) * 7 + data(relay, b"", end=True))
    assert [type(event) for event in relay.ended] == [StreamReset]


def test_nothing_passes_into_a_stream_that_was_reset() -> None:
    relay = Relay()
    relay.into.reset(relay.to, 8)
    relay.into.take_output()
    relay.say(data(relay, b"late"))
    assert relay.into.take_output() == b""
    assert len(relay.kept) == 1


def test_nothing_passes_out_of_a_stream_that_was_reset() -> None:
    relay = Relay()
    relay.source.reset(relay.id, 8)
    relay.say(data(relay, b"late"))
    assert relay.into.take_output() == b""


def test_messages_are_counted_in_passing() -> None:
    counter = MessageCounter()
    relay = Relay(headers=GRPC, counter=counter)
    whole = message(100)
    relay.say(data(relay, whole + whole[:30]) + data(relay, whole[30:]))
    assert (counter.count, counter.at_boundary) == (2, True)
    assert relay.passage.passed == 200
