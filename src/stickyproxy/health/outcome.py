"""What one attempt says about its endpoint.

A gRPC backend says nearly everything with HTTP 200, so its `grpc-status` is read as the HTTP status
that means the same, by Envoy's table (source/common/grpc/status.cc); otherwise no gRPC backend
would ever look ill. What the client did, or we did, says nothing about the endpoint.
"""

from __future__ import annotations

import enum

from stickyproxy.errors import ErrorKind, ProxyError, Side


class Outcome(enum.Enum):
    """`FAILURE_LOCAL`: seen by us (timeout, reset, a broken link), nothing the endpoint answered.

    `FAILURE_CONNECT` is one that waited for a connect in vain; the connect itself is the news, and
    the breaker has it from there, once and not once for each request that waited.
    `FAILURE_GATEWAY` is 502, 503, 504 and `FAILURE_5XX` any other 5xx, which Envoy counts apart.
    """

    SUCCESS = "success"
    FAILURE_CONNECT = "failure_connect"
    FAILURE_LOCAL = "failure_local"
    FAILURE_GATEWAY = "failure_gateway"
    FAILURE_5XX = "failure_5xx"
    NEUTRAL = "neutral"


SUCCESS, NEUTRAL = Outcome.SUCCESS, Outcome.NEUTRAL
"""Looked up in the enum each costs 0.1 us; every call asks for them."""


_HTTP_OF_GRPC = (
    200,
    499,
    500,
    400,
    504,
    404,
    409,
    403,
    429,
    400,
    409,
    400,
    501,
    500,
    503,
    500,
    401,
)
"""By grpc-status number; any other number is 500."""

_GATEWAY = frozenset({502, 503, 504})

_SERVER_ERROR = 500

_ENDPOINT_AT_FAULT = frozenset(
    {
        ErrorKind.CONNECT_FAILED,
        ErrorKind.UPSTREAM_RESET,
        ErrorKind.UPSTREAM_CLOSED,
        ErrorKind.UPSTREAM_PROTOCOL,
        ErrorKind.TIMEOUT,
    }
)
"""Not REFUSED: an endpoint that refuses a stream or says GOAWAY is well and only changes its links.

Not IDLE_TIMEOUT: it may as well be the client that fell silent.
"""


def classify(http_status: int | None, grpc_status: int | None, error: ProxyError | None) -> Outcome:
    """What an attempt ended with: its error if it has one, else the status that came last.

    None for what was not there; with nothing at all the attempt was given up and is NEUTRAL. So is an
    echo: a connection that breaks is one piece of news, however many streams it carried.
    """
    if error is not None:
        if error.echo or error.kind not in _ENDPOINT_AT_FAULT or error.side is not Side.UPSTREAM:
            return Outcome.NEUTRAL
        connect = error.kind is ErrorKind.CONNECT_FAILED
        return Outcome.FAILURE_CONNECT if connect else Outcome.FAILURE_LOCAL
    status = http_status if grpc_status is None else _as_http(grpc_status)
    if status is None:
        return Outcome.NEUTRAL
    if status < _SERVER_ERROR:
        return Outcome.SUCCESS
    return Outcome.FAILURE_GATEWAY if status in _GATEWAY else Outcome.FAILURE_5XX


def _as_http(grpc_status: int) -> int:
    known = 0 <= grpc_status < len(_HTTP_OF_GRPC)
    return _HTTP_OF_GRPC[grpc_status] if known else _SERVER_ERROR
