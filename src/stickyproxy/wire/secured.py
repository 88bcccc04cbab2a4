"""TLS whose records are sealed and opened here, so that the hub reads and writes the socket below.

OpenSSL works on two buffers in memory and never sees the socket. Trio's SSLStream does as much, but keeps
them to itself: a link over it needs a task for each direction. What a peer may still say of TLS itself
after the handshake (tickets, new keys) is taken in by whoever reads, and what we owe it leaves before
whatever is said next.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterable

import trio

from stickyproxy.codec.api import Piece

RECORD = 16_384
"""Bytes of a record at most (RFC 8446 §5.1), and so much goes through OpenSSL's buffers at a time: they stay

as large as they ever were, 0.5 MB a connection for what one read and one write bring at most.
"""
_FRAMING = 64
"""Bytes that a record may have besides what is in it (RFC 8446 §5.2: 22, RFC 5288: 29)."""
MOST_VOID = RECORD + 2048
"""Bytes that held nothing for us, from which on they are no record that is not whole yet (RFC 5246 §6.2.3)
but padding, or what TLS says for itself: some 700 KeyUpdates of 15 to 33 us each. BoringSSL stops at 32 in a
row, OpenSSL 3 never."""
MOST_HELD = 262_144
"""Bytes said while half of a ticket is here: a moment's worth, of a peer that goes on."""


def _records(data: bytes) -> list[memoryview]:
    view = memoryview(data)
    return [view[at : at + RECORD] for at in range(0, len(view), RECORD)]


class Secured(trio.abc.Stream):
    """`transport` under TLS. Who closes without close_notify has ended, as with HTTPS (RFC 9112 §9.8).

    `said`: bytes of the peer that were read before. `written`: bytes that went to `transport` so far.
    `void`: bytes that were read, as far as they were more than what they held.
    """

    def __init__(
        self,
        transport: trio.abc.Stream,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        said: bytes = b"",
    ) -> None:
        self.transport_stream = transport
        self.written = 0
        self.void = 0
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        self.version = self._tls.version
        self.selected_alpn_protocol = self._tls.selected_alpn_protocol
        self.getpeercert = self._tls.getpeercert
        self._incoming.write(said)
        self._sending = trio.Lock()
        self._ended = False
        self._held = b""
        self._failure: ssl.SSLError | None = None

    async def do_handshake(self) -> None:
        """Raises BrokenResourceError, with OpenSSL's error as its cause; its alert is not sent yet."""
        try:
            while not self._shaken():
                await self._flush()
                self._hear(await self.transport_stream.receive_some(RECORD))
        except ssl.SSLError as error:
            raise trio.BrokenResourceError from error
        await self._flush()

    def _shaken(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def _hear(self, data: bytes | bytearray) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    # --- without waiting, for whoever has the socket ---

    @property
    def owes(self) -> int:
        """Bytes that `seal` would bring by itself, and one for what it could not seal before."""
        return self._outgoing.pending + bool(self._held)

    def seal(self, pieces: Iterable[Piece]) -> list[Piece]:
        """What is to be sent for `pieces`, behind what TLS itself had to say. Dropped once it is broken,

        as what is sent on a broken connection is: `over` tells.
        """
        data, self._held = b"".join((self._held, *pieces)), b""
        if len(data) <= RECORD:
            return self._sealed(data) if data or self.owes else []
        return [part for record in _records(data) for part in self._sealed(record)]

    def _sealed(self, record: Piece) -> list[Piece]:
        try:
            if record:
                self._tls.write(record)  # all of it: memory has room
        except ssl.SSLWantReadError as error:
            self._held += record  # half of a ticket is here: it goes when the rest is
            if len(self._held) > MOST_HELD:
                self._failure, self._held = self._failure or error, b""
        except ssl.SSLError as error:
            self._failure = self._failure or error
        sealed = self._outgoing.read()
        self.written += len(sealed)
        return [sealed] if sealed else []

    def open(self, data: bytes) -> bytes:
        """All that can be read, now that the socket gave `data` (b"" is nothing, not its end)."""
        if len(data) <= RECORD:
            parts = self._opened(data)
        else:
            parts = [part for some in _records(data) for part in self._opened(some)]
        held = sum(map(len, parts)) + _FRAMING * (len(parts) - parts.count(b""))
        self.void = max(0, self.void + len(data) - held)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _opened(self, data: Piece) -> list[bytes]:
        self._incoming.write(data)
        parts = [self._open_one(RECORD)]
        while parts[-1] and (self._incoming.pending or self._tls.pending()):
            parts.append(self._open_one(RECORD))
        return parts

    def over(self) -> bool:
        """Whether the peer said that what was opened was all.

        Raises:
            BrokenResourceError: what follows is no TLS, or was changed on the way.

        """
        if self._failure is not None:
            raise trio.BrokenResourceError from self._failure
        return self._ended

    def _open_one(self, size: int) -> bytes:
        """Nothing if a record is not whole yet, and at the end."""
        try:
            opened = self._tls.read(size)
        except ssl.SSLWantReadError:
            return b""
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            opened = b""
        except ssl.SSLError as error:
            self._failure = self._failure or error
            return b""
        self._ended = not opened
        return opened

    def farewell(self) -> bytes:
        """Our close_notify, with whatever was owed; nothing where the handshake was never done."""
        with contextlib.suppress(ssl.SSLError, ValueError):  # it waits for the peer's
            self._tls.unwrap()
        return self._outgoing.read()

    # --- as a stream, for whoever has not ---

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As a plain stream's. Raises BrokenResourceError, and what the one below raises."""
        await trio.lowlevel.checkpoint()
        while True:
            await self._flush()  # before anything is opened, which would be lost if that fails
            opened = self._open_one(max_bytes or RECORD)
            if opened or self.over():
                return opened
            self._hear(await self.transport_stream.receive_some(RECORD))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As a plain stream's. Raises BrokenResourceError, and what the one below raises."""
        async with self._sending:
            await self.transport_stream.send_all(b"".join(self.seal([bytes(data)])))
        self.over()

    async def _flush(self) -> None:
        if self.owes:
            async with self._sending:
                await self.transport_stream.send_all(b"".join(self.seal(())))

    async def wait_send_all_might_not_block(self) -> None:
        """As a plain stream's."""
        await self.transport_stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Without a close_notify, as HTTPS does without; `wire.farewell` says one."""
        await self.transport_stream.aclose()


def below(stream: trio.abc.Stream) -> trio.abc.Stream:
    """What `stream` goes over: itself, unless it is TLS."""
    return stream.transport_stream if isinstance(stream, Secured) else stream
