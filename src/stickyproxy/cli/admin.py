"""Questions to a running proxy, through its admin port."""

from __future__ import annotations

import http.client
import os
import socket

from stickyproxy.config.process.settings import DEFAULT_ADMIN
from stickyproxy.config.text.addresses import parse_admin, show_bind
from stickyproxy.control.admin.app import TOKEN_ENV
from stickyproxy.model import Bind

ANSWER_WITHIN = 5.0
"""Seconds; the admin port answers at once, or its process is stuck."""


class UnreachableError(Exception):
    """In words, with the address."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP/1.1 over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER_WITHIN)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ANSWER_WITHIN)
        self.sock.connect(self._path)


def admin_of(text: str | None) -> Bind:
    """What `--admin` says, else the environment, else the default. `http://` may stand before it.

    Raises `ValueError` for what is no address.
    """
    text = text or os.environ.get("STICKYPROXY_ADMIN")
    return parse_admin(text.removeprefix("http://").rstrip("/")) if text else DEFAULT_ADMIN


def ask(admin: Bind, method: str, path: str) -> tuple[int, str]:
    """Status and what was said. Raises what `http.client` raises, and `OSError`."""
    token = os.environ.get(TOKEN_ENV)
    connection = _connection(admin)
    try:
        connection.request(method, path, headers={"x-stickyproxy-token": token} if token else {})
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace").strip()
    finally:
        connection.close()


def get(admin: Bind, path: str) -> tuple[int, str]:
    """As `ask`, with its failures as `UnreachableError`."""
    try:
        return ask(admin, "GET", path)
    except http.client.HTTPException:
        raise UnreachableError(f"what answers at {show_bind(admin)} speaks no HTTP/1.1") from None
    except OSError as error:
        raise UnreachableError(f"no proxy answers at {show_bind(admin)}: {error}") from None


def _connection(admin: Bind) -> http.client.HTTPConnection:
    if admin.kind == "unix":
        return _UnixConnection(admin.path)
    return http.client.HTTPConnection(admin.host, admin.port, timeout=ANSWER_WITHIN)
