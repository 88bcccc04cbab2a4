"""Listening, accepting and connecting, on real sockets of the loopback."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from stickyproxy.errors import ConfigError, ErrorKind, ProxyError, Retry, Side
from stickyproxy.model import Bind, Connection, Endpoint, UpstreamProtocol
from stickyproxy.wire.sockets import (
    accept_loop,
    accept_pending,
    bound_address,
    connect,
    listen,
    peer_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOOPBACK = Bind("tcp", host="127.0.0.1", port=0)


async def one_listener(bind: Bind = LOOPBACK) -> trio.SocketListener:
    (listener,) = await listen(bind)
    return listener


def port_of(listener: trio.SocketListener) -> int:
    port = listener.socket.getsockname()[1]
    assert isinstance(port, int)
    return port


async def complaint(bind: Bind) -> str:
    with pytest.raises(ConfigError) as caught:
        await listen(bind)
    (line,) = caught.value.problems
    assert "\n" not in line
    return line


async def test_port_zero_listens_on_a_port_that_can_be_read() -> None:
    async with await one_listener() as listener:
        port = port_of(listener)
        assert port > 0
        assert bound_address(listener) == f"127.0.0.1:{port}"


async def test_a_taken_port_is_one_line_with_the_address_and_a_way_out() -> None:
    async with await one_listener() as listener:
        line = await complaint(Bind("tcp", host="127.0.0.1", port=port_of(listener)))
    assert line.startswith(f"--bind 127.0.0.1:{port_of_line(line)}: address already in use")
    assert "another --bind" in line


def port_of_line(line: str) -> int:
    return int(line.removeprefix("--bind 127.0.0.1:").partition(":")[0])


async def test_an_address_of_another_machine_is_named() -> None:
    line = await complaint(Bind("tcp", host="192.0.2.1", port=0))
    assert "192.0.2.1:0" in line
    assert "0.0.0.0" in line


async def test_an_unknown_host_name_is_named() -> None:
    assert "no.such.host.invalid:80" in await complaint(
        Bind("tcp", host="no.such.host.invalid", port=80)
    )


async def test_a_host_name_listens_on_one_port_for_all_its_addresses() -> None:
    listeners = await listen(Bind("tcp", host="localhost", port=0))
    assert len({port_of(listener) for listener in listeners}) == 1
    for listener in listeners:
        await listener.aclose()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize("host", ["::", ""])
async def test_the_ipv6_wildcard_takes_both_families_and_tells_ipv4_as_ipv4(host: str) -> None:
    async with await one_listener(Bind("tcp", host=host, port=0)) as listener:
        port = port_of(listener)
        assert bound_address(listener) == f"[::]:{port}"
        async with await trio.open_tcp_stream("127.0.0.1", port) as client:
            async with await listener.accept() as accepted:
                peer = peer_of(accepted)
            assert peer.remote_ip == peer.local_ip == "127.0.0.1"
            assert peer.remote_port == client.socket.getsockname()[1]
            assert peer.local_port == port


async def test_a_unix_socket_replaces_one_that_nobody_listens_on(tmp_path: Path) -> None:
    path = str(tmp_path / "proxy.sock")
    first = await one_listener(Bind("unix", path=path))
    await first.aclose()
    async with await one_listener(Bind("unix", path=path)) as listener:
        assert bound_address(listener) == f"unix:{path}"
        async with await trio.open_unix_socket(path), await listener.accept() as accepted:
            assert peer_of(accepted) == Connection()


async def test_a_unix_socket_in_use_and_other_files_are_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "proxy.sock"
    async with await one_listener(Bind("unix", path=str(path))):
        assert "already in use" in await complaint(Bind("unix", path=str(path)))
    precious = tmp_path / "notes.txt"
    precious.write_text("keep")
    assert f"unix:{precious}" in await complaint(Bind("unix", path=str(precious)))
    assert precious.read_text() == "keep"


async def test_a_unix_path_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    assert "folder" in await complaint(Bind("unix", path=str(tmp_path / "no" / "x.sock")))
    assert "108" in await complaint(Bind("unix", path=str(tmp_path / ("x" * 200))))


async def test_a_listening_socket_is_adopted_by_its_number() -> None:
    outer = socket.create_server(("127.0.0.1", 0))
    listener = await one_listener(Bind("fd", fd=outer.detach()))
    async with listener, await trio.open_tcp_stream("127.0.0.1", port_of(listener)):
        await (await listener.accept()).aclose()


async def test_what_is_no_listening_socket_is_not_adopted_and_stays_open() -> None:
    with socket.socket() as deaf:
        line = await complaint(Bind("fd", fd=deaf.fileno()))
        assert f"fd://{deaf.fileno()}" in line
        assert "not a listening socket" in line
        deaf.bind(("127.0.0.1", 0))
    read, write = os.pipe()
    assert "fd://" in await complaint(Bind("fd", fd=read))
    os.close(read)
    os.close(write)
    assert "bad file descriptor" in await complaint(Bind("fd", fd=write))


class StarvedListener(trio.abc.Listener[trio.SocketStream]):
    """A listener whose next accepts fail with the given errors, then work."""

    def __init__(self, real: trio.SocketListener, errors: list[int]) -> None:
        self.real = real
        self.errors = errors

    async def aclose(self) -> None:
        await self.real.aclose()

    async def accept(self) -> trio.SocketStream:
        if self.errors:
            await trio.lowlevel.checkpoint()
            number = self.errors.pop()
            raise OSError(number, os.strerror(number))
        return await self.real.accept()


async def test_accepting_survives_a_lack_of_file_descriptors_and_tells_of_it_once() -> None:
    real = await one_listener()
    listener = StarvedListener(real, [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
    told: list[OSError] = []
    send, receive = trio.open_memory_channel[trio.SocketStream](9)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept_loop, listener, send.send_nowait, told.append)
        async with await trio.open_tcp_stream("127.0.0.1", port_of(real)):
            await (await receive.receive()).aclose()
        await listener.aclose()
    assert [error.errno for error in told] == [errno.ENOMEM]


async def test_exhaustion_that_lasts_is_told_again_each_minute_without_spinning(
    autojump_clock: trio.testing.MockClock,
) -> None:
    assert autojump_clock.autojump_threshold == 0
    listener = StarvedListener(await one_listener(), [errno.EMFILE] * 100_000)
    told: list[OSError] = []
    with trio.move_on_after(150):
        await accept_loop(listener, lambda _: None, told.append)
    assert len(told) == 3
    assert 100_000 - len(listener.errors) <= 1501
    await listener.aclose()


async def test_an_unforeseen_accept_error_is_not_swallowed() -> None:
    async with await one_listener() as real:
        with pytest.raises(OSError, match="Input/output"):
            await accept_loop(StarvedListener(real, [errno.EIO]), lambda _: None, lambda _: None)


async def test_the_accept_loop_ends_when_its_listener_is_closed() -> None:
    listener = await one_listener()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept_loop, listener, lambda _: None, lambda _: None)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()


async def test_queued_connections_are_taken_before_the_listener_closes() -> None:
    listener = await one_listener()
    clients = [await trio.open_tcp_stream("127.0.0.1", port_of(listener)) for _ in range(5)]
    taken = accept_pending(listener)
    listener.socket.close()
    assert len(taken) == len(clients)
    assert {peer_of(stream).remote_port for stream in taken} == {
        client.socket.getsockname()[1] for client in clients
    }
    for stream in taken:
        await stream.send_all(b"served")
    for client in clients:
        assert await client.receive_some() == b"served"
    for stream in (*clients, *taken):
        await stream.aclose()


async def test_no_queued_connection_is_no_stream_and_leaves_the_listener_working() -> None:
    async with await one_listener() as listener:
        assert accept_pending(listener) == []
        async with await trio.open_tcp_stream("127.0.0.1", port_of(listener)):
            await (await listener.accept()).aclose()


async def test_a_stream_without_a_socket_has_no_peer() -> None:
    left, right = trio.testing.memory_stream_pair()
    assert peer_of(left) == peer_of(right) == Connection()


async def test_a_peer_that_is_gone_has_no_address() -> None:
    async with await one_listener() as listener:
        client = await trio.open_tcp_stream("127.0.0.1", port_of(listener))
        async with await listener.accept() as accepted:
            await client.aclose()
            accepted.socket.close()
            assert peer_of(accepted) == Connection()


def endpoint(*addresses: tuple[str, int]) -> Endpoint:
    host, port = addresses[0]
    return Endpoint(f"{host}:{port}", addresses)


def refused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert isinstance(port, int)
    return port


@pytest.mark.parametrize(
    ("protocol", "spoken"), [(UpstreamProtocol.H2C, "h2"), (UpstreamProtocol.HTTP, "http/1.1")]
)
async def test_a_cleartext_connect_has_nodelay_and_says_what_is_spoken(
    protocol: UpstreamProtocol, spoken: str
) -> None:
    async with await one_listener() as listener:
        where = endpoint(("127.0.0.1", port_of(listener)))
        stream, negotiated = await connect(where, protocol, timeout=5)
        assert negotiated == spoken
        assert isinstance(stream, trio.SocketStream)
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await stream.aclose()


async def failure(
    where: Endpoint, protocol: UpstreamProtocol = UpstreamProtocol.H2C, limit: float = 5
) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        await connect(where, protocol, timeout=limit)
    return caught.value


async def test_a_refused_connect_names_the_endpoint_and_may_go_to_the_next() -> None:
    where = endpoint(("127.0.0.1", refused_port()))
    error = await failure(where)
    assert error.kind is ErrorKind.CONNECT_FAILED
    assert error.side is Side.UPSTREAM
    assert error.retry is Retry.NEXT_ENDPOINT
    assert error.detail == f"backend {where.key}: connection refused"


async def test_an_endpoint_of_two_families_is_reached_by_the_one_that_answers() -> None:
    async with await one_listener() as listener:
        where = endpoint(("::1", refused_port()), ("127.0.0.1", port_of(listener)))
        stream, _ = await connect(where, UpstreamProtocol.H2C, timeout=5)
        assert peer_of(stream).remote_ip == "127.0.0.1"
        await stream.aclose()


async def test_when_no_address_answers_the_first_reason_is_told() -> None:
    port = refused_port()
    error = await failure(endpoint(("127.0.0.1", port), ("127.0.0.2", port)))
    assert error.detail.endswith("connection refused")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port whose queue is full, so that the kernel lets SYNs drop: a connect hangs there."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        yield server.getsockname()[1]


async def test_a_silent_endpoint_times_out_and_says_after_how_long(
    silent_port: int, autojump_clock: trio.testing.MockClock
) -> None:
    error = await failure(endpoint(("127.0.0.1", silent_port)), limit=3)
    assert error.detail.endswith("timed out after 3 s")
    assert autojump_clock.current_time() >= 3


async def test_the_second_address_is_tried_while_the_first_is_silent(
    silent_port: int, autojump_clock: trio.testing.MockClock
) -> None:
    assert autojump_clock.autojump_threshold == 0
    async with await one_listener() as listener:
        where = endpoint(("127.0.0.1", silent_port), ("127.0.0.1", port_of(listener)))
        stream, _ = await connect(where, UpstreamProtocol.H2C, timeout=3)
        assert peer_of(stream).remote_port == port_of(listener)
        await stream.aclose()


async def test_a_cancelled_connect_leaves_no_socket_open(
    silent_port: int, autojump_clock: trio.testing.MockClock
) -> None:
    assert autojump_clock.autojump_threshold == 0
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - numbers, not paths
    with trio.move_on_after(1) as scope:
        where = endpoint(("127.0.0.1", silent_port), ("127.0.0.1", silent_port))
        await connect(where, UpstreamProtocol.H2C, timeout=3)
    assert scope.cancelled_caught
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


async def test_our_own_lack_of_file_descriptors_is_not_blamed_on_the_endpoint() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        error = await failure(endpoint(("127.0.0.1", 1)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert error.kind is ErrorKind.OVERLOAD
    assert error.side is Side.INTERNAL
    assert error.retry is Retry.NO
