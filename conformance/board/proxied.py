"""The proxy as a suite meets it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conformance.board.results import Way
from support.http_lab import Authority
from support.proxy_process import ProxyProcess, running_proxy


def authority(folder: Path) -> Authority:
    """The one of this run, made when it is first asked for."""
    place = folder / "authority"
    if place.exists():
        return Authority(place / "ca.pem", place / "cert.pem", place / "key.pem")
    return Authority.make(place)


@contextmanager
def proxied(way: Way, folder: Path, *flags: str, scheme: str = "h2c://") -> Iterator[ProxyProcess]:
    """Listening for HTTP/2 alone, or as `scheme` says; with TLS if the way is one of TLS.

    A proxy that died meanwhile, or that met a bug of its own, is an error whatever the suite says.
    """
    bind = "https://127.0.0.1:0" if way.tls else f"{scheme}127.0.0.1:0"
    tls = authority(folder).proxy_flags if way.tls else ()
    with running_proxy("--codec", way.codec, *tls, *flags, binds=[bind]) as proxy:
        yield proxy
        if proxy.process.poll() is not None:
            raise RuntimeError(f"the proxy ended with {proxy.process.returncode}")
        bugs = [event for event in proxy.events if str(event.get("event")).startswith("bug")]
        if bugs:
            raise RuntimeError(f"the proxy met a bug of its own: {bugs[0]}")
