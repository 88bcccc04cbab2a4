"""Chromium without a window, on a page of ours that tells what it found."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 90.0
"""Seconds for all that a page does; a start takes two, on a busy machine ten."""
_TYPES = {".html": "text/html", ".js": "text/javascript"}


def find() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class PageServer:
    """Gives out the files of a folder, and takes what the page POSTs to `/told`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._told = threading.Event()
        self._answer: Any = None
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.give(self)

            def do_POST(self) -> None:
                owner.take(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def give(self, handler: BaseHTTPRequestHandler) -> None:
        file = self._folder / handler.path.lstrip("/")
        if not file.is_file():
            handler.send_error(404)
            return
        body = file.read_bytes()
        handler.send_response(200)
        handler.send_header("content-type", _TYPES.get(file.suffix, "application/octet-stream"))
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"]))
        handler.send_response(204)
        handler.end_headers()
        self._answer = json.loads(body)
        self._told.set()

    def wait(self) -> Any:
        assert self._told.wait(PATIENCE), "the page told nothing"
        return self._answer

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def page_server(folder: Path) -> Iterator[PageServer]:
    server = PageServer(folder)
    try:
        yield server
    finally:
        server.close()


def told_by_page(chromium: str, server: PageServer, asked: object, profile: Path) -> Any:
    """What `page.html` of the server's folder found out; `asked` stands behind its `#`."""
    url = f"{server.origin}/page.html#{quote(json.dumps(asked))}"
    flags = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--disable-dev-shm-usage", "--ignore-certificate-errors", f"--user-data-dir={profile}"),
    )
    process = subprocess.Popen(
        [chromium, *flags, url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return server.wait()
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its own session: its children and nobody else
        process.wait(10)
