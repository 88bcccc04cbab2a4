"""grpc.health.v1 on the admin port, for kubelet's `grpc:` probes: one unary method, by hand.

Two protobuf messages of one field each do not ask for a protobuf library
(grpc/grpc-proto grpc/health/v1/health.proto).
"""

from __future__ import annotations

import enum

from stickyproxy.errors import GrpcStatus
from stickyproxy.model import Headers

_CHECK = "/grpc.health.v1.Health/Check"
_GRPC_TYPE = (b"content-type", b"application/grpc")


class Serving(enum.IntEnum):
    """HealthCheckResponse.ServingStatus, what we say of it."""

    SERVING = 1
    NOT_SERVING = 2


def is_grpc(headers: Headers) -> bool:
    """Whether the content type is gRPC's (not gRPC-Web's)."""
    kind = next((value for name, value in headers if name == b"content-type"), b"").lower()
    return kind.startswith(b"application/grpc") and not kind.startswith(b"application/grpc-web")


def reads_body(path: str, headers: Headers) -> bool:
    """Whether the answer can depend on it. A gRPC stream that is not served may never end."""
    return path == _CHECK or not is_grpc(headers)


def respond_grpc(path: str, body: bytes, ready: bool) -> tuple[int, Headers, bytes, Headers | None]:
    """HTTP status, headers, body, trailers. Errors are trailers-only: no body, None."""
    if path != _CHECK:  # Watch too: a probe asks once
        return _failed(GrpcStatus.UNIMPLEMENTED, b"only Check is served here")
    if body[:1] == b"\x01":
        return _failed(GrpcStatus.UNIMPLEMENTED, b"compression is not supported")
    if len(body) < 5 or body[0] or int.from_bytes(body[1:5], "big") != len(body) - 5:
        return _failed(GrpcStatus.INTERNAL, b"not one whole message")
    service = parse_check(body[5:])
    if service is None:
        return _failed(GrpcStatus.INTERNAL, b"not a HealthCheckRequest")
    if service:
        return _failed(GrpcStatus.NOT_FOUND, b"unknown service")
    message = bytes((0x08, Serving.SERVING if ready else Serving.NOT_SERVING))
    framed = b"\x00" + len(message).to_bytes(4, "big") + message
    return 200, [_GRPC_TYPE], framed, [(b"grpc-status", b"0")]


def parse_check(message: bytes) -> bytes | None:
    """The `service` of a HealthCheckRequest (field 1), None if this is no protobuf message."""
    service, at = b"", 0
    while at < len(message):
        tag, at = _varint(message, at)
        field, wire = tag >> 3, tag & 7
        if wire == 2:
            size, at = _varint(message, at)
            if at < 0:
                return None
            start, at = at, at + size
            if field == 1:
                service = message[start:at]
        elif wire == 0:
            _, at = _varint(message, at)
        elif wire in {1, 5}:
            at += 8 if wire == 1 else 4
        else:
            return None
        if at < 0 or at > len(message) or not field:
            return None
    return service


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """(value, next position), the position -1 if it is cut off or longer than ten bytes."""
    value = 0
    for shift, byte in enumerate(message[at : at + 10] if at >= 0 else b""):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, at + shift + 1
    return 0, -1


def _failed(status: GrpcStatus, why: bytes) -> tuple[int, Headers, bytes, Headers | None]:
    told = (b"grpc-status", b"%d" % status)
    return 200, [_GRPC_TYPE, told, (b"grpc-message", why)], b"", None
