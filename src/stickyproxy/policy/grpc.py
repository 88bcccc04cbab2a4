"""gRPC over HTTP/2 as far as a proxy must know it.

Sources: grpc/grpc doc/PROTOCOL-HTTP2.md (timeouts, trailers-only, percent encoding),
doc/statuscodes.md and doc/http-grpc-status-mapping.md. A client that speaks gRPC understands a
failure only as grpc-status, so whatever we make fail for it is said in one head that ends the
stream ("trailers-only"), with `:status` 200. A status that a server sent is never touched.
"""

from __future__ import annotations

import re
from http import HTTPStatus

from stickyproxy.errors import HTTP_TO_GRPC, ErrorKind, GrpcStatus, H2Code
from stickyproxy.model import Headers

CONTENT_TYPE = b"application/grpc"
ERROR_FIELD = b"x-stickyproxy-error"

STATUS_NAMES = (
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
)
"""By number, spelt as grpc-go and Envoy spell them in logs and metric labels."""

_OK = HTTPStatus.OK.value  # looked up in the enum it costs as much as all else here
_UNKNOWN = int(GrpcStatus.UNKNOWN)
_STATUSES = {b"%d" % number: number for number in range(len(STATUS_NAMES))}
_STATUSES |= {b"%02d" % number: number for number in range(10)}  # clients read numbers, not texts

_UNITS: dict[int, tuple[int, int]] = {
    ord("n"): (1, 1_000_000_000),
    ord("u"): (1, 1_000_000),
    ord("m"): (1, 1_000),
    ord("S"): (1, 1),
    ord("M"): (60, 1),
    ord("H"): (3600, 1),
}
"""Unit to (multiplier, divisor) for seconds, finest first. Whole numbers, as 1e-6 is inexact."""

_MAX_DIGITS = 8
_MAX_AMOUNT = 10**_MAX_DIGITS - 1

_BODY_FIELDS = frozenset(
    {b":status", b"content-type", b"content-length", b"content-encoding", b"transfer-encoding"}
)

_UNPRINTABLE = re.compile(rb"[^\x20-\x24\x26-\x7e]")


def is_grpc(headers: Headers) -> bool:
    """True for `application/grpc`, also with `+proto` and the like or a parameter; not grpc-web."""
    for name, value in headers:
        if name == b"content-type":
            return is_grpc_type(value)
    return False


def is_grpc_type(value: bytes | None) -> bool:
    """The same of the value of a content-type; None where there is none."""
    if value is None or value == CONTENT_TYPE:
        return value is not None
    size = len(CONTENT_TYPE)
    return value[:size].lower() == CONTENT_TYPE and value[size : size + 1] in (
        b"",
        b"+",
        b";",
        b" ",
    )


def parse_timeout(value: bytes) -> float | None:
    """Seconds of a `grpc-timeout` (one to eight digits and a unit of `HMSmun`).

    None if it is malformed: such a request has no deadline here, as with Envoy; the field is passed
    on and the server refuses it.
    """
    unit = _UNITS.get(value[-1]) if value else None
    digits = value[:-1]
    if unit is None or len(digits) > _MAX_DIGITS or not digits.isdigit():
        return None
    return int(digits) * unit[0] / unit[1]


def format_timeout(seconds: float) -> bytes:
    """`seconds` in the finest unit that fits into eight digits, rounded down.

    Down, because a backend must not believe in more time than is left. What is over or nearly over
    becomes `1n`, as the amount has to be positive; more than 99999999 hours become that many.
    """
    if 0.1 <= seconds < 99.99:
        return b"%du" % (seconds * 1_000_000)
    for unit, (multiplier, divisor) in _UNITS.items():
        amount = seconds * divisor // multiplier
        if amount <= _MAX_AMOUNT:
            return b"%d%c" % (max(amount, 1), unit)
    return b"%dH" % _MAX_AMOUNT


def percent_encode(text: str) -> bytes:
    """The value of `grpc-message`: UTF-8, everything but %x20-7E and `%` itself as `%XX`."""
    return _UNPRINTABLE.sub(lambda found: b"%%%02X" % found[0][0], text.encode(errors="replace"))


_OF_RESET: dict[int, GrpcStatus] = {
    H2Code.REFUSED_STREAM: GrpcStatus.UNAVAILABLE,
    H2Code.CANCEL: GrpcStatus.CANCELLED,
    H2Code.ENHANCE_YOUR_CALM: GrpcStatus.RESOURCE_EXHAUSTED,
    H2Code.INADEQUATE_SECURITY: GrpcStatus.PERMISSION_DENIED,
}


