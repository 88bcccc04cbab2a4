"""A proxy with documents of its own before echo backends, and one HTTP/1.1 request at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.http_backends import EchoBackend, echo_backends
from support.http_clients import raw_client
from support.proxy_process import ProxyProcess, running_proxy


@dataclass(frozen=True)
class Told:
    """One answer. `fields` has the last value of each name, `seen` what the backend was asked."""

    status: int
    fields: dict[str, str]
    body: bytes
    seen: dict[str, Any] | None

    @property
    def pod(self) -> str:
        return "" if self.seen is None else str(self.seen["backend"])

    def asked(self, name: str) -> list[str]:
        """The values of a request header as the backend got it."""
        headers = [] if self.seen is None else self.seen["headers"]
        return [value for key, value in headers if key == name]


@dataclass(frozen=True)
class Site:
    """Services `one`, `two`, … are `backends`, in their order."""

    proxy: ProxyProcess
    backends: list[EchoBackend]

    def ask(self, path: str, *lines: str, method: str = "GET", host: str = "a.test") -> Told:
        head = "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *lines, "", ""])
        with raw_client(self.proxy.port) as client:
            client.send(head.encode())
            status, fields, body = client.read_response()
        seen = json.loads(body) if body.startswith(b"{") else None
        return Told(status, fields, body, seen)


NAMES = ("one", "two", "three")


@contextmanager
def running_site(
    folder: Path,
    documents: str,
    *flags: str,
    count: int = 1,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Site]:
    config = folder / "site.yaml"
    config.write_text(documents)
    with echo_backends(count) as backends:
        named = zip(NAMES, backends, strict=False)
        services = [flag for n, b in named for flag in ("--service", f"{n}={b.address}")]
        with running_proxy(str(config), *services, *flags, environment=environment) as proxy:
            yield Site(proxy, backends)
