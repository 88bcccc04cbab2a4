"""The one exception, and its table to HTTP, gRPC and HTTP/2 codes.

A `ProxyError` says what went wrong (kind), on whose side, and whether the request may be sent
again. It is raised where that is known and translated in one place (`proxy.exchange`). The table is
for what *we* make fail; what a peer said is relayed as it is.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass


class H2Code(enum.IntEnum):
    """RFC 9113 §7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class GrpcStatus(enum.IntEnum):
    """grpc/grpc doc/statuscodes.md."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Side(enum.Enum):
    DOWNSTREAM = "downstream"
    UPSTREAM = "upstream"
    INTERNAL = "internal"


class Retry(enum.Enum):
    """What may be done about it. `SAME_ENDPOINT`: never processed, the link was at fault.

    `NEXT_ENDPOINT`: never processed, the endpoint could not be reached. `NO`: the request may have
    been acted on.
    """

    NO = "no"
    SAME_ENDPOINT = "same_endpoint"
    NEXT_ENDPOINT = "next_endpoint"


class ErrorKind(enum.Enum):
    """Each local failure; `flag`, `http` and `grpc` say what the client and the log are told."""

    NO_ROUTE = "no_route"
    NO_CLUSTER = "no_cluster"
    NO_HEALTHY_ENDPOINT = "no_healthy_endpoint"
    CONNECT_FAILED = "connect_failed"
    REFUSED = "refused"
    RETRIES_EXHAUSTED = "retries_exhausted"
    UPSTREAM_RESET = "upstream_reset"
    UPSTREAM_CLOSED = "upstream_closed"
    UPSTREAM_PROTOCOL = "upstream_protocol"
    TIMEOUT = "timeout"
    IDLE_TIMEOUT = "idle_timeout"
    OVERLOAD = "overload"
    HEADERS_TOO_LARGE = "headers_too_large"
    BAD_REQUEST = "bad_request"
    FORBIDDEN = "forbidden"
    MISDIRECTED = "misdirected"
    UNSUPPORTED = "unsupported"
    CLIENT_GONE = "client_gone"
    INTERNAL = "internal"

    @property
    def flag(self) -> str:
        return _TOLD[self][0]

    @property
    def http(self) -> int:
        return _TOLD[self][1]

    @property
    def grpc(self) -> GrpcStatus:
        return _TOLD[self][2]


_TOLD: dict[ErrorKind, tuple[str, int, GrpcStatus]] = {
    ErrorKind.NO_ROUTE: ("NR", 404, GrpcStatus.UNIMPLEMENTED),
    ErrorKind.NO_CLUSTER: ("NC", 503, GrpcStatus.UNAVAILABLE),
    ErrorKind.NO_HEALTHY_ENDPOINT: ("UH", 503, GrpcStatus.UNAVAILABLE),
    ErrorKind.CONNECT_FAILED: ("UF", 503, GrpcStatus.UNAVAILABLE),
    ErrorKind.REFUSED: ("UR", 503, GrpcStatus.UNAVAILABLE),
    ErrorKind.RETRIES_EXHAUSTED: ("URX", 503, GrpcStatus.UNAVAILABLE),
    ErrorKind.UPSTREAM_RESET: ("UR", 503, GrpcStatus.UNAVAILABLE),
    ErrorKind.UPSTREAM_CLOSED: ("UC", 503, GrpcStatus.UNAVAILABLE),
    ErrorKind.UPSTREAM_PROTOCOL: ("UPE", 502, GrpcStatus.INTERNAL),
    ErrorKind.TIMEOUT: ("UT", 504, GrpcStatus.DEADLINE_EXCEEDED),
    ErrorKind.IDLE_TIMEOUT: ("SI", 408, GrpcStatus.UNAVAILABLE),
    ErrorKind.OVERLOAD: ("UO", 503, GrpcStatus.UNAVAILABLE),
    ErrorKind.HEADERS_TOO_LARGE: ("DPE", 431, GrpcStatus.INTERNAL),
    ErrorKind.BAD_REQUEST: ("DPE", 400, GrpcStatus.INTERNAL),
    ErrorKind.FORBIDDEN: ("-", 403, GrpcStatus.PERMISSION_DENIED),  # Envoy's RBAC sets no flag
    ErrorKind.MISDIRECTED: ("NR", 421, GrpcStatus.PERMISSION_DENIED),
    ErrorKind.UNSUPPORTED: ("-", 501, GrpcStatus.UNIMPLEMENTED),  # RFC 9220 §3, of `:protocol`
    ErrorKind.CLIENT_GONE: ("DC", 499, GrpcStatus.CANCELLED),
    ErrorKind.INTERNAL: ("-", 500, GrpcStatus.INTERNAL),
}
"""Envoy's response flag, HTTP status, gRPC status (Envoy's docs; grpc/grpc doc/statuscodes.md)."""


@dataclass(slots=True, eq=False)
class ProxyError(Exception):
    """Why an exchange cannot go on as planned.

    `code` is the HTTP/2 code to relay where a peer sent one (`relay` true), else what to send. `echo`:
    it came by the end of a connection and says no more than another that came by the same.
    """

    kind: ErrorKind
    side: Side
    detail: str
    retry: Retry = Retry.NO
    code: int = H2Code.INTERNAL_ERROR
    relay: bool = False
    echo: bool = False

    def __str__(self) -> str:
        return f"{self.kind.name.lower()} ({self.side.value}): {self.detail}"


class ConfigError(Exception):
    """Input that people wrote is wrong. The message names the place and what would be right.

    `problems` are complete lines, `file:line: path: what is wrong, what would be right`; `warnings`
    are what there was to say beside them.
    """

    def __init__(self, problems: list[str], warnings: Sequence[str] = ()) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.warnings = tuple(warnings)


HTTP_TO_GRPC: dict[int, GrpcStatus] = {
    400: GrpcStatus.INTERNAL,
    401: GrpcStatus.UNAUTHENTICATED,
    403: GrpcStatus.PERMISSION_DENIED,
    404: GrpcStatus.UNIMPLEMENTED,
    429: GrpcStatus.UNAVAILABLE,
    431: GrpcStatus.INTERNAL,
    502: GrpcStatus.UNAVAILABLE,
    503: GrpcStatus.UNAVAILABLE,
    504: GrpcStatus.UNAVAILABLE,
}
"""grpc/grpc doc/http-grpc-status-mapping.md; anything else is UNKNOWN. For answers without a grpc-status."""
