"""As much of protobuf's wire format as it takes to change a field of a message and leave the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO

_LENGTH = 4  # bytes before each message, big-endian
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Value = int | bytes


def read_message(stream: IO[bytes]) -> bytes | None:
    """None at the end."""
    head = stream.read(_LENGTH)
    return stream.read(int.from_bytes(head, "big")) if len(head) == _LENGTH else None


def write_message(stream: IO[bytes], message: bytes) -> None:
    stream.write(len(message).to_bytes(_LENGTH, "big") + message)
    stream.flush()


def fields(message: bytes) -> Iterator[tuple[int, Value, bytes]]:
    """Number, value and all bytes of each field, in order."""
    at = 0
    while at < len(message):
        start = at
        key, at = _varint(message, at)
        value: Value
        if key & 7 == _VARINT:
            value, at = _varint(message, at)
        else:
            size = {_FIXED64: 8, _FIXED32: 4}.get(key & 7)
            if size is None:
                size, at = _varint(message, at)
            value, at = message[at : at + size], at + size
        yield key >> 3, value, message[start:at]


def replaced(message: bytes, values: Mapping[int, Value | None]) -> bytes:
    """With these fields as given; None leaves one out."""
    kept = b"".join(raw for number, _, raw in fields(message) if number not in values)
    return kept + b"".join(
        _field(number, value) for number, value in values.items() if value is not None
    )


def _field(number: int, value: Value) -> bytes:
    if isinstance(value, int):
        return _written(number << 3 | _VARINT) + _written(value)
    return _written(number << 3 | _BYTES) + _written(len(value)) + value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _written(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))
