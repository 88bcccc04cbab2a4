"""A pod of the laboratory: a gRPC server (grpcio) that says its name. `pod.py NAME HOST:PORT`.

It ends with SIGTERM, or when its standard input ends: nobody is left behind.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import grpc

SERVICE = "lab.Pod"
WHO = f"/{SERVICE}/Who"
GRACE = 10.0
"""Seconds for calls under way after SIGTERM."""


async def serve(name: str, address: str) -> None:
    async def who(_: bytes, __: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return name.encode()

    server = grpc.aio.server()
    methods = {"Who": grpc.unary_unary_rpc_method_handler(who)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    server.add_insecure_port(address)
    await server.start()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(sys.stdin.fileno(), stop.set)
    print("ready", flush=True)
    await stop.wait()
    await server.stop(GRACE)


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
