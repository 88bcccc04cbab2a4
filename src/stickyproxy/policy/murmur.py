"""MurmurHash2, 64-bit variant A (Austin Appleby): the other hash function of Envoy's rings."""

from __future__ import annotations

import struct

STD_SEED = 0xC70F6907  # that of libstdc++'s std::hash<std::string>, which Envoy means to equal

_MULTIPLIER = 0xC6A4A7935BD1E995
_SHIFT = 47
_MASK = (1 << 64) - 1
_WORD = 8  # bytes


def murmur2(data: bytes, seed: int = STD_SEED) -> int:
    """The 64-bit hash of `data`."""
    hash_ = seed ^ (len(data) * _MULTIPLIER & _MASK)
    whole = len(data) - len(data) % _WORD
    for (word,) in struct.iter_unpack("<Q", data[:whole]):
        mixed = word * _MULTIPLIER & _MASK
        mixed = (mixed ^ mixed >> _SHIFT) * _MULTIPLIER & _MASK
        hash_ = (hash_ ^ mixed) * _MULTIPLIER & _MASK
    if whole < len(data):
        hash_ = (hash_ ^ int.from_bytes(data[whole:], "little")) * _MULTIPLIER & _MASK
    hash_ = (hash_ ^ hash_ >> _SHIFT) * _MULTIPLIER & _MASK
    return hash_ ^ hash_ >> _SHIFT
