"""HPACK's Huffman code: what hpack encodes we decode, and what nobody may encode we refuse."""

from __future__ import annotations

import sys

import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.codec import huffman
from stickyproxy.codec.huffman import HuffmanError, decode

encode = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode
EOS = (REQUEST_CODES[256], REQUEST_CODES_LENGTH[256])


def packed(*codes: tuple[int, int], padding: int = 0) -> bytes:
    """Codes as (bits, length), then ones to the end of the byte and `padding` whole bytes of ones."""
    bits, size = 0, 0
    for code, length in codes:
        bits, size = bits << length | code, size + length
    free = -size % 8 + 8 * padding
    return (bits << free | (1 << free) - 1).to_bytes((size + free) // 8, "big")


def symbol(value: int) -> tuple[int, int]:
    return REQUEST_CODES[value], REQUEST_CODES_LENGTH[value]


@given(st.binary(max_size=300))
def test_what_was_encoded_is_decoded(text: bytes) -> None:
    assert decode(encode(text)) == text


def test_every_symbol_alone() -> None:
    for value in range(256):
        assert decode(packed(symbol(value))) == bytes((value,))


def test_examples_of_the_rfc() -> None:
    # RFC 7541 Appendix C.4 and C.6.
    assert decode(bytes.fromhex("f1e3c2e5f23a6ba0ab90f4ff")) == b"www.example.com"
    assert decode(bytes.fromhex("a8eb10649cbf")) == b"no-cache"
    assert decode(bytes.fromhex("9d29ad171863c78f0b97c8e9ae82ae43d3")) == b"https://www.example.com"


def test_the_empty_string() -> None:
    assert decode(b"") == b""


@pytest.mark.parametrize("padding", [1, 2, 3])
def test_padding_of_eight_bits_or_more_is_refused(padding: int) -> None:
    with pytest.raises(HuffmanError, match="ends inside a code"):
        decode(packed(symbol(ord("a")), padding=padding))


def test_padding_of_zeros_is_refused() -> None:
    # 'a' is 00011, and 000 begins '0'.
    with pytest.raises(HuffmanError, match="ends inside a code"):
        decode(b"\x18")


@pytest.mark.parametrize("before", [b"", b"a", b"abc"])
def test_eos_inside_a_string_is_refused(before: bytes) -> None:
    with pytest.raises(HuffmanError, match="EOS"):
        decode(packed(*map(symbol, before), EOS))
    with pytest.raises(HuffmanError, match="EOS"):
        decode(packed(*map(symbol, before), EOS, symbol(ord("b"))))


@given(st.binary(max_size=60))
def test_noise_is_decoded_or_refused(noise: bytes) -> None:
    try:
        text = decode(noise)
    except HuffmanError:
        return
    assert encode(text) == noise


def test_all_steps_together_are_few_and_small() -> None:
    # All 256 inner nodes times all bytes, which is the most that hostile strings can make us keep.
    states = huffman._states
    for state in states:
        for byte in range(256):
            try:
                huffman._work_out(state, byte)
            except HuffmanError:
                assert state[1][byte] is None
    kept = {id(part): part for state in states for part in (state, *state, *state[0], *state[1])}
    assert sum(following is not None for state in states for following in state[1]) > 60_000
    assert len(states) == 256
    assert sum(map(sys.getsizeof, kept.values())) + sys.getsizeof(huffman._shared) < 8 << 20
