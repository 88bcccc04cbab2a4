"""A way to an API server for tests that are not about access."""

from __future__ import annotations

import ssl

from stickyproxy.control.discovery.kube_server import ApiServer


class GivenAccess:
    """`tokens` are given out one after the other on renewal, the last for ever; none is no field."""

    namespace = "default"

    def __init__(self, *tokens: str, port: int = 80, tls: ssl.SSLContext | None = None) -> None:
        self.tokens = list(tokens)
        self.place = ApiServer("127.0.0.1", port, tls, "127.0.0.1")

    async def server(self) -> ApiServer:
        return self.place

    async def authorization(self, *, renew: bool = False) -> str | None:
        if renew and len(self.tokens) > 1:
            self.tokens.pop(0)
        return f"Bearer {self.tokens[0]}" if self.tokens else None
