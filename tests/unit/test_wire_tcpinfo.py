"""What the kernel tells of a connection, asked of a real one."""

from __future__ import annotations

import socket
import sys

import pytest
import trio

from stickyproxy.wire.tcpinfo import KEEP_IDLE, USER_TIMEOUT, TcpInfo, look, stand_firm, tcp_socket
from support.wires import wire_pair

linux = pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")


async def connected() -> tuple[trio.SocketStream, trio.SocketStream]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    near = await trio.open_tcp_stream(*listener.socket.getsockname())
    far = await listener.accept()
    await listener.aclose()
    return near, far


def seen(stream: trio.SocketStream) -> TcpInfo:
    sock = tcp_socket(stream)
    assert sock is not None
    info = look(sock)
    assert info is not None
    return info


@linux
async def test_bytes_sent_are_counted_and_acknowledged() -> None:
    near, far = await connected()
    before = seen(near)
    await near.send_all(b"x" * 5000)
    got = 0
    while got < 5000:
        got += len(await far.receive_some())
    after = seen(near)
    assert after.sent - before.sent == 5000
    assert (after.expired, after.lost, after.resent, after.disordered) == (0, 0, 0, 0)
    assert after.cwnd > 0
    assert 0 < after.min_rtt < 1_000_000
    await near.aclose()
    await far.aclose()


@linux
async def test_what_the_peer_does_not_take_is_known_as_unsent() -> None:
    near, far = await connected()
    with trio.move_on_after(0.05):
        while True:
            await near.send_all(bytes(1 << 16))
    assert seen(near).unsent > 0
    await near.aclose()
    await far.aclose()


@linux
async def test_a_closed_socket_tells_nothing() -> None:
    near, far = await connected()
    sock = tcp_socket(near)
    assert sock is not None
    await near.aclose()
    await far.aclose()
    assert look(sock) is None


@linux
async def test_the_floor_is_set() -> None:
    near, far = await connected()
    stand_firm(near)
    assert near.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == KEEP_IDLE
    assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == USER_TIMEOUT * 1000
    await near.aclose()
    await far.aclose()


async def test_what_is_no_tcp_socket_is_left_alone() -> None:
    here, there = wire_pair()
    one, other = socket.socketpair()
    unix = trio.SocketStream(trio.socket.from_stdlib_socket(one))
    for stream in (here, there, unix):
        assert tcp_socket(stream) is None
        stand_firm(stream)
    await unix.aclose()
    other.close()
