"""The lab's name server, as bytes in and bytes out."""

from __future__ import annotations

import struct

import pytest

from chaos.names import answer

NAME = b"\x08backends\x03lab\0"
ADDRESSES = ["10.77.1.2", "10.77.2.2"]


def question(kind: int) -> bytes:
    return struct.pack("!HHHHHH", 4711, 0x0100, 1, 0, 0, 0) + NAME + struct.pack("!HH", kind, 1)


def test_a_name_has_the_addresses_of_all_backends() -> None:
    told = answer(question(1), ADDRESSES)
    number, flags, asked, found, _, _ = struct.unpack("!HHHHHH", told[:12])
    assert (number, asked, found) == (4711, 1, 2)
    assert flags & 0x8000
    assert not flags & 0xF
    assert bytes([10, 77, 1, 2]) in told
    assert told.endswith(bytes([0, 4, 10, 77, 2, 2]))


def test_of_other_types_there_are_none_and_that_is_no_error() -> None:
    told = answer(question(28), ADDRESSES)
    assert struct.unpack("!HHHHHH", told[:12])[3] == 0
    assert told[12:] == question(28)[12:]


@pytest.mark.parametrize("junk", [b"", b"abc", b"\0" * 12, question(1)[:-3]])
def test_what_is_no_question_has_no_answer(junk: bytes) -> None:
    assert answer(junk, ADDRESSES) == b""
