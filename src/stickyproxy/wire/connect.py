"""From an Endpoint to a connected stream, or to words that say why not.

Several addresses of one endpoint are raced as in RFC 8305: in their order, the next one when the
one before failed or has been silent for 250 ms. Then they are asked again, by fresh connections: the
kernel repeats a lost SYN after a whole second only. One time limit spans connect and TLS handshake.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl

import trio

from stickyproxy.errors import ConfigError, ErrorKind, ProxyError, Retry, Side
from stickyproxy.model import Endpoint, UpstreamProtocol, UpstreamTls
from stickyproxy.wire.secured import Secured
from stickyproxy.wire.tls import client_tls_context

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What socket(2) and accept(2) say when this machine, not the peer, cannot go on."""

_ATTEMPT_DELAY = 0.25  # seconds, RFC 8305 §8
_LAST_DELAY = 1.25
"""Seconds before the first address is tried for the last time. With the kernel's own repetitions a SYN is
on its way each second at least, and a host that is off sees three connections within 3 s."""


async def connect(
    endpoint: Endpoint,
    protocol: UpstreamProtocol,
    *,
    timeout: float,  # noqa: ASYNC109 - it becomes part of what is said
    tls: UpstreamTls | None = None,
    host: str = "",
    preamble: bytes = b"",
) -> tuple[trio.abc.Stream, str]:
    """A stream to `endpoint` and what is spoken on it: `h2` or `http/1.1`.

    `timeout` in seconds, for all of it. `host` is the service's host as written: the name that TLS
    asks for and verifies, unless `tls.server_name` says another. TLS without a `tls` is verified
    against the system's CAs. `preamble` is said first, before any handshake.

    Raises:
        ProxyError: CONNECT_FAILED, to be tried on the next endpoint; OVERLOAD if it is this
            machine that cannot open a socket (which says nothing about the endpoint).

    """
    try:
        with trio.fail_after(timeout):
            stream = await _connect_first(endpoint.addresses)
            if preamble:
                await _say(stream, preamble)
            if not protocol.tls:
                return stream, "h2" if protocol.multiplexed else "http/1.1"
            tls = tls or UpstreamTls()
            name = tls.server_name or host or endpoint.addresses[0][0]
            return await _handshake(stream, tls, protocol, name)
    except trio.TooSlowError:
        raise _failed(endpoint, f"timed out after {timeout:g} s") from None
    except _HandshakeError as error:
        raise _failed(endpoint, str(error)) from None
    except ConfigError as error:
        raise _failed(endpoint, error.problems[0]) from None
    except trio.BrokenResourceError:
        raise _failed(endpoint, "it closed the connection") from None
    except OSError as error:
        if error.errno in EXHAUSTED:
            reason = os.strerror(error.errno).lower()
            raise ProxyError(ErrorKind.OVERLOAD, Side.INTERNAL, f"no socket: {reason}") from None
        raise _failed(endpoint, _in_words(error)) from None


async def _say(stream: trio.SocketStream, preamble: bytes) -> None:
    try:
        await stream.send_all(preamble)
    except BaseException:
        stream.socket.close()
        raise


def _failed(endpoint: Endpoint, reason: str) -> ProxyError:
    return ProxyError(
        ErrorKind.CONNECT_FAILED,
        Side.UPSTREAM,
        f"backend {endpoint.key}: {reason}",
        retry=Retry.NEXT_ENDPOINT,
    )


def _in_words(error: OSError) -> str:
    if error.errno == errno.ECONNREFUSED:
        return "connection refused"
    return os.strerror(error.errno).lower() if error.errno else str(error)


async def _connect_first(addresses: tuple[tuple[str, int], ...]) -> trio.SocketStream:
    race = _Race()
    try:
        async with trio.open_nursery() as nursery:
            for wanted, delay in _schedule(addresses):
                silent = [one for one in (wanted, *addresses) if one not in race.failed]
                if not silent:
                    break
                address = silent[0]
                failed = trio.Event()
                nursery.start_soon(race.run, address, failed, nursery.cancel_scope)
                with trio.move_on_after(delay):
                    await failed.wait()
    except BaseException:
        race.abandon()
        raise
    return race.result()


def _schedule(addresses: tuple[tuple[str, int], ...]) -> list[tuple[tuple[str, int], float]]:
    """Whom to try, and how long to wait for it before the next is tried as well."""
    first = addresses if len(addresses) > 1 else addresses * 2
    waits = [_ATTEMPT_DELAY] * (len(first) - 1) + [_LAST_DELAY, 0.0]
    return list(zip((*first, *addresses[:1]), waits, strict=False))


async def _connect_one(address: tuple[str, int]) -> trio.SocketStream:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        await sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


class _Race:
    """Attempts on several addresses; the first that connects wins, the first error is told."""

    def __init__(self) -> None:
        self.failed: set[tuple[str, int]] = set()
        self._winner: trio.SocketStream | None = None
        self._errors: list[OSError] = []

    async def run(
        self, address: tuple[str, int], failed: trio.Event, others: trio.CancelScope
    ) -> None:
        try:
            stream = await _connect_one(address)
        except OSError as error:
            self._errors.append(error)
            self.failed.add(address)
            failed.set()
            return
        if self._winner is None:
            self._winner = stream
            others.cancel()
        else:
            stream.socket.close()

    def abandon(self) -> None:
        if self._winner is not None:
            self._winner.socket.close()

    def result(self) -> trio.SocketStream:
        if self._winner is None:
            raise self._errors[0] if self._errors else OSError("it has no address")
        return self._winner


class _HandshakeError(Exception):
    """A handshake that failed, in words."""


async def _handshake(
    stream: trio.SocketStream, tls: UpstreamTls, protocol: UpstreamProtocol, name: str
) -> tuple[trio.abc.Stream, str]:
    done = False
    try:
        secured = Secured(stream, client_tls_context(tls, protocol), server_hostname=name)
        await secured.do_handshake()
        chosen = secured.selected_alpn_protocol()
        if protocol.multiplexed and chosen != "h2":
            raise _HandshakeError(
                "did not negotiate h2 by ALPN (https:// would speak HTTP/1.1 to it)"
            )
        done = True
    except (trio.BrokenResourceError, ssl.SSLError, ValueError) as error:
        raise _HandshakeError(_handshake_words(error, name, tls)) from error
    finally:
        if not done:
            stream.socket.close()
    return secured, chosen or "http/1.1"


def _handshake_words(error: Exception, name: str, tls: UpstreamTls) -> str:
    cause = error if isinstance(error, ssl.SSLError) else error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        way_out = "use --backend-ca FILE or --backend-insecure"
        if tls.ca is not None:
            way_out = f"by the CA of {tls.name}"
        return f"certificate verify failed for {name}: {cause.verify_message} ({way_out})"
    if isinstance(cause, ssl.SSLError) and cause.reason == "WRONG_VERSION_NUMBER":
        return "TLS handshake failed: it does not speak TLS (h2c:// or http:// would not)"
    if isinstance(cause, ssl.SSLError) and cause.reason and not isinstance(cause, ssl.SSLEOFError):
        return f"TLS handshake failed: {cause.reason.replace('_', ' ').lower()}"
    return "TLS handshake failed: it closed the connection"
