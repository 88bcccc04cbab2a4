"""Who asks: a page of somebody else's in a browser of the same machine must neither read nor act.

A WebSocket says where it comes from, and that has to be here; and who reaches us by loopback has to name
us so, or a foreign name could be made to lead here (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit


def stranger(fields: Mapping[bytes, bytes], *, loopback: bool) -> str:
    """What is wrong with the name that we were called by, "" for nothing."""
    host = _host(fields)
    if not loopback or _is_ours(host):
        return ""
    return f"`{host}` is no name of this machine; right would be localhost\n"


def foreign(fields: Mapping[bytes, bytes]) -> str:
    """RFC 6455 §10.2. Programs say no origin."""
    origin = fields.get(b"origin")
    if origin is None:
        return ""
    said = urlsplit(origin.decode("latin-1")).netloc.lower()
    here = fields.get(b":authority", b"").decode("latin-1").lower()
    return "" if said == here else f"not from a page of `{said or 'no host'}`\n"


def _host(fields: Mapping[bytes, bytes]) -> str:
    authority = fields.get(b":authority", b"").decode("latin-1")
    host = authority.rpartition("]")[0] if authority.startswith("[") else authority.split(":")[0]
    return host.strip("[]").lower()


def _is_ours(host: str) -> bool:
    """A unix socket's clients say whatever they like, mostly localhost."""
    if not host or host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
