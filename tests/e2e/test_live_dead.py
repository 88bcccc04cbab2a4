"""One connection dies without a word, and what people see of it on the live page."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio
from trio_websocket import open_websocket_url

from support import chromium
from support.grpc_backends import PATIENCE, Client, connected, running_backends, wait_until
from support.proxy_process import ProxyProcess, running_proxy
from support.relay import relay_to

PICTURES = os.environ.get("STICKYPROXY_PICTURES", "")
"""A folder: there the README's picture is made anew (docs/images)."""


@contextmanager
def under_load(client: Client, failed: list[str]) -> Iterator[None]:
    """Calls of 20 users one after the other, from four threads, until the block ends."""
    over = threading.Event()

    def use(first: int) -> None:
        number = first
        while not over.is_set():
            number += 1
            metadata = (("x-user", f"user-{number % 20}"),)
            try:
                client.echo(b"", metadata=metadata, timeout=PATIENCE)
            except Exception as error:  # noqa: BLE001 - a thread has nobody to raise to
                failed.append(str(error))

    threads = [threading.Thread(target=use, args=(n * 5,)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


@contextmanager
def watched(proxy: ProxyProcess) -> Iterator[None]:
    """Somebody looks all the while, so that the ticker knows what happened."""
    looked, over = threading.Event(), threading.Event()

    async def watch() -> None:
        url = f"ws://127.0.0.1:{proxy.admin_port}/live"
        async with open_websocket_url(url) as socket:
            while not over.is_set():
                await socket.get_message()
                looked.set()

    watcher = threading.Thread(target=trio.run, args=(watch,))
    watcher.start()
    try:
        assert looked.wait(PATIENCE)
        yield
    finally:
        over.set()
        watcher.join()


def gone(proxy: ProxyProcess) -> bool:
    return any(line["event"] == "link_dead" for line in proxy.events)


@chromium.needs_chromium
def test_a_dead_connection_is_seen_on_the_page_and_by_no_user(tmp_path: Path) -> None:
    failed: list[str] = []
    with (
        running_backends("pod-1", "pod-2", "pod-3") as fleet,
        relay_to(fleet["pod-1"].key) as relay,
    ):
        backends = ["--backend", relay.address, *fleet.flags[2:]]
        flags = (*backends, "--sticky", "header:x-user", "--idempotent")
        with (
            running_proxy(*flags) as proxy,
            connected(proxy.target) as client,
            under_load(client, failed),
        ):
            url = f"http://127.0.0.1:{proxy.admin_port}/live"
            wait_until(lambda: len(proxy.access) > 300, "links and figures are there")
            with watched(proxy):
                assert relay.lose_busiest()
                wait_until(lambda: gone(proxy), "it was found out")
                shown = chromium.document(tmp_path / "one", url)
                to = Path(PICTURES or tmp_path) / "live.png"
                chromium.screenshot(tmp_path / "two", url, to, (1240, 560))

    assert failed == []
    assert "dead, and given up" in shown
    assert to.read_bytes().startswith(b"\x89PNG")
