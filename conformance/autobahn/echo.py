"""`echo.py PORT`: says back what it hears, and says Close to whoever breaks the rules.

trio-websocket itself drops such a connection without a word, so that nothing is left to compare.
"""

from __future__ import annotations

import sys

import trio
from wsproto import WSConnection
from wsproto.connection import ConnectionType
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Event,
    Message,
    Ping,
    Request,
)
from wsproto.utilities import RemoteProtocolError

CHUNK = 65_536


async def serve(stream: trio.SocketStream) -> None:
    """Until the client has left: to close with input unread would be a reset."""
    link = WSConnection(ConnectionType.SERVER)
    closed = False
    async with stream:
        try:
            while data := await stream.receive_some(CHUNK):
                if closed:
                    continue
                try:
                    link.receive_data(data)
                except RemoteProtocolError:  # `OPTIONS *`, which asks whether we live
                    return
                told, closed = answers(link)
                await stream.send_all(told)
                if closed:
                    await stream.send_eof()
        except trio.BrokenResourceError:
            return


def answers(link: WSConnection) -> tuple[bytes, bool]:
    """What to send, and whether a Close frame is the last of it."""
    told = b""
    for event in link.events():
        for one in answer(event):
            told += link.send(one)
            if isinstance(one, CloseConnection):
                return told, True
    return told, False


def answer(event: Event) -> list[Event]:
    """Messages go back in the pieces in which they came."""
    if isinstance(event, Request):
        return [AcceptConnection()]
    if isinstance(event, Message):
        return [type(event)(event.data, event.frame_finished, event.message_finished)]
    if isinstance(event, Ping | CloseConnection):
        return [event.response()]
    return []


if __name__ == "__main__":
    trio.run(trio.serve_tcp, serve, int(sys.argv[1]))
