"""Ports come and go with Listeners; nobody who is in is turned out, and the default bind stands in."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import trio

from stickyproxy.config.load import Settings
from stickyproxy.config.process.settings import ProcessSettings
from stickyproxy.control import ports as ports_module
from stickyproxy.control.doors import Listening
from stickyproxy.control.ports import Ports
from stickyproxy.control.worker import Worker
from stickyproxy.edge import Front, ListenerSpec
from stickyproxy.errors import ConfigError
from stickyproxy.metrics import Metrics
from stickyproxy.model import Bind, Snapshot
from stickyproxy.policy.routes import Routes
from support.edge_clients import free_port, refuses

PATIENCE = 30.0
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


def settings(default: int, *specs: ListenerSpec, binds_given: bool = False) -> Settings:
    process = ProcessSettings(binds=(Bind("tcp", host="127.0.0.1", port=default),))
    front = Front(listeners=specs, binds_given=binds_given)
    return Settings(process, routes=(), clusters=(), front=front)


class Running:
    """A worker and its ports. `open` is what the admin port would show."""

    def __init__(self, begin: Settings) -> None:
        self.worker = Worker(begin.process, Metrics(), None)
        self.ports = Ports(self.worker, self._changed)
        self.open: Sequence[str] = ()
        self.sockets: set[trio.socket.SocketType] = set()
        self.clients: list[trio.SocketStream] = []
        self._happened = trio.Event()

    def _changed(self, found: Sequence[Listening]) -> None:
        self.open = [one.address for one in found]
        self.sockets.update(one.listener.socket for one in found)
        self._happened.set()

    async def connect(self, port: int) -> trio.SocketStream:
        self.clients.append(await trio.open_tcp_stream("127.0.0.1", port))
        return self.clients[-1]

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._happened = trio.Event()
            with trio.move_on_after(0.01):
                await self._happened.wait()


@asynccontextmanager
async def running(begin: Settings) -> AsyncIterator[Running]:
    it = Running(begin)
    nothing = Snapshot(1, Routes(()), {})
    with trio.fail_after(PATIENCE):
        listening = await it.ports.first(begin)
        async with trio.open_nursery() as nursery:
            await nursery.start(it.worker.run, listening, nothing)
            nursery.start_soon(it.ports.run)
            yield it
            nursery.cancel_scope.cancel()
        for one in it.clients:
            one.socket.close()
        for sock in it.sockets:
            sock.close()


async def closes_after(stream: trio.SocketStream) -> bool:
    """Whether the answer to a request is the connection's last."""
    await stream.send_all(GET)
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = await stream.receive_some()
        assert data, answer
        answer += data
    return b"connection: close" in answer.lower()


async def test_listeners_take_the_default_binds_place_and_give_it_back() -> None:
    default, port = free_port(), free_port()
    async with running(settings(default)) as it:
        assert it.open == [f"127.0.0.1:{default}"]
        inside = await it.connect(default)
        assert not await closes_after(inside)
        it.ports.configure(settings(default, ListenerSpec("l", port)))
        await it.until(lambda: it.open == [f"0.0.0.0:{port}"])
        await it.until(lambda: refuses(default))
        assert await closes_after(inside), "served to its end, and told to go"
        it.ports.configure(settings(default))
        await it.until(lambda: it.open == [f"127.0.0.1:{default}"])
        assert not await closes_after(await it.connect(default))


async def test_a_port_asked_for_beside_takes_nobodys_place() -> None:
    default, port = free_port(), free_port()
    beside = ListenerSpec("Host a additionalPort", port, "clear", beside=True)
    async with running(settings(default, beside)) as it:
        assert set(it.open) == {f"127.0.0.1:{default}", f"0.0.0.0:{port}"}


async def test_a_port_that_changes_its_meaning_is_never_closed() -> None:
    default, port = free_port(), free_port()
    async with running(settings(default, ListenerSpec("one", port))) as it:
        inside = await it.connect(port)
        assert not await closes_after(inside)
        it.ports.configure(settings(default, ListenerSpec("two", port, "clear")))
        closed = trio.Event()

        async def asks_until_closed() -> None:
            while not await closes_after(inside):
                assert not refuses(port)
            closed.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(asks_until_closed)
            await closed.wait()
        assert it.open == [f"0.0.0.0:{port}"]
        assert not await closes_after(await it.connect(port))


async def test_other_rules_for_a_port_disturb_no_connection() -> None:
    default, port = free_port(), free_port()
    async with running(settings(default, ListenerSpec("one", port))) as it:
        inside = await it.connect(port)
        assert not await closes_after(inside)
        other = ListenerSpec("one", port, security="SECURE", l7_depth=3)
        it.ports.configure(settings(default, other, ListenerSpec("two", second := free_port())))
        await it.until(lambda: f"0.0.0.0:{second}" in it.open)
        assert not await closes_after(inside)


async def test_a_taken_port_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports_module, "TRY_AGAIN", 0.01)
    default, good = free_port(), free_port()
    with socket.create_server(("0.0.0.0", 0)) as other:
        taken = other.getsockname()[1]
        wanted = settings(default, ListenerSpec("good", good), ListenerSpec("bad", taken))
        async with running(wanted) as it:
            assert it.open == [f"0.0.0.0:{good}"]
            other.close()
            await it.until(lambda: f"0.0.0.0:{taken}" in it.open)
            assert not await closes_after(await it.connect(taken))


async def test_where_no_port_can_be_had_there_is_no_start() -> None:
    with socket.create_server(("0.0.0.0", 0)) as other:
        taken = other.getsockname()[1]
        begin = settings(free_port(), ListenerSpec("Listener bad", taken))
        with pytest.raises(ConfigError, match=f"Listener bad: port 0.0.0.0:{taken}: address"):
            await Running(begin).ports.first(begin)


async def test_binds_that_were_given_stay_whatever_listeners_do() -> None:
    default, port = free_port(), free_port()
    begin = settings(default, ListenerSpec("one", port), binds_given=True)
    async with running(begin) as it:
        assert set(it.open) == {f"127.0.0.1:{default}", f"0.0.0.0:{port}"}
        it.ports.configure(settings(default, binds_given=True))
        await it.until(lambda: it.open == [f"127.0.0.1:{default}"])
        assert not await closes_after(await it.connect(default))


async def test_a_port_that_comes_while_draining_is_closed_again() -> None:
    default, port = free_port(), free_port()
    async with running(settings(default)) as it:
        it.worker.drain(float("inf"))
        it.ports.configure(settings(default, ListenerSpec("one", port)))
        await it.until(lambda: f"0.0.0.0:{port}" in it.open)
        await it.until(lambda: refuses(port))
