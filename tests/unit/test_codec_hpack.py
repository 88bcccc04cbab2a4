"""HPACK against hpack while tables change, what our encoder indexes, and the bounds on memory."""

from __future__ import annotations

import sys

import hpack
import pytest
from hpack.struct import NeverIndexedHeaderTuple
from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.codec import hpack_decode, hpack_encode
from stickyproxy.codec.hpack_decode import (
    ENTRY_OVERHEAD,
    TABLE_SIZE,
    Decoder,
    HpackError,
)
from stickyproxy.codec.hpack_encode import MAX_TABLE, Encoder
from stickyproxy.model import Headers

NAMES = (
    b":path",
    b":status",
    b"content-type",
    b"x-a",
    b"x-user-id",
    b"cookie",
    b"traceparent",
    b"",
)
FIELDS = st.tuples(
    st.sampled_from(NAMES),
    st.one_of(
        st.sampled_from((b"", b"/", b"200", b"1")),
        st.binary(max_size=40),
        st.sampled_from((100, 1000, 4000, 4060, 5000)).map(lambda size: b"v" * size),
    ),
)
BLOCKS = st.lists(st.lists(FIELDS, max_size=8), max_size=12)
SIZES = st.sampled_from((0, 1, 60, 200, 4095, 4096, 4097, 65_536))
TALK = st.lists(st.one_of(st.lists(FIELDS, max_size=8), SIZES), max_size=20)
"""Header lists, and between them the sizes that SETTINGS_HEADER_TABLE_SIZE was set to."""


def decoder() -> Decoder:
    return Decoder(hard_fields=1000)


def plain(fields: object) -> Headers:
    assert isinstance(fields, list)
    return [(bytes(name), bytes(value)) for name, value in fields]


# --- against hpack -----------------------------------------------------------------------------


@given(talk=TALK)
def test_hpack_reads_what_we_write_while_the_table_changes(talk: list[Headers | int]) -> None:
    ours, theirs = Encoder(), hpack.Decoder(max_header_list_size=1 << 20)
    for part in talk:
        if isinstance(part, int):
            ours.resize(part)
            theirs.max_allowed_table_size = part
        else:
            assert plain(theirs.decode(bytes(ours.encode(part)), raw=True)) == part
            assert plain(list(theirs.header_table.dynamic_entries)) == list(reversed(ours._numbers))
            assert theirs.header_table._current_size == ours._size


@given(talk=TALK, huffman=st.booleans())
def test_we_read_what_hpack_writes_while_the_table_changes(
    talk: list[Headers | int], huffman: bool
) -> None:
    theirs, ours = hpack.Encoder(), decoder()
    for part in talk:
        if isinstance(part, int):
            theirs.header_table_size = min(part, TABLE_SIZE)
            theirs.header_table.resized = True  # hpack forgets a change that is repeated
        else:
            fields = [(n, v, n == b"cookie") for n, v in part]
            assert ours.decode(theirs.encode(fields, huffman=huffman)) == part
            entries = [(bytes(n), bytes(v)) for n, v in theirs.header_table.dynamic_entries]
            assert list(reversed(ours._table)) == entries
            assert ours._size == sum(len(n) + len(v) + ENTRY_OVERHEAD for n, v in entries)


@given(blocks=BLOCKS)
def test_we_read_what_we_write(blocks: list[Headers]) -> None:
    ours, back = Encoder(), decoder()
    for headers in blocks:
        assert back.decode(bytes(ours.encode(headers))) == headers


@given(noise=st.lists(st.binary(max_size=40), max_size=5))
def test_noise_is_what_hpack_takes_it_for(noise: list[bytes]) -> None:
    ours, theirs = decoder(), hpack.Decoder(max_header_list_size=1 << 20)
    for block in noise:
        try:
            expected = plain(theirs.decode(block, raw=True))
        except hpack.HPACKError:
            with pytest.raises(HpackError):
                ours.decode(block)
            return
        assert ours.decode(block) == expected


# --- what we encode ---------------------------------------------------------------------------


def test_a_field_costs_one_byte_the_second_time() -> None:
    ours = Encoder()
    headers = [(b"x-user-id", b"7"), (b":path", b"/pkg.Service/Method"), (b":method", b"POST")]
    assert len(ours.encode(headers)) > 20
    assert len(ours.encode(headers)) == 3


