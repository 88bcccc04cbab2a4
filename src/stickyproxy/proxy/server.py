"""A downstream connection from handshake to drain; one task a stream."""

from __future__ import annotations

import select
from collections.abc import Callable
from dataclasses import dataclass, replace

import trio

from stickyproxy.counters import ProcessStats
from stickyproxy.events import RequestRejected
from stickyproxy.model import Connection
from stickyproxy.proxy.admission import Admission
from stickyproxy.wire.age import AgeLimit
from stickyproxy.wire.beginnings import Serve
from stickyproxy.wire.certificates import Certificates
from stickyproxy.wire.codecs import Codecs
from stickyproxy.wire.conduct import FIRST_BYTE, Conduct
from stickyproxy.wire.direct import FIRST_READ
from stickyproxy.wire.farewell import linger
from stickyproxy.wire.hello import TLS_HANDSHAKE, UNRECOGNIZED_NAME, read_hello
from stickyproxy.wire.link import Link
from stickyproxy.wire.proxy_protocol import TIMEOUT, ProxyHeaderError, announced
from stickyproxy.wire.secured import Secured
from stickyproxy.wire.sockets import peer_of
from stickyproxy.wire.tls import client_cert_of
from stickyproxy.wire.watch import LinkWatch

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 §3.4
HANDSHAKE_TIMEOUT = 10.0
"""Seconds (Envoy's edge guide gives it as long)."""
ALERT_TIMEOUT = 1.0
"""Seconds for the last word of a handshake that failed; a few bytes into a socket's buffer."""

