"""Answers of ours that are no failures, and the fields that every answer of a request gets."""

from __future__ import annotations

from stickyproxy.errors import HTTP_TO_GRPC, GrpcStatus
from stickyproxy.model import Headers
from stickyproxy.policy.cors import EXPOSES_ALL, by_name
from stickyproxy.policy.grpc import percent_encode

_JOINED = frozenset({b"vary"})
"""Fields that are lists: ours stands beside the backend's, any other takes its place."""


def redirected(code: int, location: bytes, *, grpc: bool) -> Headers:
    """The whole answer, without a body. A gRPC client follows no redirect: it is told where to (Envoy

    turns its own answers into a trailers-only head too).
    """
    if not grpc:
        return [
            (b":status", b"%d" % code),
            (b"location", location),
            (b"content-length", b"0"),
        ]
    status = HTTP_TO_GRPC.get(code, GrpcStatus.UNKNOWN)
    message = f"stickyproxy: redirected ({code}) to {location.decode('latin-1')}"
    return [
        (b":status", b"200"),
        (b"content-type", b"application/grpc"),
        (b"grpc-status", b"%d" % status),
        (b"grpc-message", percent_encode(message)),
        (b"location", location),
    ]


def with_added(headers: Headers, added: Headers) -> Headers:
    """A response head with `added` in place of what has the same names."""
    taken = {name for name, _ in added if name not in _JOINED}
    out = [field for field in headers if field[0] not in taken] + added
    return by_name(out) if EXPOSES_ALL in added else out
