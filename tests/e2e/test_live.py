"""The live page of a running proxy: by WebSocket, in a browser, in a terminal."""

from __future__ import annotations

import http.client
import json
import os
import pty
import re
import socketserver
import subprocess
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import open_websocket_url

from support import chromium
from support.http_backends import EchoBackend, echo_backends
from support.proxy_process import ProxyProcess, running_proxy

NOBODY = "127.0.0.1:1"
"""tcpmux: no machine of ours listens there."""
USERS = 40
PATIENCE = 30


@pytest.fixture(scope="module")
def webs() -> Iterator[list[EchoBackend]]:
    with echo_backends(2) as backends:
        yield backends


@pytest.fixture(scope="module", params=["1", "2"], ids=["one process", "two workers"])
def proxy(webs: list[EchoBackend], request: pytest.FixtureRequest) -> Iterator[ProxyProcess]:
    """One of its three backends is not there."""
    backends = [
        f"--backend=http://{address}" for address in (webs[0].address, webs[1].address, NOBODY)
    ]
    sticky = ("--sticky", "header:x-user-id", "--workers", request.param)
    with running_proxy(*backends, *sticky) as proxy:
        call_all(proxy)
        yield proxy


def call_all(proxy: ProxyProcess) -> None:
    for n in range(USERS):
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=PATIENCE)
        connection.request("GET", "/", headers={"x-user-id": f"user-{n}"})
        assert connection.getresponse().status == 200
        connection.close()


def told(proxy: ProxyProcess, looks: int, query: str = "", **said: str) -> list[str]:
    """The first messages of the feed, with calls before the last of them."""

    async def watch() -> list[str]:
        url = f"ws://127.0.0.1:{proxy.admin_port}/live{query}"
        headers = [(name.encode(), value.encode()) for name, value in said.items()]
        found = []
        with trio.fail_after(PATIENCE):
            async with open_websocket_url(url, extra_headers=headers) as socket:
                for n in range(looks):
                    if n == looks - 1:
                        await trio.to_thread.run_sync(call_all, proxy)
                        await socket.get_message()
                    found.append(str(await socket.get_message()))
        return found

    return trio.run(watch)


def test_the_feed_counts_what_all_processes_carry(
    proxy: ProxyProcess, webs: list[EchoBackend]
) -> None:
    account = json.loads(told(proxy, 2)[-1])

    [cluster] = account["clusters"]
    rows: dict[str, Any] = {row["key"]: row for row in cluster["endpoints"]}
    assert next(iter(rows)) == NOBODY
    assert rows[NOBODY]["reason"]
    assert rows[NOBODY]["rate"] == 0
    for web in webs:
        assert rows[web.address]["rate"] > 0
        assert rows[web.address]["p99"] is not None
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1)


def test_a_browser_is_sent_the_part_that_changes(proxy: ProxyProcess) -> None:
    [part] = told(proxy, 1, "?as=html", origin=f"http://127.0.0.1:{proxy.admin_port}")
    assert NOBODY in part
    assert "<html" not in part


def test_a_foreign_page_cannot_watch(proxy: ProxyProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.admin_port, timeout=PATIENCE)
    upgrade = {"connection": "upgrade", "upgrade": "websocket", "origin": "http://evil.example"}
    key = {"sec-websocket-version": "13", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}
    connection.request("GET", "/live", headers=upgrade | key)
    assert connection.getresponse().status == 403
    connection.close()


def test_who_leaves_without_a_word_leaves_nothing_behind(proxy: ProxyProcess) -> None:
    told(proxy, 1)
    assert [line for line in proxy.events if line["event"].startswith("bug")] == []


