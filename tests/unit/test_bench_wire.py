"""The bench's own client and backend, held against the h2 and hpack packages."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import h2.config
import h2.connection
import h2.events
import h2.settings
import hpack
import pytest
from h2.settings import SettingCodes

from bench import frames, heads
from bench.answers import MODES, Http1, Http2, content_length
from bench.frames import FrameReader, frame

PATH = b"/bench.Echo/Call"
CONSTANT = heads.unary_fields(PATH, b"127.0.0.1")


def decoded(block: bytes, decoder: hpack.Decoder) -> list[tuple[bytes, bytes]]:
    return [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]


# --- heads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", [heads.GO, heads.CORE])
@pytest.mark.parametrize("source", [heads.calls, heads.heavy_calls])
def test_every_head_of_a_connection_decodes_to_what_was_meant(
    dialect: str, source: Callable[[list[heads.Field], int, str], Iterator[list[heads.Field]]]
) -> None:
    writer = heads.Writer(dialect, heads.HEAVY_PASSING)
    decoder = hpack.Decoder(max_header_list_size=1 << 16)

    for fields in itertools.islice(source(CONSTANT, 1000, "seed"), 60):
        assert decoded(writer.block(fields), decoder) == fields


def test_ids_never_repeat_within_a_seed_nor_between_seeds() -> None:
    one = list(itertools.islice(heads.calls(CONSTANT, 10, "a"), 200))
    two = list(itertools.islice(heads.calls(CONSTANT, 10, "b"), 200))
    ids = [value for fields in one + two for name, value in fields if name in heads.PASSING]

    assert len(ids) == len(set(ids)) == 800
    assert len({dict(fields)[b"x-user-id"] for fields in one}) == 10


def test_heavy_heads_are_thirty_fields_and_four_kibibytes_half_of_them_new() -> None:
    first, second = itertools.islice(heads.heavy_calls(CONSTANT, 1, "a"), 2)

    assert len(first) == 30
    assert abs(sum(map(heads.weight, first)) - 4096) < 100
    assert 10 <= len(set(first) - set(second)) <= 15


@pytest.mark.parametrize(("dialect", "stays_out"), [(heads.GO, False), (heads.CORE, True)])
def test_only_the_c_core_keeps_what_never_repeats_out_of_the_table(
    dialect: str, *, stays_out: bool
) -> None:
    writer = heads.Writer(dialect, heads.PASSING)
    decoder = hpack.Decoder()
    source = heads.calls([], 1, "a")
    for _ in range(2):
        decoder.decode(writer.block(next(source)), raw=True)

    names = {bytes(name) for name, _ in decoder.header_table.dynamic_entries}

    assert names == {b"x-user-id"} if stays_out else names >= heads.PASSING


def test_integers_are_written_as_the_rfc_s_own_examples() -> None:
    assert heads.integer(10, 5, 0) == b"\x0a"
    assert heads.integer(1337, 5, 0) == b"\x1f\x9a\x0a"
    assert heads.integer(42, 8, 0) == b"\x2a"


# --- frames ---------------------------------------------------------------------------------------


def test_frames_are_cut_alike_however_they_arrive() -> None:
    written = frame(frames.DATA, 1, 3, b"abc") + frames.window_update(0, 7) + frames.settings()
    reader = FrameReader()

    whole = list(FrameReader().feed(written))
    piecewise = [found for at in range(len(written)) for found in reader.feed(written[at : at + 1])]

    assert whole == piecewise
    assert [kind for kind, *_ in whole] == [frames.DATA, frames.WINDOW_UPDATE, frames.SETTINGS]


# --- backends, with the h2 package as their client ------------------------------------------------


class Client:
    """A client by h2, wired to one backend connection in memory."""

    def __init__(
        self, mode: str, body: int, settings: dict[SettingCodes, int] | None = None
    ) -> None:
        self.backend: Http2 = MODES[mode](body)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self.h2.local_settings = h2.settings.Settings(client=True, initial_values=settings)
        self.h2.initiate_connection()
        self.heads: list[list[tuple[bytes, bytes]]] = []
        self.trailers: list[list[tuple[bytes, bytes]]] = []
        self.data = b""
        self.ended: list[int] = []

    def ask(self, stream: int, body: bytes) -> None:
        fields = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/"),
            (b":authority", b"x"),
        ]
        self.h2.send_headers(stream, fields)
        self.h2.send_data(stream, body, end_stream=True)

    def exchange(self) -> None:
        """Until nobody has anything to say; windows are given back as data comes."""
        sent = self.h2.data_to_send().removeprefix(frames.PREFACE)
        while sent or self.backend.out:
            self.backend.receive(sent)
            answer = bytes(self.backend.out)
            self.backend.out.clear()
            self.backend.produce()
            for event in self.h2.receive_data(answer):
                self._note(event)
            sent = self.h2.data_to_send()

    def _note(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            self.heads.append([(bytes(n), bytes(v)) for n, v in event.headers or []])
        elif isinstance(event, h2.events.TrailersReceived):
            self.trailers.append([(bytes(n), bytes(v)) for n, v in event.headers or []])
        elif isinstance(event, h2.events.DataReceived):
            self.data += event.data or b""
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.ended.append(event.stream_id)


@pytest.mark.parametrize("table", [4096, 0])
def test_a_unary_answer_is_a_grpc_server_s_with_and_without_a_table(table: int) -> None:
    client = Client("unary", 12, {SettingCodes.HEADER_TABLE_SIZE: table})
    client.exchange()
    for stream in (1, 3, 5):
        client.ask(stream, b"\0\0\0\0\1x")
        client.exchange()

    head = [(b":status", b"200"), (b"content-type", b"application/grpc")]
    assert client.heads == [head] * 3
    assert client.trailers == [[(b"grpc-status", b"0")]] * 3
    assert len(client.data) == 3 * 17
    assert client.ended == [1, 3, 5]


def test_unary_answers_wait_for_the_connection_s_window() -> None:
    client = Client("unary", 1000)
    client.exchange()
    for stream in range(1, 201, 2):  # 100 KB of answers; the window begins with 65,535
        client.ask(stream, b"")
    client.exchange()

    assert len(client.ended) == 100


@pytest.mark.parametrize("size", [0, 1, 65_535, 1_000_000])
def test_a_bulk_answer_has_its_length_whatever_the_windows(size: int) -> None:
    client = Client("bulk", size)
    client.exchange()
    client.ask(1, b"question")
    client.exchange()

    assert client.heads == [[(b":status", b"200"), (b"content-length", str(size).encode())]]
    assert len(client.data) == size
    assert client.ended == [1]


def test_an_echo_sends_back_what_came_in_frames_of_16_kib_at_most() -> None:
    client = Client("echo", 0)
    client.exchange()
    client.ask(1, bytes(range(256)) * 60)
    client.exchange()

    assert client.data == bytes(range(256)) * 60
    assert client.trailers == [[(b"grpc-status", b"0")]]


def test_http1_answers_each_whole_request_once() -> None:
    link = Http1(3)
    asked = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhiGET / HTTP/1.1\r\nhost: x\r\n\r\n"
    for at in range(len(asked)):
        link.receive(asked[at : at + 1])

    assert bytes(link.out).count(b"HTTP/1.1 200 OK\r\n") == 2
    assert bytes(link.out).endswith(b"content-length: 3\r\n\r\n\0\0\0")
    assert content_length(b"GET / HTTP/1.1\r\nhost: x") == 0