def status_of_reset(code: int) -> GrpcStatus:
    """What clients make of an RST_STREAM (grpc/grpc doc/PROTOCOL-HTTP2.md, "Errors")."""
    return _OF_RESET.get(code, GrpcStatus.INTERNAL)


def status_of(headers: Headers) -> int | None:
    """The `grpc-status` of trailers or of a trailers-only head; None without one.

    What is no status of the table counts as UNKNOWN, as clients take it.
    """
    for name, value in headers:
        if name == b"grpc-status":
            return _STATUSES.get(value, _UNKNOWN)
    return None


def local_answer(
    kind: ErrorKind,
    detail: str,
    *,
    grpc: bool,
    head: bool = False,
    status: GrpcStatus | None = None,
) -> tuple[Headers, bytes]:
    """The whole response for a failure of ours: head and body (empty: the head ends the stream).

    `grpc`: the request was gRPC, so the answer is trailers-only. `head`: the method was HEAD, so
    the body stays away and its length is still told. `status` is the gRPC one if the kind's is not.
    Both name the flag in `x-stickyproxy-error`.
    """
    message = _message(kind, detail)
    flag = (ERROR_FIELD, kind.flag.encode())
    if grpc:
        return [*_trailers_only(kind.grpc if status is None else status, message), flag], b""
    body = message.encode(errors="replace") + b"\n"
    headers = [
        (b":status", b"%d" % kind.http),
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        flag,
    ]
    return headers, b"" if head else body


def _message(kind: ErrorKind, detail: str) -> str:
    line = " ".join(detail.split())
    return f"stickyproxy: {line} ({kind.flag} {kind.value})"


def death_trailers(kind: ErrorKind, detail: str, status: GrpcStatus | None = None) -> Headers:
    """Trailers for a body that its backend left unfinished.

    Only where the client has seen whole messages (`MessageCounter.at_boundary`); in the middle of
    one the stream must be reset instead.
    """
    message = _message(kind, detail)
    status = kind.grpc if status is None else status
    return [*_status_fields(status, message), (ERROR_FIELD, kind.flag.encode())]


def _status_fields(status: GrpcStatus, message: str) -> Headers:
    return [(b"grpc-status", b"%d" % status), (b"grpc-message", percent_encode(message))]


def _trailers_only(status: GrpcStatus, message: str) -> Headers:
    return [
        (b":status", b"200"),
        (b"content-type", CONTENT_TYPE),
        *_status_fields(status, message),
    ]


def in_kind(headers: Headers, asked: bytes | None) -> Headers:
    """A head of ours for a client that sent `asked` as its content type: some take nothing but that

    of their codec (`application/grpc+json`). For gRPC-Web it is gRPC's of the same codec.
    """
    if asked is None or asked == CONTENT_TYPE or asked[: len(CONTENT_TYPE)].lower() != CONTENT_TYPE:
        return headers
    _, plus, codec = asked.partition(b";")[0].rstrip().partition(b"+")
    kind = (b"content-type", CONTENT_TYPE + plus + codec)
    return [kind if field[0] == b"content-type" else field for field in headers]


def needs_translation(status: int, headers: Headers) -> bool:
    """True if a gRPC client cannot understand this response head.

    That is one without a `grpc-status` that is no 200, or whose content type is another protocol's.
    A 200 without any content type passes: its trailers may still hold the status. So does a 431, which
    is INTERNAL by the document and to grpc-java, and UNKNOWN to grpc-go: theirs to read.
    """
    if status == _OK:
        for name, value in headers:
            if name == b"content-type":
                return not is_grpc_type(value) and status_of(headers) is None
        return False
    return status != HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE and status_of(headers) is None


def translate_http_error(status: int, headers: Headers) -> Headers:
    """The trailers-only head that tells a gRPC client what a backend said that was no gRPC.

    Fields that do not speak of the body (cookies, `www-authenticate`, `server`) stay. A head with a
    `grpc-status` is returned as it is. Nothing of the body is for the client.
    """
    if status_of(headers) is not None:
        return headers
    content_type = dict(headers).get(b"content-type", b"").decode("latin-1")
    described = f'content-type "{content_type}"' if content_type else "no content-type"
    message = f"stickyproxy: the backend answered HTTP {status} with {described}, not gRPC"
    others = [field for field in headers if field[0] not in _BODY_FIELDS]
    return [*_trailers_only(HTTP_TO_GRPC.get(status, GrpcStatus.UNKNOWN), message), *others]
