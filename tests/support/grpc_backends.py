"""Real gRPC servers (grpcio, threads) that say who they are, and a client's view of them.

No generated code: messages are bytes. What a method is to do beyond its kind stands in the metadata:
`i-…` comes back as initial metadata, `t-…` as trailing metadata.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import grpc

SERVICE = "test.Backend"
THREADS = 600
"""Each held call keeps one; they are made only when needed."""
PATIENCE = 30.0
"""Seconds until a condition that should hold soon is given up."""

Metadata = Sequence[tuple[str, str | bytes]]


class Seen(NamedTuple):
    """A call as it arrived at a backend; `time_remaining` in seconds, None without a deadline."""

    backend: str
    method: str
    metadata: Metadata
    time_remaining: float | None
    ended: threading.Event

    def values(self, name: str) -> list[str | bytes]:
        return [value for key, value in self.metadata if key == name]


class Journal:
    """What arrived anywhere, in order."""

    def __init__(self) -> None:
        self.calls: list[Seen] = []
        self._changed = threading.Condition()

    def note(self, seen: Seen) -> int:
        """Returns how many there are now."""
        with self._changed:
            self.calls.append(seen)
            self._changed.notify_all()
            return len(self.calls)

    def wait_for(self, count: int) -> list[Seen]:
        """The first `count` calls, once they are there."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.calls) >= count, PATIENCE):
                message = f"{len(self.calls)} of {count} calls arrived"
                raise AssertionError(message)
            return self.calls[:count]

    def clear(self) -> None:
        with self._changed:
            self.calls.clear()


class Kind(NamedTuple):
    """What sets a server apart: `options` are grpcio's, with `credentials` it speaks TLS.

    Of `hosts` each server of a fleet has its own, in order; a `port` of 0 is the kernel's choice.
    """

    host: str = "127.0.0.1"
    port: int = 0
    hosts: Sequence[str] = ()
    options: Sequence[tuple[str, Any]] = ()
    credentials: grpc.ServerCredentials | None = None


