"""The structs inside Mapping and Module for what goes beyond routing (see `config.schema.mapping`)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Text = Annotated[str, Meta(min_length=1)]
Flag = bool | None
Count = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Threshold = Annotated[int, Meta(ge=1, le=1000)]
Seconds = Annotated[int, Meta(ge=1, le=32767)]  # the kernel's MAX_TCP_KEEPIDLE and -INTVL
Probes = Annotated[int, Meta(ge=1, le=127)]  # the kernel's MAX_TCP_KEEPCNT
Status = Annotated[int, Meta(ge=100, le=599)]

_DURATION = "A number with `ms`, `s`, `m` or `h`"


class CorsSpec(Struct, frozen=True, kw_only=True):
    """Which pages of other origins may use this service. Preflights are answered here.

    The lists may be written as one text with commas.
    """

    origins: Annotated[
        str | list[Text],
        Meta(
            description="Origins as browsers send them; `*` is any.",
            examples=["[https://app.example.com]"],
        ),
    ]
    methods: Annotated[
        str | list[Text] | None,
        Meta(description="`access-control-allow-methods`; `*` allows what is asked for."),
    ] = None
    headers: Annotated[
        str | list[Text] | None,
        Meta(
            description="`access-control-allow-headers`; `*` allows what is asked for. What gRPC-Web "
            "needs is added where it is translated."
        ),
    ] = None
    exposed_headers: Annotated[
        str | list[Text] | None,
        Meta(
            description="`access-control-expose-headers`; `*` exposes all that a response has. What "
            "gRPC-Web needs is added where it is translated."
        ),
    ] = None
    credentials: Annotated[
        Flag, Meta(description="Browsers may send cookies and show what they bring.")
    ] = None
    max_age: Annotated[
        str | int | None,
        Meta(description="Seconds for which a preflight's answer holds.", examples=['"86400"']),
    ] = None


class RegexRedirectSpec(Struct, frozen=True):
    """A redirect to a path made by regular expression (RE2)."""

    pattern: Annotated[Text, Meta(description="Every match in the path is replaced.")]
    substitution: Annotated[str, Meta(description=r"What by; `\1` is the first group.")]


class RetryPolicySpec(Struct, frozen=True):
    """When a request is sent again that a backend may have processed.

    What was never processed is sent again without it. A request is sent again while all of it is here
    (at most 32 KiB of body) and nothing of a response was forwarded, at another endpoint if there is
    one, after a random time up to 25 ms that doubles with each retry to 250 ms; the request's own
    limit holds for all of it. A gRPC server that answers `grpc-retry-pushback-ms` is obeyed, and told
    `grpc-previous-rpc-attempts`. At most a fifth of the requests under way to a service (but three)
    may be retries, or `max_retries` of its `circuit_breakers`.
    """

    retry_on: Annotated[
        Text,
        Meta(
            description="One or more of Envoy's conditions, with commas: `5xx` (or no answer), "
            "`gateway-error` (502, 503, 504 or no answer), `reset` (no answer), `connect-failure`, "
            "`refused-stream`, `retriable-4xx` (409), `envoy-ratelimited`; of gRPC answers without a "
            "message `cancelled`, `deadline-exceeded`, `internal`, `resource-exhausted`, "
            "`unavailable`.",
            examples=["5xx"],
        ),
    ]
    num_retries: Annotated[Count | None, Meta(description="Default 1.")] = None
    per_try_timeout: Annotated[
        Text | None,
        Meta(
            description=f"{_DURATION}: how long one try may take to its response head, from the "
            "request's end on. Default: the request's own limit.",
            examples=['"2s"'],
        ),
    ] = None


class CircuitBreakerSpec(Struct, frozen=True):
    """Beyond a limit requests are answered 503 (UNAVAILABLE) with the flag UO at once.

    Several workers have their parts of a limit.
    """

    priority: Annotated[
        str | None,
        Meta(
            description="`default` (the default) or `high`, which no request has here.",
            examples=["default"],
        ),
    ] = None
    max_connections: Annotated[
        Count | None,
        Meta(
            description="Connections to the service; an endpoint without any may always have one. "
            "Default 1024."
        ),
    ] = None
    max_pending_requests: Annotated[
        Count | None, Meta(description="Requests that wait for a connection. Default 1024.")
    ] = None
    max_requests: Annotated[Count | None, Meta(description="Requests under way. Default 1024.")] = (
        None
    )
    max_retries: Annotated[
        Count | None,
        Meta(
            description="Retries under way at once. Default: a fifth of the requests that are, but 3."
        ),
    ] = None


class KeepaliveSpec(Struct, frozen=True):
    """TCP keepalive towards the service. What is left out is the system's."""

    idle_time: Annotated[
        Seconds | None, Meta(description="Seconds of silence before the first probe.")
    ] = None
    time: Annotated[Seconds | None, Meta(description="The v1 form of `idle_time`.")] = None
    interval: Annotated[Seconds | None, Meta(description="Seconds between probes.")] = None
    probes: Annotated[
        Probes | None, Meta(description="Unanswered probes that end the connection.")
    ] = None


