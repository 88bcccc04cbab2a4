"""Real WebSocket peers: trio-websocket's server in a thread, its client, and Node's HTTP/2."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    WebSocketConnection,
    WebSocketRequest,
    serve_websocket,
    wrap_client_stream,
)

PATIENCE = 30.0

NODE = r"""
const http2 = require('http2');
const { url, ca, path, headers, frames, waits, last } = JSON.parse(process.argv[1]);
const client = http2.connect(url, ca ? { ca: require('fs').readFileSync(ca) } : {});
const told = { settings: null, head: null, body: '', end: false, error: null };
const tell = () => { console.log(JSON.stringify(told)); process.exit(0); };
client.on('error', (e) => { told.error = String(e); tell(); });
client.on('remoteSettings', (settings) => {
  told.settings = settings.enableConnectProtocol;
  if (!settings.enableConnectProtocol) return tell();
  const stream = client.request({
    ':method': 'CONNECT', ':protocol': 'websocket', ':path': path,
    'sec-websocket-version': '13', ...headers,
  });
  stream.on('response', (head) => {
    told.head = head;
    if (head[':status'] === 200) for (const frame of frames) stream.write(Buffer.from(frame, 'hex'));
  });
  stream.on('data', (data) => {
    const waited = told.body.length < 2 * waits;
    told.body += data.toString('hex');
    if (waited && told.body.length >= 2 * waits) stream.write(Buffer.from(last, 'hex'));
  });
  stream.on('end', () => { told.end = true; tell(); });
  stream.on('error', (e) => { told.error = String(e); tell(); });
});
setTimeout(() => { told.error = 'timeout'; tell(); }, 20000);
"""
"""One WebSocket by extended CONNECT: what was heard is printed as JSON."""


class WebSocketBackend:
    """Echoes, and does what a message says: `close CODE`, `big SIZE`, `vanish`. Its `name` is `x-pod`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.closed: list[tuple[int, str]] = []
        """How its WebSockets ended, as it saw it."""
        self._changed = threading.Condition()
        self.requests: list[dict[str, str]] = []
        self._ready = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()
        self._thread = threading.Thread(target=trio.run, args=(self._run,), daemon=True)
        self._thread.start()
        assert self._ready.wait(PATIENCE)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        if self._token is not None:
            self._token.run_sync_soon(self._scope.cancel)
        self._thread.join(PATIENCE)

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            async with trio.open_nursery() as nursery:
                serve = partial(serve_websocket, max_message_size=1 << 24)
                server = await nursery.start(serve, self._serve, "127.0.0.1", 0, None)
                self.port = server.port
                self._ready.set()

    async def _serve(self, request: WebSocketRequest) -> None:
        headers = {name.decode().lower(): value.decode() for name, value in request.headers}
        self.requests.append(headers)
        if request.path.startswith("/refuse"):
            await request.reject(401, extra_headers=[(b"x-why", b"because")], body=b"no")
            return
        protocol = "chat" if "chat" in request.proposed_subprotocols else None
        socket = await request.accept(
            subprotocol=protocol, extra_headers=[(b"x-pod", self.name.encode())]
        )
        try:
            while True:
                await self._answer(socket, await socket.get_message())
        except ConnectionClosed as closed:
            reason = closed.reason
            with self._changed:
                self.closed.append(
                    (1006, "") if reason is None else (reason.code, reason.reason or "")
                )
                self._changed.notify_all()

    def wait_for_closed(self, count: int) -> int:
        """The code of the last of so many that ended."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.closed) >= count, PATIENCE)
            return self.closed[-1][0]

    async def _answer(self, socket: WebSocketConnection, message: str | bytes) -> None:
        word, _, number = message.partition(" ") if isinstance(message, str) else ("", "", "")
        if word == "close":
            await socket.aclose(int(number), "as you wish")
        elif word == "big":
            await socket.send_message(bytes(int(number)))
        elif word == "vanish":
            await trio.aclose_forcefully(socket._stream)
        else:
            await socket.send_message(message)


@contextmanager
def websocket_backends(*names: str) -> Iterator[list[WebSocketBackend]]:
    backends = [WebSocketBackend(name) for name in names or ("one",)]
    try:
        yield backends
    finally:
        for backend in backends:
            backend.stop()


def by_node(
    port: int,
    frames: list[bytes],
    *,
    path: str = "/",
    ca: str | None = None,
    waits: int = 0,
    last: bytes = b"",
    **headers: str,
) -> dict[str, Any]:
    """What Node's client heard. It says `frames`, and when `waits` bytes have come, `last`."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not on this machine: no HTTP/2 client that is not ours for RFC 8441")
    asked = {
        "url": f"http{'s' if ca else ''}://127.0.0.1:{port}",
        "ca": ca,
        "path": path,
        "headers": {name.replace("_", "-"): value for name, value in headers.items()},
        "frames": [frame.hex() for frame in frames],
        "waits": waits,
        "last": last.hex(),
    }
    command = [node, "-e", NODE, json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    told["body"] = bytes.fromhex(told["body"])
    return told


@asynccontextmanager
async def websocket(
    target: str, path: str = "/", *, ca: str | None = None, **options: Any
) -> AsyncIterator[WebSocketConnection]:
    """As trio-websocket's `open_websocket`, which leaves the socket of a refused handshake open."""
    host, _, port = target.partition(":")
    below = await trio.open_tcp_stream(host, int(port))
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] = below
    if ca is not None:
        context = ssl.create_default_context(cafile=ca)
        stream = trio.SSLStream(below, context, server_hostname=host, https_compatible=True)
    try:
        async with trio.open_nursery() as nursery:
            yield await wrap_client_stream(nursery, stream, target, path, **options)
            nursery.cancel_scope.cancel()
    except* (ConnectionRejected, ConnectionClosed) as group:
        raise group.exceptions[0] from None
    finally:
        await trio.aclose_forcefully(stream)