def stickyproxy(proxy: ProxyProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    program: list[str] = proxy.process.args[:3]  # type: ignore[index,assignment]
    return subprocess.run(
        [*program, *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE
    )


def test_top_shows_it_in_a_terminal(proxy: ProxyProcess, webs: list[EchoBackend]) -> None:
    shown = stickyproxy(proxy, "top", "--once", "--admin", f"127.0.0.1:{proxy.admin_port}")
    assert shown.returncode == 0, shown.stderr
    assert "LIVE" in shown.stdout
    assert webs[0].address in shown.stdout


def test_top_says_in_one_line_that_nobody_is_there(proxy: ProxyProcess) -> None:
    shown = stickyproxy(proxy, "top", "--once", "--admin", NOBODY)
    assert shown.returncode == 1
    [line] = shown.stderr.splitlines()
    assert NOBODY in line


def test_explain_asks_the_running_proxy(proxy: ProxyProcess, webs: list[EchoBackend]) -> None:
    places = set()
    for n in range(USERS):
        asked = ("--path", "/", "--header", f"x-user-id:user-{n}", "--json")
        said = stickyproxy(proxy, "explain", "--admin", f"127.0.0.1:{proxy.admin_port}", *asked)
        assert said.returncode == 0, said.stderr
        answer = json.loads(said.stdout)
        places.add(answer["endpoint"])
        if NOBODY in answer["reason"]:
            break
    else:
        pytest.fail("nobody's home is the endpoint that is not there")
    assert places <= {web.address for web in webs}


@chromium.needs_chromium
def test_a_browser_shows_what_is_live(proxy: ProxyProcess, tmp_path: Path) -> None:
    shown = chromium.document(
        tmp_path, f"http://127.0.0.1:{proxy.admin_port}/", until=lambda page: status(page) == "live"
    )
    assert NOBODY in shown
    assert status(shown) == "live"


@chromium.needs_chromium
def test_an_answer_is_text_in_a_browser_too(proxy: ProxyProcess, tmp_path: Path) -> None:
    asked = "path=/&header=x-user-id:%3Cimg%20src=x%20onerror=alert(1)%3E#ask"
    shown = chromium.document(tmp_path, f"http://127.0.0.1:{proxy.admin_port}/live?{asked}")
    assert "<dd>&lt;img src=x onerror=alert(1)&gt;</dd>" in shown
    assert '<img src="x"' not in shown


def status(page: str) -> str:
    [said] = re.findall(r'<p id="live"[^>]*>([^<]*)<', page)
    return str(said)


@pytest.mark.parametrize("command", [("top", "--once"), ("explain", "--path", "/")])
def test_what_is_no_admin_port_is_told_in_one_line(
    proxy: ProxyProcess, command: tuple[str, ...]
) -> None:
    with speaking(b"\0\0\0\4\0\0\0\0\0") as http2, speaking(NOT_OURS) as other:
        for address in (http2, other, f"127.0.0.1:{proxy.port}"):
            shown = stickyproxy(proxy, *command, "--admin", address)
            assert shown.returncode == 1
            [line] = shown.stderr.splitlines()
            assert address in line
            assert line.isprintable()


NOT_OURS = b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n<p>hello\n\n</p>\n"


@contextmanager
def speaking(answer: bytes) -> Iterator[str]:
    """The address of one that says this to whoever comes."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_top_in_a_pipe_is_one_look(proxy: ProxyProcess, webs: list[EchoBackend]) -> None:
    shown = stickyproxy(proxy, "top", "--admin", f"127.0.0.1:{proxy.admin_port}")
    assert shown.returncode == 0, shown.stderr
    assert webs[0].address in shown.stdout
    assert "\x1b" not in shown.stdout


def test_q_leaves_top_and_the_terminal_is_as_before(proxy: ProxyProcess) -> None:
    terminal, inside = pty.openpty()
    before = termios.tcgetattr(inside)
    program: list[str] = proxy.process.args[:3]  # type: ignore[index,assignment]
    shown = subprocess.Popen(
        [*program, "top", "--admin", f"127.0.0.1:{proxy.admin_port}"],
        stdin=inside, stdout=inside, stderr=inside, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    read = b""
    while NOBODY.encode() not in read:
        read += os.read(terminal, 65536)
    os.write(terminal, b"q")
    assert shown.wait(PATIENCE) == 0
    assert termios.tcgetattr(inside) == before
    os.close(terminal)
    os.close(inside)
