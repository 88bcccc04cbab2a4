"""A real gRPC server to put behind the proxy: an echo service, reflection, health. Needs grpcio.

    python -m stickyproxy.demo.servers NAME [ADDRESS]

It listens on a free loopback port, says which on stdout in the proxy's own log form, and ends when
its stdin does, so that it never outlives whoever started it. At an ADDRESS of its own (in a pod) it
ends by SIGTERM, when its calls are done. The service is described at run time: no generated code, no
protoc, and reflection has it all the same.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

PACKAGE = "stickyproxy.demo"
SERVICE = f"{PACKAGE}.Echo"

_FIELD = descriptor_pb2.FieldDescriptorProto
_THREADS = 16  # calls a server answers at a time; the demo has at most 8 under way
_GRACE = 20.0  # seconds for what is under way; a pod has 30 in all
_MAX_REPLIES = 1_000  # whoever asks `Repeat` for 4 billion gets an answer that ends


def _describe() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="stickyproxy/demo.proto", package=PACKAGE, syntax="proto3"
    )
    request = file.message_type.add(name="EchoRequest")
    request.field.add(name="text", number=1, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
    request.field.add(name="times", number=2, type=_FIELD.TYPE_UINT32, label=_FIELD.LABEL_OPTIONAL)
    reply = file.message_type.add(name="EchoReply")
    reply.field.add(name="text", number=1, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
    reply.field.add(name="backend", number=2, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
    service = file.service.add(name="Echo")
    for name, from_client, from_server in (
        ("Say", False, False),
        ("Repeat", False, True),
        ("Collect", True, False),
        ("Chat", True, True),
    ):
        service.method.add(
            name=name,
            input_type=f".{PACKAGE}.EchoRequest",
            output_type=f".{PACKAGE}.EchoReply",
            client_streaming=from_client,
            server_streaming=from_server,
        )
    return file


descriptor_pool.Default().Add(_describe())


def _message(name: str) -> Any:
    found = descriptor_pool.Default().FindMessageTypeByName(f"{PACKAGE}.{name}")
    return message_factory.GetMessageClass(found)


EchoRequest = _message("EchoRequest")
EchoReply = _message("EchoReply")


class Echo:
    """The four kinds of call. Each reply, and the first metadata, names the server that made it."""

    def __init__(self, backend: str) -> None:
        self._backend = backend

    def say(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._sign(context)
        return self._reply(request.text)

    def repeat(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self._sign(context)
        for _ in range(min(request.times or 1, _MAX_REPLIES)):
            yield self._reply(request.text)

    def collect(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        self._sign(context)
        return self._reply(" ".join(request.text for request in requests))

    def chat(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        self._sign(context)
        for request in requests:
            yield self._reply(request.text)

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Say": _handler(grpc.unary_unary_rpc_method_handler, self.say),
                "Repeat": _handler(grpc.unary_stream_rpc_method_handler, self.repeat),
                "Collect": _handler(grpc.stream_unary_rpc_method_handler, self.collect),
                "Chat": _handler(grpc.stream_stream_rpc_method_handler, self.chat),
            },
        )

    def _sign(self, context: grpc.ServicerContext) -> None:
        context.send_initial_metadata((("x-backend", self._backend),))

    def _reply(self, text: str) -> Any:
        return EchoReply(text=text, backend=self._backend)


def _handler(kind: Callable[..., Any], behaviour: Callable[..., Any]) -> Any:
    return kind(
        behaviour,
        request_deserializer=EchoRequest.FromString,
        response_serializer=EchoReply.SerializeToString,
    )


def start(backend: str, address: str = "127.0.0.1:0") -> tuple[grpc.Server, int]:
    """A running server, by default on a free loopback port, and the port. Stop it with `stop`."""
    server = grpc.server(ThreadPoolExecutor(_THREADS))
    server.add_generic_rpc_handlers((Echo(backend).handler(),))
    status = health.HealthServicer()
    for service in ("", SERVICE):
        status.set(service, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    reflection.enable_server_reflection(
        (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    port = server.add_insecure_port(address)
    server.start()
    return server, port


def main(backend: str, address: str = "") -> None:
    server, port = start(backend, address or "127.0.0.1:0")
    host = address.rpartition(":")[0] or "127.0.0.1"
    print(json.dumps({"event": "listening", "bind": f"{host}:{port}"}), flush=True)
    if address:
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
        server.stop(_GRACE).wait()
    else:
        sys.stdin.read()
        server.stop(grace=None).wait()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # before grpcio starts threads
    main(*sys.argv[1:])
