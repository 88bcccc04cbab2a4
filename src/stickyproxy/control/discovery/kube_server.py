"""What all that talks to the API server must know of it: where it is, and who we are to it.

How that is found out is `kube_access`'s business, and for a kubeconfig `kube_config`'s.
"""

from __future__ import annotations

import ssl
from typing import NamedTuple, Protocol


class AccessError(Exception):
    """We do not know where the API server is, or have no way to say who we are. One line."""


class ApiServer(NamedTuple):
    """`tls` None is plain HTTP (`kubectl proxy`). `name` is what its certificate must say."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    name: str = ""
    prefix: str = ""

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Access(Protocol):
    """`namespace` is where we live, or what the kubeconfig's context says."""

    namespace: str

    async def server(self) -> ApiServer:
        """Where to connect now. Raises `AccessError`."""
        ...

    async def authorization(self, *, renew: bool = False) -> str | None:
        """The `authorization` field; `renew` after a 401. Raises `AccessError`."""
        ...


def with_alpn(context: ssl.SSLContext) -> ssl.SSLContext:
    """HTTP/2 where the server can, for one connection then carries every watch."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context