ServeStream = Serve


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds for what comes before a first request; `math.inf` is no limit."""

    announcement: float = TIMEOUT
    handshake: float = HANDSHAKE_TIMEOUT
    first_byte: float = FIRST_BYTE


class Server:
    """Serves the connections of some listeners. `links` are those that a drain has to end.

    `tls` may be exchanged, for the handshakes to come. `listener` is the Listener's name, if any.
    `serve` makes, for a connection, what runs for each of its requests. `rejected` hears of requests
    that never became a stream, with the protocol's name; `bug` of what should not have happened.
    `age` None lets connections live for ever; `conduct` and `admission` None limit nothing.
    `patience` None: the default one.
    `idle_timeout` (seconds, None: an hour) is asked for each. `announced_from` says whether who
    connects from an address begins with a PROXY header, and is believed.
    """

    def __init__(
        self,
        *,
        serve: Callable[[Connection], ServeStream],
        rejected: Callable[[RequestRejected, Connection, str], None],
        bug: Callable[[BaseException, str], None],
        codecs: Codecs,
        watch: LinkWatch,
        stats: ProcessStats,
        tls: Certificates | None = None,
        age: AgeLimit | None = None,
        conduct: Conduct | None = None,
        admission: Admission | None = None,
        announced_from: Callable[[str], bool] = lambda _: False,
        idle_timeout: Callable[[], float | None] = lambda: None,
        listener: str = "",
        patience: Patience | None = None,
    ) -> None:
        self.links: set[Link] = set()
        self.draining = False
        self._serve_of = serve
        self._rejected = rejected
        self._bug = bug
        self._codecs = codecs
        self._watch = watch
        self._stats = stats
        self._limits = [limit for limit in (age, conduct) if limit is not None]
        self._admission = admission or Admission()
        self._announced_from = announced_from
        self._idle_timeout = idle_timeout
        self._listener = listener
        self._patience = patience or Patience()
        self.tls = tls

    async def serve_connection(self, stream: trio.abc.Stream, protocol: str) -> None:
        """The boundary of a connection: nothing that happens on it reaches another.

        `protocol` is the bind's: auto, clear, h2c or https.
        """
        stats = self._stats
        stats.downstream_connections += 1
        stats.downstream_connections_total += 1
        try:
            await self._admit(stream, protocol)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            return
        except Exception as bug:  # noqa: BLE001 - the boundary: our bug ends one connection
            self._bug(bug, "connection")
        finally:
            stats.downstream_connections -= 1
            await trio.aclose_forcefully(stream)

    async def _admit(self, stream: trio.abc.Stream, protocol: str) -> None:
        peer = peer_of(stream)
        if self._announced_from(peer.remote_ip):
            try:
                peer = await announced(stream, peer, within=self._patience.announcement)
            except ProxyHeaderError:
                self._stats.downstream_protocol_errors_total += 1
                return
        if not self._admission.enter(peer.remote_ip):
            self._stats.downstream_connections_refused_total += 1
            return
        try:
            await self._serve(stream, protocol, peer)
        finally:
            self._admission.leave(peer.remote_ip)

    async def _serve(self, stream: trio.abc.Stream, protocol: str, peer: Connection) -> None:
        transport, multiplexed, initial, tls_name = await self._open(stream, protocol)
        if multiplexed is None:
            return
        connection = peer
        if isinstance(transport, Secured):
            connection = replace(
                connection,
                tls_version=transport.version() or "",
                tls_name=tls_name,
                client_cert=client_cert_of(transport),
            )
        if self._listener:
            connection = replace(connection, listener=self._listener)
        name = "HTTP/2" if multiplexed else "HTTP/1.1"
        link = Link(
            transport,
            self._codecs.server(multiplexed=multiplexed, tls=connection.tls),
            serve=self._serve_of(connection),
            rejected=lambda event: self._rejected(event, connection, name),
            hung_up=_hang_up_of(stream),
            allowed=self._codecs.allowed,
        )
        self.links.add(link)
        self._watch.add(link, *self._limits, idle_timeout=self._idle_timeout())
        if self.draining:
            link.drain()
        try:
            await link.run(initial)
        finally:
            self._watch.discard(link)
            self.links.discard(link)

    async def _open(
        self, stream: trio.abc.Stream, protocol: str
    ) -> tuple[trio.abc.Stream, bool | None, bytes, str]:
        """The transport, whether HTTP/2 is spoken (None: nothing was said), bytes read for that,

        and the name of the certificate.
        """
        tls = self.tls
        if protocol == "https" and tls:
            return await self._secure(stream, tls, b"")
        if protocol == "h2c":
            return stream, True, b"", ""
        initial = await _first_bytes(stream, self._patience.first_byte)
        if not initial:
            return stream, None, b"", ""
        if initial[0] == TLS_HANDSHAKE and protocol == "auto" and tls:
            return await self._secure(stream, tls, initial)
        return stream, initial.startswith(PREFACE), initial, ""

    async def _secure(
        self, stream: trio.abc.Stream, tls: Certificates, initial: bytes
    ) -> tuple[trio.abc.Stream, bool, bytes, str]:
        try:
            with trio.fail_after(self._patience.handshake):
                secured, name = await _handshake(stream, tls, initial)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            self._stats.downstream_handshake_failures_total += 1
            raise
        return secured, secured.selected_alpn_protocol() == "h2", b"", name

    def drain(self) -> None:
        """Every link says goodbye; those that come from the accept queue do so at once."""
        self.draining = True
        for link in list(self.links):
            link.drain()


async def _handshake(
    stream: trio.abc.Stream, tls: Certificates, initial: bytes
) -> tuple[Secured, str]:
    """With the certificate of the name that is asked for; no other has a say in it."""
    name = ""
    if tls.by_name:
        name, initial = await read_hello(stream, initial)
    chosen = tls.pick(name)
    if chosen is None:
        await stream.send_all(UNRECOGNIZED_NAME)
        raise trio.BrokenResourceError("no certificate for the name that was asked for")
    secured = Secured(stream, chosen.context, server_side=True, said=initial)
    try:
        await secured.do_handshake()
    except trio.BrokenResourceError:
        await _tell_why(secured, stream)
        raise
    return secured, chosen.name


async def _tell_why(secured: Secured, stream: trio.abc.Stream) -> None:
    """OpenSSL's alert (`certificate required`)."""
    if secured.owes:
        with trio.move_on_after(ALERT_TIMEOUT):
            await stream.send_all(b"".join(secured.seal(())))
        await linger(
            stream
        )  # who has said much by now (TLS 1.3) would else get a reset in its place


async def _first_bytes(stream: trio.abc.Stream, within: float) -> bytes:
    """Enough to tell HTTP/2's preface from an HTTP/1.1 request; b"" when nothing came."""
    initial = b""
    with trio.move_on_after(within):
        while len(initial) < len(PREFACE) and PREFACE.startswith(initial):
            data = await stream.receive_some(FIRST_READ)
            if not data:
                break
            initial += data
    return initial


def _hang_up_of(stream: trio.abc.Stream) -> Callable[[], bool] | None:
    """Whether the peer closed behind data we have not read; only Linux tells."""
    if not isinstance(stream, trio.SocketStream) or not hasattr(select, "POLLRDHUP"):
        return None
    poll = select.poll()
    poll.register(stream.socket.fileno(), select.POLLRDHUP)
    return lambda: bool(poll.poll(0))
