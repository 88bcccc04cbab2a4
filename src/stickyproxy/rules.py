"""What Mapping and Module may ask for beyond choosing a backend, as plain values of layer 0.

Made by `config`, compiled by `policy`, acted on by `proxy` and `upstream`. Times are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# --- of a route -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Redirect:
    """An answer that sends the client elsewhere; what is None stays as the request has it.

    `authority` is `host[:port]`. `path` replaces the path, `prefix` what the route matched of it,
    `regex` is (RE2 pattern, substitution); at most one of the three. The query is kept unless `path`
    has its own. `code` is 301, 302, 303, 307 or 308.
    """

    authority: str | None = None
    scheme: str | None = None
    path: str | None = None
    prefix: str | None = None
    regex: tuple[str, str] | None = None
    code: int = 301


@dataclass(frozen=True, slots=True)
class Cors:
    """Who of another origin may read responses (the Fetch standard), in Envoy's terms.

    `origins` are compared whole and with case; `*` is any. The other lists are header values as they
    are sent, "" being absent; `*` in `methods` or `headers` means whatever the preflight asks for.
    """

    origins: tuple[str, ...]
    methods: str = ""
    headers: str = ""
    exposed_headers: str = ""
    credentials: bool = False
    max_age: str = ""


@dataclass(frozen=True, slots=True)
class Shadow:
    """A cluster that gets copies of a route's requests. `percent` of them, drawn at random."""

    name: str
    cluster: str
    percent: float = 100.0
    origin: str = ""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`retry_on` are Envoy's conditions; `num_retries` None: its default, 1.

    `per_try_timeout` None: the request's own limit.
    """

    retry_on: tuple[str, ...]
    num_retries: int | None = None
    per_try_timeout: float | None = None


# --- of a cluster ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Keepalive:
    """TCP keepalive towards endpoints; whole seconds, None leaves the system's value."""

    idle: int | None = None
    interval: int | None = None
    probes: int | None = None


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """How much of a cluster may be under way; None: Envoy's 1024, 1024, 1024, 3.

    `priority` is default or high; requests have no other than default.
    """

    priority: str = "default"
    max_connections: int | None = None
    max_pending_requests: int | None = None
    max_requests: int | None = None
    max_retries: int | None = None


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """A GET of `path`; healthy by a status within one of `expected` (both ends included).

    An added header is (name, value, append).
    """

    path: str
    hostname: str = ""
    add_request_headers: tuple[tuple[str, str, bool], ...] = ()
    remove_headers: tuple[str, ...] = ()
    expected: tuple[tuple[int, int], ...] = ((200, 200),)


@dataclass(frozen=True, slots=True)
class GrpcCheck:
    """grpc.health.v1 `Check` of `service`."""

    service: str = ""
    authority: str = ""


@dataclass(frozen=True, slots=True)
class ConnectCheck:
    """A connection, over HTTP/2 with the server's SETTINGS, and nothing is asked."""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """An active check of every endpoint. The defaults are Emissary's."""

    check: HttpCheck | GrpcCheck | ConnectCheck
    timeout: float = 3.0
    interval: float = 5.0
    healthy_threshold: int = 1
    unhealthy_threshold: int = 2