class Backend:
    """One server on a loopback port of its own, which stays its own while the server is stopped."""

    def __init__(self, name: str, journal: Journal, kind: Kind) -> None:
        self.name = name
        self._kind = kind
        host = kind.host
        self.gate = threading.Event()
        self._journal = journal
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._holder = socket.socket(family)
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._holder.bind((host, kind.port))
        self.port: int = self._holder.getsockname()[1]
        self.key = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self._server: grpc.Server | None = None

    def start(self) -> None:
        self._server = grpc.server(
            ThreadPoolExecutor(THREADS), handlers=[self._methods()], options=self._kind.options
        )
        if self._kind.credentials is None:
            self._server.add_insecure_port(self.key)
        else:
            self._server.add_secure_port(self.key, self._kind.credentials)
        self._server.start()

    def stop(self) -> None:
        """At once: calls that run are cancelled, connections closed."""
        if self._server is not None:
            self._server.stop(None).wait(PATIENCE)
            self._server = None

    def finish(self) -> None:
        """As a pod ends: GOAWAY, then no later than when the last call is over."""
        if self._server is not None:
            self._server.stop(PATIENCE).wait(PATIENCE)
            self._server = None

    def close(self) -> None:
        self.gate.set()
        self.stop()
        self._holder.close()

    # --- the methods ---

    def _methods(self) -> Any:
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Echo": grpc.unary_unary_rpc_method_handler(self._echo),
                "Hold": grpc.unary_unary_rpc_method_handler(self._hold),
                "Fail": grpc.unary_unary_rpc_method_handler(self._fail),
                "Flaky": grpc.unary_unary_rpc_method_handler(self._flaky),
                "Repeat": grpc.unary_stream_rpc_method_handler(self._repeat),
                "FailLate": grpc.unary_stream_rpc_method_handler(self._fail_late),
                "Collect": grpc.stream_unary_rpc_method_handler(self._collect),
                "Chat": grpc.stream_stream_rpc_method_handler(self._chat),
                "First": grpc.stream_stream_rpc_method_handler(self._first),
            },
        )

    def _begin(self, method: str, context: grpc.ServicerContext) -> Seen:
        received = [(key, value) for key, value in context.invocation_metadata()]
        ended = threading.Event()
        if not context.add_callback(ended.set):
            ended.set()
        seen = Seen(self.name, method, received, context.time_remaining(), ended)
        if seen.values("x-compress"):
            context.set_compression(grpc.Compression.Gzip)
        initial = [pair for pair in received if pair[0].startswith("i-")]
        context.send_initial_metadata((("x-backend", self.name), *initial))
        context.set_trailing_metadata(tuple(pair for pair in received if pair[0].startswith("t-")))
        self._journal.note(seen)
        return seen

    def _echo(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._begin("Echo", context)
        return request

    def _hold(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Answered when the gate opens, or never when the caller left before."""
        seen = self._begin("Hold", context)
        while not self.gate.wait(0.02) and not seen.ended.is_set():
            pass
        return request

    def _fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Trailers-only: `CODE MESSAGE`."""
        code, _, message = request.decode().partition(" ")
        received = context.invocation_metadata()
        context.set_trailing_metadata(tuple(p for p in received if p[0].startswith("t-")))
        if int(code):
            context.abort(status(int(code)), message)
        return b""

    def _flaky(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Trailers-only for the first so many calls that the fleet has seen: `CODE TIMES PUSHBACK`."""
        received = [(key, value) for key, value in context.invocation_metadata()]
        seen = Seen(self.name, "Flaky", received, context.time_remaining(), threading.Event())
        code, times, pushback = request.decode().split(" ")
        tries = self._journal.note(seen)
        if tries <= int(times):
            if pushback:
                context.set_trailing_metadata((("grpc-retry-pushback-ms", pushback),))
            context.abort(status(int(code)), f"try {tries}")
        return self.name.encode()

    def _fail_late(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self._begin("FailLate", context)
        yield b"one"
        yield b"two"
        code, _, message = request.decode().partition(" ")
        context.abort(status(int(code)), message)

    def _repeat(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        seen = self._begin("Repeat", context)
        for _ in range(int(seen.values("x-times")[0])):
            yield request

    def _collect(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        self._begin("Collect", context)
        return b"|".join(requests)

    def _chat(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self._begin("Chat", context)
        yield from requests

    def _first(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Answers the first message and is done, whatever the client still means to send."""
        self._begin("First", context)
        yield next(requests)


def status(number: int) -> grpc.StatusCode:
    return next(code for code in grpc.StatusCode if code.value[0] == number)


class Fleet:
    """Some backends and what arrived at them."""

    def __init__(self, names: Sequence[str], kind: Kind) -> None:
        self.journal = Journal()
        hosts = kind.hosts or [kind.host] * len(names)
        self.backends = {
            name: Backend(name, self.journal, kind._replace(host=host))
            for name, host in zip(names, hosts, strict=True)
        }

    def __getitem__(self, name: str) -> Backend:
        return self.backends[name]

    @property
    def flags(self) -> list[str]:
        return [flag for backend in self for flag in ("--backend", backend.key)]

    @property
    def names(self) -> dict[str, str]:
        """Backend names by endpoint key."""
        return {backend.key: backend.name for backend in self}

    def __iter__(self) -> Iterator[Backend]:
        return iter(self.backends.values())

    @contextmanager
    def open_gates(self) -> Iterator[None]:
        """Calls of `Hold` are answered within this block."""
        for backend in self:
            backend.gate.set()
        try:
            yield
        finally:
            for backend in self:
                backend.gate.clear()


@contextmanager
def running_backends(*names: str, kind: Kind | None = None) -> Iterator[Fleet]:
    fleet = Fleet(names, kind or Kind())
    try:
        for backend in fleet:
            backend.start()
        yield fleet
    finally:
        for backend in fleet:
            backend.close()


class Client:
    """One channel, hence one connection, with a multicallable for each method.

    Typed as Any: the stubs want serializers, and know calls only half.
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.echo = self.method("unary_unary", f"/{SERVICE}/Echo")
        self.hold = self.method("unary_unary", f"/{SERVICE}/Hold")
        self.fail = self.method("unary_unary", f"/{SERVICE}/Fail")
        self.flaky = self.method("unary_unary", f"/{SERVICE}/Flaky")
        self.repeat = self.method("unary_stream", f"/{SERVICE}/Repeat")
        self.fail_late = self.method("unary_stream", f"/{SERVICE}/FailLate")
        self.collect = self.method("stream_unary", f"/{SERVICE}/Collect")
        self.chat = self.method("stream_stream", f"/{SERVICE}/Chat")
        self.first = self.method("stream_stream", f"/{SERVICE}/First")

    def method(self, kind: str, path: str) -> Any:
        """A multicallable for messages of bytes; `kind` as grpcio's, unary_stream and so on."""
        return getattr(self.channel, kind)(path)

    def backend_of(self, metadata: Metadata = ()) -> str:
        """Who answers a call with this metadata."""
        _, call = self.echo.with_call(b"", metadata=tuple(metadata), timeout=PATIENCE)
        return str(dict(call.initial_metadata())["x-backend"])


OPTIONS: dict[str, Any] = {
    "grpc.max_send_message_length": -1,
    "grpc.max_receive_message_length": -1,
    "grpc.use_local_subchannel_pool": 1,  # else channels to one target share a connection
}


@contextmanager
def connected(
    target: str, *options: tuple[str, Any], credentials: grpc.ChannelCredentials | None = None
) -> Iterator[Client]:
    """A client with a connection of its own."""
    merged = list({**OPTIONS, **dict(options)}.items())
    with (
        grpc.insecure_channel(target, options=merged)
        if credentials is None
        else grpc.secure_channel(target, credentials, options=merged)
    ) as channel:
        yield Client(channel)


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """A bounded poll, for what nothing wakes us about."""
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            message = f"not within {PATIENCE} s: {what}"
            raise AssertionError(message)
        time.sleep(0.01)
