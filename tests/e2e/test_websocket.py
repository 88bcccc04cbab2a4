"""WebSockets through the real proxy: trio-websocket and Node before it, trio-websocket behind it.

For HTTP/2 backends a second proxy stands before the first's, which is the only server at hand that takes
RFC 8441; so the bridge is crossed in each direction.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected

from support.http_lab import Authority
from support.proxy_process import ProxyProcess, running_proxy
from support.websocket_peers import WebSocketBackend, by_node, websocket, websocket_backends
from support.websockets import MASK, close, frame

UPSTREAMS = ("http", "h2c")
upstreams = pytest.mark.parametrize("up", UPSTREAMS)
WEBSOCKET = ("--allow-upgrade", "websocket")


@dataclass(frozen=True)
class Lab:
    """`clear` and `secure` by upstream."""

    clear: dict[str, ProxyProcess]
    secure: dict[str, ProxyProcess]
    backend: WebSocketBackend
    authority: Authority


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    authority = Authority.make(tmp_path_factory.mktemp("authority"))
    with (
        websocket_backends() as [backend],
        before(f"http://{backend.address}") as h1,
        before(f"h2c://{h1.target}") as h2,
        before(f"http://{backend.address}", *authority.proxy_flags) as h1_tls,
        before(f"h2c://{h1.target}", *authority.proxy_flags) as h2_tls,
    ):
        yield Lab({"http": h1, "h2c": h2}, {"http": h1_tls, "h2c": h2_tls}, backend, authority)


@contextmanager
def before(url: str, *flags: str) -> Iterator[ProxyProcess]:
    with running_proxy("--backend", url, *WEBSOCKET, *flags) as proxy:
        yield proxy


def line_of(proxy: ProxyProcess, path: str) -> dict[str, Any]:
    """The line of the request for this path; other tests' may come late."""

    def found() -> list[dict[str, Any]]:
        return [line for line in proxy.access if line["path"] == path]

    proxy.wait_until(lambda: bool(found()))
    return found()[0]


@upstreams
async def test_trio_websocket_talks_through_us(lab: Lab, up: str) -> None:
    proxy = lab.clear[up]
    path = f"/trio/{up}"
    async with websocket(proxy.target, path, subprotocols=["x", "chat"]) as socket:
        assert socket.subprotocol == "chat"
        for message in ("hello", b"\0\1\2", "", "ü" * 1000):
            await socket.send_message(message)
            assert await socket.get_message() == message
        await socket.ping()
        await socket.aclose(1000, "done")
    line = line_of(proxy, path)
    assert (line["upgrade"], line["close_code"]) == ("websocket", 1000)
    assert (line["messages_in"], line["messages_out"]) == (4, 4)
    assert (line["http_status"], line["protocol"]) == (101, "HTTP/1.1")
    assert line["response_flags"] == "-"


@upstreams
async def test_large_messages_pass_both_ways(lab: Lab, up: str) -> None:
    size = 3_000_000
    async with websocket(lab.clear[up].target, max_message_size=1 << 24) as socket:
        await socket.send_message(f"big {size}")
        assert len(await socket.get_message()) == size
        await socket.send_message(bytes(size))
        assert len(await socket.get_message()) == size


@upstreams
async def test_over_tls_too(lab: Lab, up: str) -> None:
    proxy = lab.secure[up]
    async with websocket(proxy.target, ca=str(lab.authority.ca_file)) as socket:
        await socket.send_message("secret")
        assert await socket.get_message() == "secret"


@upstreams
@pytest.mark.parametrize("secure", [False, True])
def test_node_talks_by_extended_connect(lab: Lab, up: str, secure: bool) -> None:
    proxy = (lab.secure if secure else lab.clear)[up]
    ca = str(lab.authority.ca_file) if secure else None
    path = f"/node/{up}/{secure}"
    hello = frame(b"hello")
    told = by_node(
        proxy.port,
        [frame(b"hello", mask=MASK)],
        path=path,
        ca=ca,
        waits=len(hello),
        last=close(4001, MASK),
        sec_websocket_protocol="chat",
    )
    assert told["settings"] is True
    assert told["head"][":status"] == 200
    assert told["head"]["sec-websocket-protocol"] == "chat"
    assert told["body"] == hello + close(4001)
    assert told["end"]
    line = line_of(proxy, path)
    assert (line["upgrade"], line["close_code"]) == ("websocket", 4001)
    assert (line["http_status"], line["protocol"]) == (200, "HTTP/2")


@upstreams
async def test_a_refused_upgrade_is_what_the_backend_said(lab: Lab, up: str) -> None:
    with pytest.raises(ConnectionRejected) as caught:
        async with websocket(lab.clear[up].target, "/refuse"):
            pass
    refused = caught.value
    assert (refused.status_code, refused.body) == (401, b"no")
    assert (b"x-why", b"because") in list(refused.headers or ())
    told = by_node(lab.clear[up].port, [], path="/refuse")
    assert told["head"][":status"] == 401
    assert told["body"] == b"no"


