"""What tests of a reload ask a running proxy."""

from __future__ import annotations

import re

from support.http_clients import RawClient, raw_client
from support.proxy_process import ProxyProcess


def status(client: RawClient, path: str) -> int:
    """Of a GET on a connection that stays."""
    client.send(f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
    return client.read_response()[0]


def metric(proxy: ProxyProcess, name: str) -> float:
    """A process-wide one, without its `stickyproxy_`."""
    with raw_client(proxy.admin_port) as client:
        client.send(b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n")
        text = client.read_response()[2].decode()
    (value,) = re.findall(rf"^stickyproxy_{name} (\S+)$", text, re.MULTILINE)
    return float(value)
