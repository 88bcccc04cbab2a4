"""Real gRPC servers (grpcio) with the health service of grpc, and what it says in a test's hand."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SERVICE = "shop.Cart"
WHO = f"/{SERVICE}/Who"


class HealthBackend:
    """Says its address to whoever calls `Who`. Without `checked` there is no health service.

    With `credentials` it speaks TLS.
    """

    def __init__(
        self, *, checked: bool = True, credentials: grpc.ServerCredentials | None = None
    ) -> None:
        self._server = grpc.server(ThreadPoolExecutor(8))
        port = (
            self._server.add_insecure_port("127.0.0.1:0")
            if credentials is None
            else self._server.add_secure_port("127.0.0.1:0", credentials)
        )
        self.key = f"127.0.0.1:{port}"
        who = grpc.unary_unary_rpc_method_handler(lambda *_: self.key.encode())
        methods = grpc.method_handlers_generic_handler(SERVICE, {"Who": who})
        self._server.add_generic_rpc_handlers((methods,))
        self._health = health.HealthServicer()
        if checked:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.serves(True)
        self._server.start()

    def serves(self, well: bool) -> None:
        words = health_pb2.HealthCheckResponse
        self._health.set(SERVICE, words.SERVING if well else words.NOT_SERVING)

    def close(self) -> None:
        self._server.stop(None).wait()


@contextmanager
def health_backends(
    count: int, *, checked: bool = True, credentials: grpc.ServerCredentials | None = None
) -> Iterator[dict[str, HealthBackend]]:
    made = [HealthBackend(checked=checked, credentials=credentials) for _ in range(count)]
    try:
        yield {backend.key: backend for backend in made}
    finally:
        for backend in made:
            backend.close()
