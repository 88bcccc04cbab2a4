"""What the kernel knows of a connection, and the floor that it is told to stand on. Linux only.

Elsewhere, and for what is no TCP socket, nothing is known and nothing is set: health tracking then has
PING and its own clock. A look costs 1.3 µs.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from typing import NamedTuple

import trio

from stickyproxy.wire.secured import below

_LAYOUT = struct.Struct("=2xB21x4I28xI8xI60xII48xQQ8xI")
"""struct tcp_info of linux/tcp.h as of 5.4; later kernels only append to it."""

USER_TIMEOUT = 30.0
"""Seconds without an acknowledgement before the kernel gives up (its own: 15 min). Above all that is
decided here, and long enough for a path that comes back."""
KEEP_IDLE = 15
KEEP_INTERVAL = 5
KEEP_PROBES = 3
"""Seconds of silence, seconds between probes, and their number: a peer that is gone is known in 30 s,
before middleboxes forget a connection (NATs: minutes) and below USER_TIMEOUT, which caps it."""
LEAST_RTO = 0.05
"""Seconds. The kernel's 200 ms is meant for delayed acknowledgements, which Linux sends after 40 ms at
the latest; a lost request then waits four times too long."""
_TCP_RTO_MIN_US = 45  # linux/tcp.h of 6.15, which the socket module does not name


class TcpInfo(NamedTuple):
    """`expired`: retransmission timers that ran out in a row. Segments: `unacked`, `sacked`, `lost`,

    `retrans` (sent again, not acknowledged yet), `cwnd`. `rtt` and `min_rtt` in µs. `unsent` bytes wait
    for the window. `sent` and `resent` count bytes; `disordered` segments that came after a gap.
    """

    expired: int
    unacked: int
    sacked: int
    lost: int
    retrans: int
    rtt: int
    cwnd: int
    unsent: int
    min_rtt: int
    sent: int
    resent: int
    disordered: int


def tcp_socket(transport: trio.abc.Stream) -> trio.socket.SocketType | None:
    """The socket below, if there is one of which `look` can tell."""
    transport = below(transport)
    if sys.platform != "linux" or not isinstance(transport, trio.SocketStream):
        return None
    sock = transport.socket
    return sock if sock.family in (socket.AF_INET, socket.AF_INET6) else None


def look(sock: trio.socket.SocketType) -> TcpInfo | None:
    """None for a socket that is closed, and for a kernel that knows less."""
    try:
        return TcpInfo._make(
            _LAYOUT.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAYOUT.size))
        )
    except (OSError, struct.error):
        return None


def acknowledged(transport: trio.abc.Stream) -> bool:
    """Whether the peer's kernel has all that was sent: its host lives, whatever its process does."""
    sock = tcp_socket(transport)
    info = look(sock) if sock is not None else None
    return info is not None and info.unacked == info.unsent == 0


def stand_firm(transport: trio.abc.Stream) -> None:
    """The floor of a connection to a backend, below whatever else looks after it."""
    sock = tcp_socket(transport)
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, KEEP_IDLE),
        (socket.TCP_KEEPINTVL, KEEP_INTERVAL),
        (socket.TCP_KEEPCNT, KEEP_PROBES),
        (socket.TCP_USER_TIMEOUT, int(USER_TIMEOUT * 1000)),
        (_TCP_RTO_MIN_US, int(LEAST_RTO * 1e6)),
    ):
        with contextlib.suppress(OSError):  # a kernel that does not know it: as without
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
