"""A server on loopback, in threads: one that accepts, and one for each connection."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Accepting:
    """`serve` gets each connection in a thread of its own; the socket is closed behind it.

    `accepted` counts them all.
    """

    def __init__(self, backlog: int | None = None) -> None:
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self, sock: socket.socket, number: int) -> None:
        """The `number`th connection, from 1. An `OSError` may end it: who connected is gone."""
        raise NotImplementedError

    def close(self) -> None:
        with suppress(OSError):  # a plain close would leave the thread in accept(2)
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.accepted += 1
                given = sock, self.accepted
                threading.Thread(target=self._serve, args=given, daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        with suppress(OSError), sock:
            self.serve(sock, number)
