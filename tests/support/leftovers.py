"""What a proxy still has when nobody asks anything of it."""

from __future__ import annotations

from support.exposed import Exposed
from support.proxy_process import ProxyProcess

UNDER_WAY = (
    "stickyproxy_downstream_connections",
    "stickyproxy_downstream_streams",
    "stickyproxy_upstream_streams",
)


def left_over(proxy: ProxyProcess) -> dict[str, float]:
    """By metric, what is not zero."""
    now = Exposed(proxy)
    return {name: value for name in UNDER_WAY if (value := now.total(name))}


def wait_for_nothing_left(proxy: ProxyProcess) -> None:
    """The next look may come before a reader has noticed that its client left."""
    proxy.wait_until(lambda: not left_over(proxy))
