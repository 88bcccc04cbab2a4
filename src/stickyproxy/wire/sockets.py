"""Listening and accepting: from a `Bind` to connected streams. The door of sockets in this house.

What people wrote wrong is told as a `ConfigError` of one line that names the address and what would
be right. What the machine lacks for a while (file descriptors, buffers) is waited out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from stickyproxy.errors import ConfigError
from stickyproxy.model import Bind, Connection
from stickyproxy.wire.connect import EXHAUSTED, connect
from stickyproxy.wire.secured import Secured, below
from stickyproxy.wire.tls import server_tls_context

__all__ = [
    "EXHAUSTED",
    "accept_loop",
    "accept_pending",
    "bound_address",
    "connect",
    "listen",
    "peer_of",
    "server_tls_context",
]

_ABORTED = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPERM,
        errno.EPROTO,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
    }
)
"""accept(2): errors of the one connection that would have been accepted; go on with the next."""

_BACKLOG = 65_535
"""The kernel cuts it to net.core.somaxconn; a burst of a rolling restart should not be refused."""

_PAUSE = 0.1
"""Seconds between tries while exhausted: trio's own figure, 10 wake-ups a second cost nothing."""

_TELL_EVERY = 60.0
"""Seconds between two complaints of exhaustion, so that a log line a minute says it still is so."""

_SockAddr = tuple[str | int | bytes, ...]
_Address = tuple[socket.AddressFamily, _SockAddr]


async def listen(bind: Bind) -> list[trio.SocketListener]:
    """Open what `bind` names: one listener, or one for each address of a host name.

    `0.0.0.0` is IPv4, `::` both families, an empty host the latter where the machine has IPv6. Port
    0 lets the kernel choose, the same port for all addresses. A unix socket that nobody listens on
    any more is replaced.

    Raises:
        ConfigError: one line with the address, the reason and the way out.

    """
    if bind.kind == "fd":
        return [_adopt(bind.fd)]
    if bind.kind == "unix":
        return [_listen_unix(bind.path)]
    return _listen_tcp(bind, await _addresses(bind))


async def _addresses(bind: Bind) -> list[_Address]:
    if not bind.host:
        any_address = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - asked for
        bind = Bind(kind="tcp", host=any_address, port=bind.port)
    try:
        found = await trio.socket.getaddrinfo(
            bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror:
        raise _complaint(
            _named(bind), "no such host name; write an IP address of this machine"
        ) from None
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _listen_tcp(bind: Bind, addresses: Sequence[_Address]) -> list[trio.SocketListener]:
    port = bind.port
    opened: list[socket.socket] = []
    for family, address in addresses:
        try:
            opened.append(_open_tcp(family, (address[0], port, *address[2:])))
        except OSError as error:
            if error.errno == errno.EAFNOSUPPORT and len(addresses) > 1:
                continue
            _close(opened)
            raise _complaint(_named(bind), _why_not(error)) from None
        port = opened[0].getsockname()[1]
    return [_listener(sock) for sock in opened]


def _open_tcp(family: socket.AddressFamily, address: _SockAddr) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address[0] != "::")
        sock.bind(address)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _listen_unix(path: str) -> trio.SocketListener:
    named = f"unix:{path}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        sock.bind(path)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise _complaint(named, _why_not(error)) from None
    return _listener(sock)


def _remove_stale(path: str) -> None:
    """Unlink a socket that refuses connections: its listener died without removing it."""
    try:
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
        except OSError:
            return


def _adopt(number: int) -> trio.SocketListener:
    named = f"fd://{number}"
    right = "pass a listening stream socket (systemd: socket activation starts at 3)"
    try:
        sock = socket.socket(fileno=number)
    except (OSError, ValueError, OverflowError) as error:
        reason = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else str(error)
        raise _complaint(named, f"{reason}; {right}") from None
    listens = sock.type == socket.SOCK_STREAM and sock.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    )
    if not listens:
        sock.detach()
        raise _complaint(named, f"not a listening socket; {right}")
    return _listener(sock)