@pytest.mark.parametrize(
    "name", [b"authorization", b"cookie", b"set-cookie", b"proxy-authorization"]
)
def test_secrets_are_never_indexed_by_anybody(name: bytes) -> None:
    ours, theirs = Encoder(), hpack.Decoder()
    blocks = [bytes(ours.encode([(name, b"secret")])) for _ in range(3)]
    assert len(set(blocks)) == 1
    (field,) = theirs.decode(blocks[0], raw=True)
    assert isinstance(field, NeverIndexedHeaderTuple)
    assert not theirs.header_table.dynamic_entries


def test_values_that_never_repeat_stop_being_indexed() -> None:
    ours = Encoder()
    ours.encode([(b"x-tenant", b"kept")])
    for number in range(1000):
        ours.encode([(b"x-trace", b"%016x" % number)])
    assert (b"x-tenant", b"kept") in ours._numbers
    assert len(ours._numbers) == 1 + hpack_encode._CHURN


def test_values_that_repeat_now_and_then_stay_indexed() -> None:
    ours = Encoder()
    for number in range(100):
        ours.encode([(b"x-user-id", b"%d" % (number // 5))])
    assert len(ours.encode([(b"x-user-id", b"19")])) == 1


def test_names_made_up_by_a_peer_are_not_collected() -> None:
    ours = Encoder()
    for number in range(5000):
        ours.encode([(b"x-%d" % number, b"")])
    assert len(ours._churn) <= hpack_encode._CHURN_NAMES
    assert len(ours._numbers) <= MAX_TABLE // ENTRY_OVERHEAD


def test_a_field_larger_than_the_table_pushes_nothing_out() -> None:
    ours, theirs = Encoder(), decoder()
    headers = [(b"x-a", b"1"), (b"x-large", b"v" * MAX_TABLE)]
    theirs.decode(bytes(ours.encode(headers)))
    assert list(ours._numbers) == theirs._table == [(b"x-a", b"1")]


@pytest.mark.parametrize(
    ("offered", "updates"),
    [
        ([4096], ""),
        ([65_536], ""),
        ([0], "20"),
        ([100], "3f45"),
        ([100, 0, 50], "203f13"),
        ([100, 4096], "3f453fe11f"),
        ([0, 100_000], "203fe11f"),
        ([50, 30, 30, 40], "3e3f09"),
    ],
)
def test_a_table_size_is_told_smallest_and_last(offered: list[int], updates: str) -> None:
    ours = Encoder()
    for size in offered:
        ours.resize(size)
    assert ours.encode([(b":method", b"GET")]).hex() == updates + "82"
    assert ours.encode([(b":method", b"GET")]).hex() == "82"


def test_a_table_that_grows_is_told_once() -> None:
    ours = Encoder()
    ours.resize(100)
    ours.encode([])
    ours.resize(4096)
    assert ours.encode([]).hex() == "3fe11f"


def test_the_table_is_never_larger_than_ours() -> None:
    ours = Encoder()
    ours.resize(1 << 30)
    for number in range(2000):
        ours.encode([(b"x-%d" % number, b"v" * 100)])
    assert ours._size <= MAX_TABLE


def test_the_memo_of_huffman_strings_is_bounded() -> None:
    ours, memo, writer = decoder(), hpack_decode._memo, hpack.Encoder()
    for number in range(5000):
        # Never indexed, so that each comes by the memo; the longest do not stay. Seven bits a 'z'.
        field = (b"x", b"%06d" % number + b"z" * (number % 90), True)
        ours.decode(writer.encode([field], huffman=True))
    assert 0 < len(memo.young) <= 1024
    assert 0 < len(memo.old) <= 1024
    kept = [*memo.young.items(), *memo.old.items()]
    assert max(len(coded) for coded, _ in kept) <= 64
    texts = sum(sys.getsizeof(coded) + sys.getsizeof(text) for coded, text in kept)
    assert texts + sys.getsizeof(memo.young) + sys.getsizeof(memo.old) < 1 << 20


def test_the_memo_keeps_what_is_asked_for_again() -> None:
    memo = hpack_decode._Memo()
    coder = hpack.Encoder().huffman_coder
    often = coder.encode(b"/pkg.Service/Method")
    first = memo.decode(often)
    for number in range(5000):
        memo.decode(coder.encode(b"%d" % number))
        if not number % 500:
            assert memo.decode(often) is first
