"""The moments of a call at which something may go wrong, in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from support.house import House
from support.peers import Call, Peer
from support.plan import GRPC, GRPC_OK, message


@dataclass
class Scene:
    """A call under way: as its client sees it, and as its backend does (None before it got there)."""

    house: House
    client: Peer
    call: Call
    got: Call | None

    @property
    def at_backend(self) -> Call:
        assert self.got is not None
        return self.got


Stage = Callable[[House], Awaitable[Scene]]


async def waiting_for_connect(house: House) -> Scene:
    """The backend's address does not answer yet."""
    backend = house.backend()
    backend.hold = trio.Event()
    client = await house.client()
    call = client.request(GRPC, end=True)
    await house.until(lambda: backend.dials == 1)
    return Scene(house, client, call, None)


async def waiting_for_settings(house: House) -> Scene:
    """Connected, but the backend has not said yet how many streams it takes."""
    backend = house.backend()
    backend.mute = True
    client = await house.client()
    call = client.request(GRPC, end=True)
    await backend.linked()
    await house.step()
    return Scene(house, client, call, None)


async def head_sent(house: House) -> Scene:
    client = await house.client()
    call = client.request(GRPC)
    return Scene(house, client, call, await house.backend().request())


async def amid_request(house: House) -> Scene:
    scene = await head_sent(house)
    scene.call.say(message(1000))
    await scene.at_backend.has(1000)
    return scene


async def before_response(house: House) -> Scene:
    client = await house.client()
    call = client.request(GRPC)
    call.say(message(1000), end=True)
    got = await house.backend().request()
    await got.end()
    return Scene(house, client, call, got)


async def amid_response(house: House) -> Scene:
    """Between two messages of the response."""
    scene = await before_response(house)
    scene.at_backend.respond(GRPC_OK)
    scene.at_backend.say(message(500))
    await scene.call.has(500)
    return scene


async def amid_response_message(house: House) -> Scene:
    """One message of the response is there by half."""
    scene = await before_response(house)
    scene.at_backend.respond(GRPC_OK)
    scene.at_backend.say(message(500)[:300])
    await scene.call.has(300)
    return scene


async def amid_both(house: House) -> Scene:
    """Both directions stream."""
    scene = await amid_request(house)
    scene.at_backend.respond(GRPC_OK)
    scene.at_backend.say(message(500))
    await scene.call.has(500)
    return scene


WAITING = (waiting_for_connect, waiting_for_settings)
UNANSWERED = (head_sent, amid_request, before_response)
ANSWERED = (amid_response, amid_response_message, amid_both)
SENT = (*UNANSWERED, *ANSWERED)
ALL = (*WAITING, *SENT)
