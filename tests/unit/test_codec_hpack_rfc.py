"""HPACK by the book: the examples of RFC 7541's Appendix C, and every form that is malformed."""

from __future__ import annotations

import hpack
import pytest

from stickyproxy.codec import hpack_decode, hpack_encode
from stickyproxy.codec.hpack_decode import (
    TABLE_SIZE,
    Decoder,
    HpackError,
    TooManyFieldsError,
    list_size,
)
from stickyproxy.codec.hpack_encode import Encoder
from stickyproxy.model import Headers


def decoder() -> Decoder:
    return Decoder(hard_fields=1000)


# --- examples of RFC 7541, Appendix C -------------------------------------------------------------

REQUESTS = [
    [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")],
    [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")],
    [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/index.html")],
]
for _request in REQUESTS:
    _request.append((b":authority", b"www.example.com"))
REQUESTS[1].append((b"cache-control", b"no-cache"))
REQUESTS[2].append((b"custom-key", b"custom-value"))
RESPONSES = [
    [
        (b":status", status),
        (b"cache-control", b"private"),
        (b"date", b"Mon, 21 Oct 2013 20:13:%d GMT" % second),
        (b"location", b"https://www.example.com"),
    ]
    for status, second in ((b"302", 21), (b"307", 21), (b"200", 22))
]
RESPONSES[2] += [
    (b"content-encoding", b"gzip"),
    (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
]
C_5_1 = (
    "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a3231"
    "20474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d"
)
C_5_3 = (
    "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738"
    "666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d33"
    "3630303b2076657273696f6e3d31"
)
C_6_1 = (
    "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad1718"
    "63c78f0b97c8e9ae82ae43d3"
)
C_6_3 = (
    "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7"
    "b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"
)
SMALL_TABLE = b"\x3f\xe1\x01"  # 256 bytes, which C.5 and C.6 take as agreed

EXAMPLES: dict[str, tuple[list[Headers], list[str], int]] = {
    "C.3": (
        REQUESTS,
        [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ],
        164,
    ),
    "C.4": (
        REQUESTS,
        [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ],
        164,
    ),
    "C.5": (
        RESPONSES,
        [
            C_5_1,
            "4803333037c1c0bf",
            C_5_3,
        ],
        215,
    ),
    "C.6": (
        RESPONSES,
        [
            C_6_1,
            "4883640effc1c0bf",
            C_6_3,
        ],
        215,
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_of_the_rfc(name: str) -> None:
    lists, blocks, size = EXAMPLES[name]
    ours = decoder()
    if lists is RESPONSES:
        assert ours.decode(SMALL_TABLE) == []
    assert [ours.decode(bytes.fromhex(block)) for block in blocks] == lists
    assert ours._size == size


@pytest.mark.parametrize(
    ("block", "field", "kept"),
    [
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", b"custom-header", 1),
        ("000a637573746f6d2d6b65790d637573746f6d2d686561646572", b"custom-header", 0),
        ("100a637573746f6d2d6b65790d637573746f6d2d686561646572", b"custom-header", 0),
    ],
)
def test_forms_of_a_literal(block: str, field: bytes, kept: int) -> None:
    ours = decoder()
    assert ours.decode(bytes.fromhex(block)) == [(b"custom-key", field)]
    assert len(ours._table) == kept


def test_integers_of_the_rfc() -> None:
    # C.1: 10 and 1337 with a prefix of 5 bits, 42 with one of 8.
    for value, first, prefix, coded in ((10, 0, 5, "0a"), (1337, 0, 5, "1f9a0a"), (42, 0, 8, "2a")):
        limit = (1 << prefix) - 1
        data = bytes.fromhex(coded)
        assert hpack_encode._integer(value, first, limit) == data
        assert hpack_decode._integer(data, 0, limit) == (value, len(data))


# --- what is broken -----------------------------------------------------------------------------

BROKEN = {
    "index 0": "80",
    "index one past the static table, nothing in the dynamic one": "be",
    "index far out of the table": "ffffff7f",
    "name's index out of the table": "7e0176",
    "name's index out of the table, not indexed": "0f2f0176",
    "integer cut": "ff",
    "integer cut in its continuation": "ff80",
    "integer of six bytes": "ff808080808000",
    "integer without end": "ff" * 30,
    "integer of zeros without end": "ff" + "80" * 30,
    "string's length cut": "407f",
    "name longer than the block": "4005616263",
    "name of a length beyond all": "407f80808080080161",
    "value missing": "400161",
    "value cut": "4001610562",
    "huffman value cut": "40016185f1e3",
    "huffman padding over seven bits": "400161821fff",
    "huffman padding of zeros": "4001618118",
    "huffman EOS": "40016184ffffffff",
    "size update at the end": "8220",
    "size update between fields": "823f0082",
    "size update above the limit": "3fe21f",
    "size update cut": "3f",
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("before", ["", "82", "000162017a"])
def test_broken_block_is_refused(name: str, before: str) -> None:
    with pytest.raises(HpackError):
        decoder().decode(bytes.fromhex(before + BROKEN[name]))


@pytest.mark.parametrize("block", ["20", "3fe11f", "203fe11f82", "2020202082"])
def test_size_updates_at_the_start_are_taken(block: str) -> None:
    assert decoder().decode(bytes.fromhex(block)) in ([], [(b":method", b"GET")])


def test_a_size_update_evicts_at_once() -> None:
    ours = decoder()
    ours.decode(bytes(Encoder().encode([(b"x-a", b"1"), (b"x-b", b"2")])))
    ours.decode(b"\x3f\x05")  # 36 bytes: one of the two
    assert ours._table == [(b"x-b", b"2")]
    ours.decode(b"\x20")
    assert (ours._table, ours._size) == ([], 0)
    with pytest.raises(HpackError):
        ours.decode(b"\xbe")


def test_an_entry_larger_than_the_table_empties_it() -> None:
    ours = decoder()
    large = (b"x-large", b"v" * TABLE_SIZE)
    writer = hpack.Encoder()
    headers = [(b"x-a", b"1"), large, (b"x-b", b"2")]
    assert ours.decode(writer.encode(headers, huffman=False)) == headers
    assert ours._table == [(b"x-b", b"2")]


def test_a_name_may_be_taken_from_an_entry_that_its_own_field_evicts() -> None:
    # RFC 7541 §4.4: the name is read before anything is dropped for the new field.
    ours = decoder()
    value = b"v" * (TABLE_SIZE - 40)
    ours.decode(b"\x40\x03x-a" + hpack_encode._integer(len(value), 0, 0x7F) + value)
    assert ours.decode(b"\x7e\x7f\x81\x1f" + bytes(4096)) == [(b"x-a", bytes(4096))]
    assert ours._table == []


def test_decoding_stops_at_the_number_of_fields() -> None:
    assert len(Decoder(hard_fields=5).decode(b"\x82" * 5)) == 5
    for block in (b"\x82" * 6, b"\x00\x00\x00" * 6, b"\x20" + b"\x82" * 6):
        with pytest.raises(TooManyFieldsError):
            Decoder(hard_fields=5).decode(block)


def test_a_field_met_again_is_the_same_object() -> None:
    ours = decoder()
    (first,) = ours.decode(b"\x40\x01a\x01b")
    assert ours.decode(b"\xbe")[0] is first


def test_the_size_of_a_list_is_the_rfcs() -> None:
    assert list_size([]) == 0
    assert list_size([(b"abc", b"de"), (b"", b"")]) == 5 + 64


def test_the_largest_entry_bounds_every_field_of_a_block() -> None:
    ours = decoder()
    assert ours.largest == max(list_size([field]) for field in hpack_decode.STATIC)
    ours.decode(b"\x40\x7f\x49" + b"n" * 200 + b"\x00")
    assert ours.largest == 232
