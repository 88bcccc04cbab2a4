"""A relay before a backend, in which connections can die without a word: what a lost path looks like."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

CHUNK = 65_536


class Relay:
    """`address` is what to call in the backend's stead. One thread carries everything."""

    def __init__(self, host: str, port: int) -> None:
        self._backend = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._carried: Counter[socket.socket] = Counter()
        self._dead: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def lose_busiest(self) -> bool:
        """The connection that carried most carries nothing any more, and stays open."""
        with self._lock:
            alive = [one for one in self._pairs if one not in self._dead]
            if not alive:
                return False
            one = max(alive, key=self._carried.__getitem__)
            self._dead |= {one, self._pairs[one]}
            return True

    def _run(self) -> None:
        while not self._over:
            for key, _ in self._selector.select(0.05):
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket):
                    self._carry(key.fileobj)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        backend = socket.create_connection(self._backend)
        with self._lock:
            self._pairs |= {client: backend, backend: client}
        for one in (client, backend):
            self._selector.register(one, selectors.EVENT_READ)

    def _carry(self, one: socket.socket) -> None:
        try:
            data = one.recv(CHUNK)
            with self._lock:
                other, dead = self._pairs[one], one in self._dead
                self._carried[one] += len(data)
            if data and not dead:
                other.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(one)
            with contextlib.suppress(OSError):
                self._pairs[one].shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._over = True
        self._thread.join()
        for one in (self._listener, *self._pairs):
            one.close()
        self._selector.close()


@contextmanager
def relay_to(address: str) -> Iterator[Relay]:
    host, _, port = address.rpartition(":")
    relay = Relay(host, int(port))
    try:
        yield relay
    finally:
        relay.close()