def _listener(sock: socket.socket) -> trio.SocketListener:
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def _close(socks: Sequence[socket.socket]) -> None:
    for sock in socks:
        sock.close()


def _named(bind: Bind) -> str:
    return _host_port(bind.host, bind.port)


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _complaint(named: str, why: str) -> ConfigError:
    return ConfigError([f"--bind {named}: {why}"])


_WAYS_OUT = {
    errno.EADDRINUSE: "another process listens there; stop it or choose another --bind",
    errno.EACCES: "this user may not; choose a port above 1023 or a folder it may write to",
    errno.EADDRNOTAVAIL: "this machine has no such address; 0.0.0.0 means all it has",
    errno.ENOENT: "the folder does not exist; create it or choose another --bind",
    errno.EAFNOSUPPORT: "this machine does not speak that address family; try 0.0.0.0",
}


def _why_not(error: OSError) -> str:
    if error.errno is None:  # a unix path longer than sun_path: a bare OSError of the socket module
        return f"{str(error).lower()}; choose a path below 108 bytes"
    reason = os.strerror(error.errno).lower()
    way_out = _WAYS_OUT.get(error.errno, "choose another --bind")
    return f"{reason} ({way_out})"


def bound_address(listener: trio.SocketListener) -> str:
    """Where it really listens: `127.0.0.1:43211`, `[::1]:80`, `unix:/run/x.sock`."""
    name = listener.socket.getsockname()
    if isinstance(name, tuple):
        return _host_port(name[0], name[1])
    return f"unix:{os.fsdecode(name)}"


async def accept_loop(
    listener: trio.abc.Listener[trio.SocketStream],
    start: Callable[[trio.SocketStream], None],
    on_exhausted: Callable[[OSError], None],
) -> None:
    """Hand each connection to `start`, until the listener is closed.

    TCP_NODELAY is set (by trio). While the machine is out of file descriptors or buffers it waits
    and tries again; `on_exhausted` hears of it at once and then at most once a minute. Closing the
    listener, here or from another task, is the caller's.
    """
    silent_until = -float("inf")
    while True:
        try:
            stream = await listener.accept()
        except trio.ClosedResourceError:
            return
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            if trio.current_time() >= silent_until:
                silent_until = trio.current_time() + _TELL_EVERY
                on_exhausted(error)
            await trio.sleep(_PAUSE)
        else:
            start(stream)


def accept_pending(listener: trio.SocketListener) -> list[trio.SocketStream]:
    """Take all connections the kernel has queued, without waiting.

    For the end of a drain: their handshake is over, so their clients believe they are connected;
    closing the listener would reset them. Close right after, with no await in between.
    """
    taken: list[trio.SocketStream] = []
    try:
        twin = socket.socket(fileno=os.dup(listener.socket.fileno()))
    except OSError:
        return taken
    with twin:
        twin.settimeout(0)
        for _ in range(_BACKLOG):
            try:
                sock = twin.accept()[0]
            except OSError as error:
                if error.errno in _ABORTED:
                    continue
                break
            taken.append(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))
    return taken


def peer_of(stream: trio.abc.Stream) -> Connection:
    """Both ends as the kernel names them; a TLS stream is looked through.

    Empty for unix sockets, for streams without a socket and for an end that is gone already. An
    IPv4-mapped IPv6 address is told as IPv4, so that a client is the same on either kind of bind.
    """
    tls = (stream.version() or "") if isinstance(stream, Secured) else ""
    stream = below(stream)
    if not isinstance(stream, trio.SocketStream):
        return Connection(tls_version=tls)
    remote_ip, remote_port = _end(stream.socket.getpeername)
    local_ip, local_port = _end(stream.socket.getsockname)
    return Connection(remote_ip, remote_port, local_ip, local_port, tls)


def _end(name_of: Callable[[], object]) -> tuple[str, int]:
    with contextlib.suppress(OSError):
        name = name_of()
        if isinstance(name, tuple):
            return _plain_ip(name[0]), name[1]
    return "", 0


def _plain_ip(text: str) -> str:
    text = text.partition("%")[0]
    return text[len("::ffff:") :] if text.startswith("::ffff:") and "." in text else text
