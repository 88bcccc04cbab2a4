"""Clients that a drain must not fail: they go on calling, and reconnect only when they are told to.

Each has a first address, the proxy that will be drained, and a second one to go to when the first
refuses connections. A response with `Connection: close`, a GOAWAY (gRPC sees to that by itself) and a
refused connect are no failures. Everything else is: above all a connection that was accepted and
then lost.
"""

from __future__ import annotations

import queue
import random
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc

from support.grpc_backends import Client
from support.http_clients import PATIENCE, RawClient

GET = b"GET /http/a HTTP/1.1\r\nhost: a\r\n\r\n"
DOWNLOAD = b"GET /http/bytes?size=200000&chunked HTTP/1.1\r\nhost: a\r\n\r\n"


class Load:
    """Runs clients until stopped. `done` counts whole calls by kind, `failures` what went wrong."""

    def __init__(self, ports: Sequence[int], ca_file: Path | None = None) -> None:
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []
        self.drained = threading.Event()
        """Set by the test once the first proxy drains: streams may end now."""
        self._ports = ports
        self._ca_file = ca_file
        self._trust = ssl.create_default_context(cafile=ca_file)
        self._stop = threading.Event()
        self._changed = threading.Condition()
        kinds: dict[str, Callable[[], None]] = {
            "unary": self._unary,
            "unary again": self._unary,
            "stream": self._stream,
            "keep-alive": lambda: self._http(GET),
            "download": lambda: self._http(DOWNLOAD),
            "half a head": lambda: self._http(GET, slowly=True),
            "one each": lambda: self._http(GET, keep=False),
            "one each again": lambda: self._http(GET, keep=False),
        }
        self._threads = [
            threading.Thread(target=self._guarded, args=(client,), name=kind, daemon=True)
            for kind, client in kinds.items()
        ]
        self.kinds = list(kinds)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        self.failures += [f"{t.name}: it hangs" for t in self._threads if t.is_alive()]

    def wait_for_more(self, count: int = 1) -> None:
        """Until every client has made so many further calls, or one failed."""
        before = self.done.copy()

        def enough() -> bool:
            more = all(self.done[kind] >= before[kind] + count for kind in self.kinds)
            return bool(self.failures) or more

        with self._changed:
            if not self._changed.wait_for(enough, PATIENCE):
                self.failures.append(f"no progress since {before}: {self.done}")

    # --- what a client is ---

    def _guarded(self, client: Callable[[], None]) -> None:
        try:
            client()
        except (OSError, AssertionError, grpc.RpcError) as error:
            self.failures.append(f"{threading.current_thread().name}: {error!r}")
            with self._changed:
                self._changed.notify_all()

    def _note(self) -> None:
        with self._changed:
            self.done[threading.current_thread().name] += 1
            self._changed.notify_all()

    def _channel(self) -> grpc.Channel:
        target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in self._ports)
        own_connection = ("grpc.use_local_subchannel_pool", 1)  # else channels share one
        options = (own_connection, ("grpc.default_authority", "localhost"))
        if self._ca_file is None:
            return grpc.insecure_channel(target, options=options)
        credentials = grpc.ssl_channel_credentials(self._ca_file.read_bytes())
        return grpc.secure_channel(target, credentials, options=options)

    def _unary(self) -> None:
        with self._channel() as channel:
            echo = Client(channel).echo
            while not self._stop.is_set():
                assert echo(b"x", timeout=PATIENCE, wait_for_ready=True) == b"x"
                self._note()

    def _stream(self) -> None:
        """Bidirectional streams; a long one meets the drain and goes on, later ones are short."""
        with self._channel() as channel:
            chat = Client(channel).chat
            while not self._stop.is_set():
                said: queue.SimpleQueue[bytes] = queue.SimpleQueue()
                # It lives through a whole round, which may be long where the machine is busy.
                replies: Any = chat(_until_empty(said), timeout=60, wait_for_ready=True)
                ending = False
                while not ending:
                    ending = self._stop.is_set() or self.drained.is_set()
                    for word in (b"one", b"two", b"three"):
                        said.put(word)
                        assert next(replies) == word
                    self._note()
                said.put(b"")
                assert list(replies) == []
                assert replies.code() is grpc.StatusCode.OK

    # --- HTTP/1.1 ---

    def _connect(self) -> socket.socket:
        for port in self._ports:
            try:
                sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
            except ConnectionRefusedError:
                continue
            if self._ca_file is None:
                return sock
            return self._trust.wrap_socket(sock, server_hostname="localhost")
        message = f"nobody listens on any of {self._ports}"
        raise AssertionError(message)

    def _http(self, request: bytes, *, keep: bool = True, slowly: bool = False) -> None:
        pause = random.Random(7)
        while not self._stop.is_set():
            with self._connect() as sock:
                client = RawClient(sock)
                again = True
                while again and not self._stop.is_set():
                    cut = len(request) // 2 if slowly else 0
                    client.send(request[:cut])
                    if slowly:
                        self._stop.wait(pause.uniform(0, 0.05))
                    client.send(request[cut:])
                    fields = read_response(client)
                    again = keep and "connection: close" not in fields
                    self._note()


def read_response(client: RawClient) -> str:
    """One whole 200; its head, in lower case."""
    head = client.read_until(b"\r\n\r\n").decode("latin-1").lower()
    assert head.startswith("http/1.1 200 "), head
    if "transfer-encoding: chunked" in head:
        while size := int(client.read_until(b"\r\n"), 16):
            client.read_exactly(size + 2)
        client.read_exactly(2)
    else:
        length = head.partition("content-length: ")[2].partition("\r\n")[0]
        client.read_exactly(int(length))
    return head


def _until_empty(messages: queue.SimpleQueue[bytes]) -> Iterator[bytes]:
    while message := messages.get(timeout=PATIENCE):
        yield message
