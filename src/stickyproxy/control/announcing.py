"""Whose connections begin with a PROXY header, and are believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_address, ip_network

PRIVATE = (
    "10.0.0.0/8",
    "100.64.0.0/10",  # shared (RFC 6598), which clouds give to pods and nodes
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
)
"""RFC 1918, 4193 and kin: balancers of a cluster and its nodes, and nobody from outside."""


def announcers(trusted: Sequence[str]) -> Callable[[str], bool]:
    """Whether a peer of that address ("" by a unix socket) begins with a PROXY header."""
    if not trusted:
        return lambda _: False
    networks = [ip_network(text) for text in trusted if text != "unix"]

    def announces(address: str) -> bool:
        if not address:
            return "unix" in trusted
        peer = ip_address(address)
        return any(peer in network for network in networks)

    return announces


def announced_from(
    named: Sequence[str], *, always: bool, asked: Callable[[], bool]
) -> Callable[[str], bool]:
    """Of one port. Who is `named` is trusted on every one.

    Where nobody is, private addresses are, if the port `always` has PROXY or the Module `asked` for it.
    """
    if named:
        return announcers(named)
    private = announcers(PRIVATE)
    return lambda address: (always or asked()) and private(address)