@upstreams
async def test_a_close_of_the_backend_reaches_the_client(lab: Lab, up: str) -> None:
    async with websocket(lab.clear[up].target) as socket:
        await socket.send_message("close 4002")
        with pytest.raises(ConnectionClosed) as caught:
            await socket.get_message()
    assert caught.value.reason is not None
    assert (caught.value.reason.code, caught.value.reason.reason) == (4002, "as you wish")


@upstreams
async def test_a_backend_that_vanishes_is_heard_as_without_us(lab: Lab, up: str) -> None:
    async with websocket(lab.clear[up].target) as socket:
        await socket.send_message("vanish")
        with pytest.raises(ConnectionClosed) as caught:
            await socket.get_message()
    assert caught.value.reason is not None
    assert caught.value.reason.code == 1006, "the connection closed, and nobody said Close"


async def test_a_client_that_vanishes_is_gone_for_the_backend(lab: Lab) -> None:
    seen = len(lab.backend.closed)
    async with websocket(lab.clear["h2c"].target) as socket:
        await socket.send_message("hello")
        await socket.get_message()
        await trio.aclose_forcefully(socket._stream)
    assert await trio.to_thread.run_sync(lab.backend.wait_for_closed, seen + 1) == 1006


MAPPINGS = """\
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {name: chat}
spec:
  hostname: "*"
  prefix: /chat/
  service: chat
  allow_upgrade: [websocket]
  timeout_ms: 100
  load_balancer:
    policy: maglev
    cookie: {name: session, ttl: 60s}
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {name: plain}
spec: {hostname: "*", prefix: /plain/, service: chat}
"""


async def test_the_handshake_sets_the_cookie_that_keeps_a_session(tmp_path: Path) -> None:
    (tmp_path / "chat.yaml").write_text(MAPPINGS)
    with websocket_backends("one", "two", "three") as backends:
        service = "chat=" + ",".join(backend.address for backend in backends)
        with running_proxy(str(tmp_path), "--service", service) as proxy:
            for _ in range(5):
                async with websocket(proxy.target, "/chat/") as socket:
                    headers = dict(socket.handshake_headers)
                    pod, cookie = headers[b"x-pod"], headers[b"set-cookie"].partition(b";")[0]
                for _ in range(3):
                    more = [(b"cookie", cookie)]
                    async with websocket(proxy.target, "/chat/", extra_headers=more) as again:
                        assert dict(again.handshake_headers)[b"x-pod"] == pod
                told = by_node(
                    proxy.port,
                    [close(1000, MASK)],
                    path="/chat/",
                    cookie=cookie.decode(),
                )
                assert told["head"]["x-pod"] == pod.decode()


async def test_a_mapping_without_it_lets_none_through(tmp_path: Path) -> None:
    (tmp_path / "chat.yaml").write_text(MAPPINGS)
    with websocket_backends() as [backend]:
        service = f"chat={backend.address}"
        with running_proxy(str(tmp_path), "--service", service) as proxy:
            with pytest.raises(ConnectionRejected):
                async with websocket(proxy.target, "/plain/"):
                    pass
            assert by_node(proxy.port, [], path="/plain/")["head"][":status"] == 403


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_the_end_of_a_drain_is_1001(workers: str) -> None:
    flags = ("--drain-delay", "0", "--drain-timeout", "2", "--workers", workers)
    with websocket_backends() as [backend], before(f"http://{backend.address}", *flags) as proxy:
        async with websocket(proxy.target) as socket:
            await socket.send_message("hello")
            await socket.get_message()
            proxy.signal(signal.SIGTERM)
            await socket.send_message("still here")
            assert await socket.get_message() == "still here"
            with pytest.raises(ConnectionClosed) as caught:
                await socket.get_message()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1001
        assert await trio.to_thread.run_sync(proxy.wait) == 0
        assert [code for code, _ in backend.closed] == [1001]


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_the_end_of_a_connections_grace_is_1001(workers: str) -> None:
    age = ("--max-connection-age", "1", "--max-connection-age-grace", "1", "--workers", workers)
    with websocket_backends() as [backend]:
        flags = ("--backend", f"http://{backend.address}", "--allow-upgrade", "websocket", *age)
        with running_proxy(*flags) as proxy:
            async with websocket(proxy.target) as socket:
                await socket.send_message("hello")
                assert await socket.get_message() == "hello"
                with trio.fail_after(30), pytest.raises(ConnectionClosed) as caught:
                    await socket.get_message()
            assert caught.value.reason is not None
            assert caught.value.reason.code == 1001
            [line] = proxy.wait_for_access(1)
            assert line["close_code"] is None or line["close_code"] == 1001
        assert [code for code, _ in backend.closed] == [1001]
