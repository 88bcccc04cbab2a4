"""One gRPC call: sent by hand, asked how it ended, and found again in the access log."""

from __future__ import annotations

from typing import Any

import grpc

from support.http_clients import h2_request
from support.proxy_process import ProxyProcess
from support.rawframes import Fields


def grpc_request(path: str, *more: tuple[bytes, bytes]) -> Fields:
    """The head of a call, for a client without a clock of its own."""
    fixed = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
    return h2_request(path.encode(), *fixed, *more, method=b"POST")


def grpc_message(payload: bytes) -> bytes:
    return b"\0" + len(payload).to_bytes(4, "big") + payload


def request_id(value: str) -> tuple[str, str]:
    """Metadata that lets a call's line be found in the access log."""
    return ("x-request-id", value)


def access_line(proxy: ProxyProcess, wanted: str) -> dict[str, Any]:
    """The one line of the call with this request id, once it is there."""

    def found() -> list[dict[str, Any]]:
        return [line for line in list(proxy.access) if line["request_id"] == wanted]

    proxy.wait_until(lambda: bool(found()))
    [line] = found()
    return line


def told(line: dict[str, Any]) -> tuple[int, int | None, str]:
    """HTTP status, grpc-status and flags of an access-log line."""
    status = line["grpc_status"]
    return line["http_status"], status and status["number"], line["response_flags"]


def answer_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """How a call ended, once it has: its status and message."""
    return call.code(), call.details() or ""