@dataclass(frozen=True, slots=True)
class OutlierDetection:
    """When an endpoint is taken out for how its calls end; names and meaning are Envoy's.

    0 switches a detector off (of `consecutive_…`) or all of them (`max_ejection_percent`). The
    `enforcing_…` are percent of what is detected that is acted on. Times in seconds.

    Where a default is not Envoy's: 10 % would eject nobody below ten hosts, so it is 30 %, at least
    one and never the last one. A 500 is as often the request's fault as the endpoint's, and here an
    ejection moves sessions: 20 in a row where Envoy has 5; 502, 503 and 504 stay at 5, and are
    enforced. Jitter keeps several proxies from letting one back at the same moment. A check that passes
    while calls fail asks the wrong question, and sessions would go to and fro with each of its answers:
    it ends no ejection unless told to.
    """

    interval: float = 10.0
    base_ejection_time: float = 30.0
    max_ejection_time: float = 300.0
    max_ejection_time_jitter: float = 3.0
    max_ejection_percent: int = 30
    consecutive_5xx: int = 20
    consecutive_gateway_failure: int = 5
    consecutive_local_origin_failure: int = 5
    success_rate_minimum_hosts: int = 5
    success_rate_request_volume: int = 100
    success_rate_stdev_factor: int = 1900
    enforcing_consecutive_5xx: int = 100
    enforcing_consecutive_gateway_failure: int = 100
    enforcing_consecutive_local_origin_failure: int = 100
    enforcing_success_rate: int = 100
    enforcing_local_origin_success_rate: int = 100
    successful_active_health_check_uneject_host: bool = False


@dataclass(frozen=True, slots=True)
class SlowStart:
    """How an endpoint that joined or returned comes to its share (Envoy's slow_start_config).

    For `window` seconds (0: off) its weight is multiplied by `(age / window) ** (1 / aggression)`, at
    least `min_weight_percent`. Envoy has it off; ten seconds let caches and pools of connections fill
    without anybody having to ask for it, and are over before they are missed.
    """

    window: float = 10.0
    aggression: float = 1.0
    min_weight_percent: float = 10.0


@dataclass(frozen=True, slots=True)
class Upkeep:
    """How a cluster's connections and endpoints are looked after.

    `idle_timeout` closes a connection without streams, `max_lifetime` retires one at its age; None:
    an hour, and never. `families`: which addresses of a name are used, `v4`, `v6` or "" for both.
    `outlier_detection` None: the process's own. `proxy_protocol` is the version of the PROXY header that each
    connection begins with, `v2` or "" for none.
    """

    keepalive: Keepalive | None = None
    idle_timeout: float | None = None
    max_lifetime: float | None = None
    families: str = ""
    circuit_breakers: tuple[CircuitBreaker, ...] = ()
    health_checks: tuple[HealthCheck, ...] = ()
    outlier_detection: OutlierDetection | None = None
    proxy_protocol: str = ""


# --- of the edge ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IpRange:
    """`peer`: the connection's other end is meant; else the client, after forwarded addresses."""

    network: str
    peer: bool = False


@dataclass(frozen=True, slots=True)
class GateRules:
    """What every request meets before a route is looked for (Module ambassador).

    `ip_allow` None: nobody is kept out by it. `underscores` is what a header name with `_` does:
    `allow`, `drop` (the header) or `reject` (the request). `server` is the `server` field of every
    response; "" leaves the backend's.
    """

    ip_allow: tuple[IpRange, ...] | None = None
    ip_deny: tuple[IpRange, ...] = ()
    https_redirect: bool = False
    merge_slashes: bool = False
    reject_escaped_slashes: bool = False
    strip_port: bool = False
    underscores: str = "allow"
    server: str = ""


@dataclass(frozen=True, slots=True)
class EdgePolicy:
    """What the edge believes about where a request comes from (Module ambassador, Envoy's HCM).

    `idle_timeout` in seconds ends a client's connection without streams; None: an hour.
    `preserve_request_id`: an `x-request-id` is kept whoever sent it, else only a trusted hop's.
    `proxy_protocol`: balancers begin each connection with a PROXY header, on all ports.
    `client_cert` is Envoy's mode of `x-forwarded-client-cert`, `client_cert_details` what is said there.
    """

    use_remote_address: bool = True
    xff_num_trusted_hops: int = 0
    gate: GateRules = field(default_factory=GateRules)
    idle_timeout: float | None = None
    preserve_request_id: bool = False
    proxy_protocol: bool = False
    client_cert: str = "SANITIZE"
    client_cert_details: tuple[str, ...] = ()
