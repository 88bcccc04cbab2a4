"""One call and its attempts, in the order in which backends saw them."""

from __future__ import annotations

from stickyproxy.accesslog import Record
from stickyproxy.model import Headers
from stickyproxy.proxy.report import _describe_end
from stickyproxy.wire.stream import Stream
from support.house import Backend, House
from support.peers import Call
from support.plan import GRPC


class Round:
    """`places` are the backends that had it, each as often as it had it."""

    def __init__(self, house: House, call: Call) -> None:
        self.house = house
        self.call = call
        self.places: list[Backend] = []
        self._known: list[Call] = []

    async def attempt(self) -> Call:
        """The next attempt, once a backend has it."""
        await self.house.until(self._fresh)
        backend, got = self._fresh()[0]
        self.places.append(backend)
        self._known.append(got)
        return got

    def _fresh(self) -> list[tuple[Backend, Call]]:
        return [
            (backend, got)
            for backend in self.house.backends.values()
            for got in backend.arrived
            if all(got is not one for one in self._known)
        ]

    @property
    def keys(self) -> list[str]:
        return [backend.key for backend in self.places]

    def no_more(self) -> bool:
        return not self._fresh()


async def begun(
    house: House, head: Headers = GRPC, body: bytes | None = None, *, open_end: bool = False
) -> Round:
    """A session's call: without a body, with a whole one, or (`open_end`) with more to come."""
    client = await house.client()
    call = client.request([*head, (b"x-user", b"ann")], end=body is None and not open_end)
    if body is not None:
        call.say(body, end=not open_end)
    return Round(house, call)


def doubt(house: House) -> list[Stream]:
    """All links to backends become suspect at once; returned are the streams on them."""
    streams = [stream for link in house.links for stream in link.streams.values()]
    for stream in streams:
        stream.doubt()
    return streams


def flags(house: House) -> str:
    """What the access log says of the last exchange."""
    record = Record(0.0, "HTTP/2", "")
    _describe_end(record, house.ended[-1])
    return record.response_flags
