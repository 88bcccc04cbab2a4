"""How backends deal with what comes to them: one behaviour after the other, good ones and bad ones."""

from __future__ import annotations

import trio

from stickyproxy.errors import H2Code
from support.house import House
from support.peers import Call
from support.plan import GRPC_END, GRPC_OK, message

CODES = [H2Code.NO_ERROR, H2Code.CANCEL, H2Code.REFUSED_STREAM, H2Code.INTERNAL_ERROR]
BEHAVIOURS = ["echo", "echo", "early", "trailers", "reset", "half", "silent", "fail"]
FAVOUR = (b"x-favour", b"echo")
"""A request with this is always answered well."""


class Dealer:
    """`serve` belongs in the house's nursery. `disowned` are those that it said it did not process."""

    def __init__(self, house: House, behaviours: list[str], *, pace: float = 0.01) -> None:
        """`pace` is seconds between two looks at what came: each takes real time."""
        self.house = house
        self.pace = pace
        self.behaviours = behaviours
        self.disowned: list[Call] = []
        self._served = 0
        self._dealt_with: set[int] = set()

    async def serve(self) -> None:
        while True:
            for backend in self.house.backends.values():
                for got in backend.arrived:
                    if id(got) not in self._dealt_with:  # `arrived` keeps them all
                        self._dealt_with.add(id(got))
                        self.house.nursery.start_soon(self._deal, got, self._next(got))
            await trio.sleep(self.pace)

    def _next(self, got: Call) -> str:
        if FAVOUR in got.head:
            return "echo"
        self._served += 1
        return self.behaviours[(self._served - 1) % len(self.behaviours)]

    async def _deal(self, got: Call, how: str) -> None:
        await self._answer(got, how)
        codec = got.peer.codec
        if codec.protocol != "HTTP/2" and codec.closing:  # a body for HEAD, say: as servers do
            await self.house.step()
            got.peer.close()

    async def _answer(self, got: Call, how: str) -> None:
        if how == "reset":
            code = CODES[self._served % 4]
            got.rst(code)
            if code == H2Code.REFUSED_STREAM:
                self.disowned.append(got)
        elif how == "fail":
            got.respond([*GRPC_OK, (b"grpc-status", b"14")], end=True)
        elif how == "early":
            got.respond(GRPC_OK)
            await got.send(message(500))
            got.trailer(GRPC_END, end=True)
        elif how == "trailers":
            got.respond([*GRPC_OK, *GRPC_END], end=True)
        elif how == "half":
            got.respond(GRPC_OK)
            await got.send(message(30_000)[:20_000])
        elif how == "echo":
            await got.end()
            if got.end_stream:
                got.respond(GRPC_OK)
                await got.send(bytes(got.body))
                got.trailer(GRPC_END, end=True)
