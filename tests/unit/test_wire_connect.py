"""Whom a dial tries, and when it tries again. The network is a list of who answers."""

from __future__ import annotations

import math
from typing import cast

import pytest
import trio

from stickyproxy.errors import ErrorKind, ProxyError
from stickyproxy.model import Endpoint, UpstreamProtocol
from stickyproxy.wire import connect as room
from support.clock import on_jumping_clock

A, B = ("10.0.0.1", 80), ("10.0.0.2", 80)
Address = tuple[str, int]


class Network:
    """`answers` from these times on (seconds); `refused` are refused at once. SYNs before are lost."""

    def __init__(self, answers: dict[Address, float], *refused: Address) -> None:
        self.syns: list[tuple[Address, float]] = []
        self._answers = answers
        self._refused = refused

    async def connect(self, address: Address) -> trio.SocketStream:
        now = trio.current_time()
        self.syns.append((address, round(now, 3)))
        await trio.lowlevel.checkpoint()
        if address in self._refused:
            raise ConnectionRefusedError(111, "refused")
        if now < self._answers.get(address, math.inf):
            await trio.sleep_forever()
        return cast("trio.SocketStream", address)


async def dial(network: Network, patch: pytest.MonkeyPatch, *addresses: Address) -> object:
    patch.setattr(room, "_connect_one", network.connect)
    endpoint = Endpoint("e:80", addresses)
    stream, _ = await room.connect(endpoint, UpstreamProtocol.H2C, timeout=3)
    return stream


@on_jumping_clock
async def test_who_answers_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network({A: 0})
    assert await dial(network, monkeypatch, A) == A
    assert network.syns == [(A, 0)]


@on_jumping_clock
async def test_a_lost_syn_is_followed_by_a_fresh_one(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network({A: 0.1})
    assert await dial(network, monkeypatch, A) == A
    assert network.syns == [(A, 0), (A, 0.25)]


@on_jumping_clock
async def test_a_dead_host_sees_three_connections_in_a_dial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Network({})
    with pytest.raises(ProxyError) as caught:
        await dial(network, monkeypatch, A)
    assert caught.value.kind is ErrorKind.CONNECT_FAILED
    assert network.syns == [(A, 0), (A, 0.25), (A, 1.5)]
    assert trio.current_time() == 3


@on_jumping_clock
async def test_who_refuses_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network({}, A)
    with pytest.raises(ProxyError, match="connection refused"):
        await dial(network, monkeypatch, A)
    assert network.syns == [(A, 0)]


@on_jumping_clock
async def test_the_other_family_is_tried_before_anybody_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Network({A: 1.0})
    assert await dial(network, monkeypatch, A, B) == A
    assert network.syns == [(A, 0), (B, 0.25), (A, 1.5)]


@on_jumping_clock
async def test_a_lost_syn_to_the_one_that_did_not_refuse_is_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Network({B: 0.1}, A)
    assert await dial(network, monkeypatch, A, B) == B
    assert network.syns == [(A, 0), (B, 0), (B, 1.25)]
