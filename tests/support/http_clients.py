"""Clients that are not ours: curl as a process, and raw sockets for what no client would send."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from support import rawframes as raw

PATIENCE = 30.0
"""Seconds; a test that needs them has failed. Less than pytest's own limit, which says less."""

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")


@dataclass(frozen=True)
class CurlAnswer:
    """What curl said. `exit_code` 0 is a whole transfer; `fields` are of the final response."""

    exit_code: int
    status: int
    version: str
    fields: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]

    def json(self) -> Any:
        return json.loads(self.body)


def curl(url: str, *arguments: str, stdin: bytes | None = None) -> CurlAnswer:
    """Body and head of one transfer; the head comes by stderr, so that both stay apart."""
    done = subprocess.run(
        [
            *("curl", "--silent", "--globoff", "--path-as-is", "--max-time", str(PATIENCE)),
            *("--dump-header", "/dev/stderr", *arguments, url),
        ],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        check=False,
        timeout=PATIENCE + 5,
    )
    status, version, fields = _head(done.stderr.decode("latin-1"))
    return CurlAnswer(done.returncode, status, version, fields, done.stdout)


def _head(text: str) -> tuple[int, str, list[tuple[str, str]]]:
    status, version = 0, ""
    fields: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("HTTP/"):
            version, code, *_ = line.split()
            status = int(code)
            fields = []
        elif ":" in line:
            name, _, value = line.partition(":")
            fields.append((name.lower(), value.strip()))
    return status, version, fields


class RawClient:
    """A socket that sends exactly what it is told."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read_until(self, mark: bytes) -> bytes:
        """Up to and with `mark`; fails the test when the peer ends before."""
        while mark not in self._buffer:
            data = self.sock.recv(65_536)
            if not data:
                message = f"it ended before {mark!r}: {self._buffer[-200:]!r}"
                raise AssertionError(message)
            self._buffer += data
        head, found, self._buffer = self._buffer.partition(mark)
        return head + found

    def read_exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = self.sock.recv(65_536)
            if not data:
                message = f"it ended {size - len(self._buffer)} bytes early"
                raise AssertionError(message)
            self._buffer += data
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def read_to_end(self) -> bytes:
        """Everything until the peer closes."""
        while data := self.sock.recv(65_536):
            self._buffer += data
        data, self._buffer = self._buffer, b""
        return data

    def read_response(self) -> tuple[int, dict[str, str], bytes]:
        """One HTTP/1.1 response with a content-length, or without a body."""
        head = self.read_until(b"\r\n\r\n").decode("latin-1")
        first, *lines = head.split("\r\n")[:-2]
        fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        return (
            int(first.split()[1]),
            fields,
            self.read_exactly(int(fields.get("content-length", 0))),
        )


class RawH2Client:
    """HTTP/2 by hand, on top of `rawframes`: acknowledges SETTINGS, and does nothing else unasked."""

    def __init__(self, sock: socket.socket, *, settings: bytes = raw.settings()) -> None:
        self.coder = raw.RawCoder()
        self.sock = sock
        self.heads: dict[int, raw.Fields] = {}
        self.trailers: dict[int, raw.Fields] = {}
        self.bodies: dict[int, bytearray] = {}
        self._buffer = bytearray()
        self.send(raw.PREFACE + settings)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def request(self, stream: int, fields: raw.Fields, *, end: bool = True) -> None:
        self.send(self.coder.headers(stream, fields, end=end))

    def frame(self) -> raw.Frame | None:
        """The next frame, its content noted in `heads` and so on; None at the end."""
        while len(self._buffer) < 9 or len(self._buffer) < 9 + self._size():
            try:
                data = self.sock.recv(65_536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._buffer += data
        end = 9 + self._size()
        [found] = raw.parse(bytes(self._buffer[:end]))
        del self._buffer[:end]
        if found.kind == raw.SETTINGS and not found.flags & raw.ACK:
            with suppress(OSError):
                self.send(raw.settings_ack())
        self._note(found)
        return found

    def _size(self) -> int:
        return int.from_bytes(self._buffer[:3], "big")

    def ending(self, stream: int) -> raw.Frame | None:
        """What ends that stream: its last frame, or GOAWAY. None: the connection just closed.

        What came on the way lies in `heads`, `bodies` and `trailers`.
        """
        while (found := self.frame()) is not None:
            ends = found.flags & raw.END_STREAM and found.kind in (raw.HEADERS, raw.DATA)
            if found.kind == raw.GOAWAY:
                return found
            if found.stream == stream and (ends or found.kind == raw.RST_STREAM):
                return found
        return None

    def _note(self, found: raw.Frame) -> None:
        stream = found.stream
        if found.kind == raw.DATA:
            self.bodies.setdefault(stream, bytearray()).extend(found.payload)
        elif found.kind == raw.HEADERS:
            fields = self.coder.fields(found.payload)
            if stream in self.heads:
                self.trailers[stream] = fields
            elif fields[0][1][:1] != b"1":
                self.heads[stream] = fields

    def response(self, stream: int) -> tuple[dict[bytes, bytes], bytes, raw.Fields]:
        """Head (the final one), body and trailers; fails the test if the stream is reset."""
        found = self.ending(stream)
        if found is None or found.kind in (raw.RST_STREAM, raw.GOAWAY):
            message = f"it said {found} after {self.heads.get(stream)}"
            raise AssertionError(message)
        return (
            dict(self.heads[stream]),
            bytes(self.bodies.get(stream, b"")),
            self.trailers.get(stream, []),
        )


def h2_request(path: bytes, *more: tuple[bytes, bytes], method: bytes = b"GET") -> raw.Fields:
    return [
        (b":method", method),
        (b":scheme", b"http"),
        (b":authority", b"example.test"),
        (b":path", path),
        *more,
    ]


@contextmanager
def raw_h2_client(port: int) -> Iterator[RawH2Client]:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        yield RawH2Client(sock)


@contextmanager
def raw_client(port: int) -> Iterator[RawClient]:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        yield RawClient(sock)