class HeaderValueSpec(Struct, frozen=True):
    """A header of a probe."""

    value: Annotated[str, Meta(description="The value.")]
    append: Annotated[Flag, Meta(description="False replaces what is there.")] = None


class StatusRangeSpec(Struct, frozen=True):
    """HTTP statuses, both ends included."""

    min: Annotated[Status, Meta(description="From 100.", examples=["200"])]
    max: Annotated[Status, Meta(description="To 599.", examples=["299"])]


class HttpCheckSpec(Struct, frozen=True):
    """A probe by HTTP."""

    path: Annotated[Text, Meta(description="What is asked for.", examples=["/healthz"])]
    hostname: Annotated[str | None, Meta(description="The authority.")] = None
    add_request_headers: Annotated[
        dict[str, str | HeaderValueSpec] | None, Meta(description="As a Mapping's.")
    ] = None
    remove_request_headers: Annotated[
        str | list[str] | None, Meta(description="Names of headers.")
    ] = None
    expected_statuses: Annotated[
        list[StatusRangeSpec] | None, Meta(description="Default: 200 alone.")
    ] = None


class GrpcCheckSpec(Struct, frozen=True):
    """A probe by grpc.health.v1."""

    upstream_name: Annotated[str, Meta(description="The service that is asked about.")]
    authority: Annotated[str | None, Meta(description="The authority.")] = None


class ConnectCheckSpec(Struct, frozen=True):
    """Has no fields."""


class CheckSpec(Struct, frozen=True):
    """Exactly one of the three."""

    http: Annotated[HttpCheckSpec | None, Meta(description="By HTTP.")] = None
    grpc: Annotated[GrpcCheckSpec | None, Meta(description="By gRPC.")] = None
    tcp: Annotated[
        ConnectCheckSpec | None,
        Meta(
            description="By connecting alone, up to TLS and HTTP/2's SETTINGS where the service has "
            "them. Our own addition.",
            examples=["{}"],
        ),
    ] = None


class HealthCheckSpec(Struct, frozen=True):
    """An active check of every endpoint; with several of them all have to pass.

    What is not expected takes an endpoint out at once, no answer does when it happens
    `unhealthy_threshold` times in a row; the first answer of all decides by itself. An endpoint that is
    out, or about to change, is asked five times as often. UNIMPLEMENTED tells nothing.
    """

    health_check: Annotated[
        CheckSpec,
        Meta(description="`http`, `grpc` or `tcp`.", examples=["{http: {path: /healthz}}"]),
    ]
    timeout: Annotated[Text | None, Meta(description=f"{_DURATION}. Default `3s`.")] = None
    interval: Annotated[Text | None, Meta(description=f"{_DURATION}. Default `5s`.")] = None
    healthy_threshold: Annotated[
        Threshold | None, Meta(description="Good answers until it is healthy. Default 1.")
    ] = None
    unhealthy_threshold: Annotated[
        Threshold | None, Meta(description="Bad answers until it is not. Default 2.")
    ] = None


class ClientCertDetailsSpec(Struct, frozen=True):
    """What of a client's certificate stands in `x-forwarded-client-cert`."""

    subject: Annotated[Flag, Meta(description="Its subject.")] = None
    cert: Annotated[Flag, Meta(description="The whole, as PEM, percent-encoded.")] = None
    chain: Annotated[Flag, Meta(description="Known, and without effect.")] = None
    dns: Annotated[Flag, Meta(description="Its DNS names.")] = None
    uri: Annotated[Flag, Meta(description="Its URIs (SPIFFE ids).")] = None


class IpRangeSpec(Struct, frozen=True):
    """An address or a range; exactly one of the two."""

    remote: Annotated[
        Text | None,
        Meta(
            description="Of the client, after forwarded addresses were believed or not.",
            examples=["10.0.0.0/8"],
        ),
    ] = None
    peer: Annotated[
        Text | None,
        Meta(description="Of the connection's other end.", examples=["127.0.0.1"]),
    ] = None
