"""Plain values that every room may speak of: endpoints, clusters, routes, Snapshots.

Nothing here does anything. What is made once per configuration change is a frozen dataclass; what is
made for every frame is in `events`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import field as dataclass_field
from typing import NamedTuple, Protocol

from stickyproxy.edge import DEFAULT_TERMS, Elsewhere, Pem, TlsTerms
from stickyproxy.rules import Cors, EdgePolicy, Redirect, RetryPolicy, Shadow, Upkeep

Field = tuple[bytes, bytes]
Headers = list[Field]
"""A field section in wire order. Names lower case, pseudo-headers first. HTTP/1.1 heads are given in
the same form: `:method :scheme :authority :path` for a request, `:status` for a response."""


class Section(Headers):
    """A field section that came before and will come again: the same object each time.

    Nobody changes one. So whoever works something out from it may remember that by its `id`, for as
    long as they hold it. `fields` has the last value of each name.
    """

    __slots__ = ("fields",)

    def __init__(self, headers: Headers) -> None:
        super().__init__(headers)
        self.fields = dict(headers)


# --- backends ---------------------------------------------------------------------------------


class UpstreamProtocol(enum.Enum):
    """What is spoken to an endpoint, by the URL scheme that asks for it."""

    H2C = "h2c"
    H2 = "h2"
    HTTP = "http"
    HTTPS = "https"

    @property
    def tls(self) -> bool:
        return self in (UpstreamProtocol.H2, UpstreamProtocol.HTTPS)

    @property
    def multiplexed(self) -> bool:
        return self in (UpstreamProtocol.H2C, UpstreamProtocol.H2)


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """How a TLS backend is verified. `server_name` None: the endpoint's host.

    `ca` or `ca_file` holds the authorities, neither means the system's. `chain` and `key` are the
    certificate that we show. `name` is that of the TLSContext it is from.
    """

    verify: bool = True
    ca_file: str | None = None
    server_name: str | None = None
    ca: Pem | None = None
    chain: Pem | None = None
    key: Pem | None = None
    crl: Pem | None = None
    terms: TlsTerms = DEFAULT_TERMS
    name: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One backend address.

    `key` is what tables hash: `ip:port`, IPv6 `[ip]:port` (the address string of Envoy). `addresses`
    holds more than one entry only when one host is known by both address families; the first that
    connects is used. `weight` is Envoy's load_balancing_weight, a positive whole number. `host` is
    the name (or address) it was found by, which is what TLS verifies.
    """

    key: str
    addresses: tuple[tuple[str, int], ...]
    weight: int = 1
    pod: str | None = None
    host: str = ""


@dataclass(frozen=True, slots=True)
class HashPolicy:
    """Where a session's key comes from; exactly one of header, cookie, source_ip (Emissary's rule).

    `name` is the header's (lower case) or the cookie's name. `ttl` in seconds: None means passive
    (the cookie must already be there), 0 a session cookie.
    """

    kind: str
    name: str = ""
    ttl: float | None = None
    path: str = ""
    field: bytes = dataclass_field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "field", self.name.encode())


@dataclass(frozen=True, slots=True)
class LoadBalancer:
    """`policy` is round_robin, least_request, ring_hash or maglev; the latter two have a `hash`."""

    policy: str = "round_robin"
    hash: HashPolicy | None = None


@dataclass(frozen=True, slots=True)
class ServiceRef:
    """A port of a Kubernetes Service whose pods are the members of a cluster.

    `namespace` "" is the one we live in. `port` is the Service port's number or name; None its only
    one, and of several `default_port` (Emissary's rule).
    """

    namespace: str
    service: str
    port: int | str | None = None
    default_port: int = 80


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """A cluster as configured. `targets` are (host, port); a host that is no IP literal is asked of DNS.

    Weights go with targets; empty means all 1. Times are in seconds. With `kube` the members come
    from the API server and there are no targets. Different `tag`s are different clusters;
    `stats_name` is what people want it called.
    """

    name: str
    service: str
    protocol: UpstreamProtocol
    targets: tuple[tuple[str, int], ...]
    weights: tuple[int, ...] = ()
    tls: UpstreamTls | None = None
    load_balancer: LoadBalancer = field(default_factory=LoadBalancer)
    connect_timeout: float = 3.0
    kube: ServiceRef | None = None
    upkeep: Upkeep = field(default_factory=Upkeep)
    tag: str = ""
    stats_name: str = ""


class Table(Protocol):
    """A consistent-hash table over the endpoints of a cluster, by index."""

    def lookup(self, hash_: int, attempt: int = 0) -> int: ...


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster as it is now: endpoints sorted by key, the table over them where a policy hashes.

    `removed` holds keys that are still in the table but no longer members; they are walked past
    until the next table is there. `inadmissible` holds keys of members that take nothing new just
    now (a pod that is not ready); they are walked past too, and keep their place in the table.
    """

    spec: ClusterSpec
    endpoints: tuple[Endpoint, ...]
    table: Table | None = None
    removed: frozenset[str] = frozenset()
    inadmissible: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return self.spec.name


# --- routes -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    """`value` None means present; `regex` says that value is an RE2 pattern for the whole value."""

    name: str
    value: str | None
    regex: bool = False


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """What a request must look like. `path_kind` is prefix, exact or regex (RE2, whole path).

    `hostname` is a DNS glob (`*`, `*.example.com`, exact), or an RE2 pattern if `hostname_regex`.
    """

    path: str = "/"
    path_kind: str = "prefix"
    case_sensitive: bool = True
    hostname: str = "*"
    hostname_regex: bool = False
    method: str | None = None
    method_regex: bool = False
    headers: tuple[HeaderMatch, ...] = ()
    query_parameters: tuple[HeaderMatch, ...] = ()
    precedence: int = 0


@dataclass(frozen=True, slots=True)
class HeaderAdd:
    """`append` False replaces what is there (Emissary's default is to append)."""

    name: str
    value: str
    append: bool = True


@dataclass(frozen=True, slots=True)
class Target:
    """One weighted member of a route: which cluster, and what is done to the request on its way.

    `name` is the Mapping's. `rewrite` replaces the matched prefix; None leaves the path alone.
    `regex_rewrite` is (RE2 pattern, substitution) and wins over `rewrite`. Times are in seconds,
    None meaning no limit. `labels` are the Mapping's. With `auto_host_rewrite` the backend is given
    the name it was found by. `upgrades` are the protocols that a connection may become; with `grpc_web`
    calls of browsers are translated. `idempotent`: its requests may be processed twice. With `redirect`
    there is no cluster. `origin` is file:line for people.
    """

    name: str
    cluster: str
    weight: float = 100.0
    rewrite: str | None = None
    regex_rewrite: tuple[str, str] | None = None
    host_rewrite: str | None = None
    timeout: float | None = None
    idle_timeout: float | None = 300.0
    add_request_headers: tuple[HeaderAdd, ...] = ()
    add_response_headers: tuple[HeaderAdd, ...] = ()
    remove_request_headers: tuple[str, ...] = ()
    remove_response_headers: tuple[str, ...] = ()
    grpc: bool = False
    labels: frozenset[tuple[str, str]] = frozenset()
    auto_host_rewrite: bool = False
    redirect: Redirect | None = None
    cors: Cors | None = None
    retry: RetryPolicy | None = None
    upgrades: tuple[str, ...] = ()
    idempotent: bool = False
    grpc_web: bool = False
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """A match and its targets; more than one target is a weighted group (canary).

    `shadow` gets copies of the requests; its responses are read by nobody.
    """

    name: str
    match: RouteMatch
    targets: tuple[Target, ...]
    shadow: Shadow | None = None


class RouteTable(Protocol):
    """Compiled routes (policy.routes)."""

    @property
    def routes(self) -> Sequence[Route]: ...

    def match(
        self, headers: Headers, fields: Mapping[bytes, bytes] | None = None
    ) -> Route | None: ...


class HostTable(Protocol):
    """Compiled Hosts (policy.hosts)."""

    def edge(self, listener: str) -> EdgePolicy: ...

    def find(
        self, headers: Headers, client: Client, fields: Mapping[bytes, bytes] | None = None
    ) -> Route | Elsewhere | None: ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Complete, versioned, immutable view of what the data path needs; swapped by one assignment.

    `hosts` None: a request finds its route in `routes`, wherever it came in.
    """

    version: int
    routes: RouteTable
    clusters: Mapping[str, Cluster]
    edge: EdgePolicy = field(default_factory=EdgePolicy)
    hosts: HostTable | None = None


class ClientCert(NamedTuple):
    """What a client showed and a CA vouches for. `subject` as RFC 2253 writes it, `names` are DNS's.

    `sha256` in hex, of its DER form; `pem` the whole.
    """

    sha256: str
    subject: str
    uris: tuple[str, ...]
    names: tuple[str, ...]
    pem: str


@dataclass(frozen=True, slots=True)
class Connection:
    """The two ends of a downstream connection, as the kernel names them. Empty for a unix socket.

    `tls_version` is what was negotiated (`TLSv1.3`), "" without TLS; `tls_name` the name of the
    `ServerTls` that it was made with, `client_cert` what the client was verified by. `listener` is the
    Listener's name, "" on a bind.
    """

    remote_ip: str = ""
    remote_port: int = 0
    local_ip: str = ""
    local_port: int = 0
    tls_version: str = ""
    tls_name: str = ""
    listener: str = ""
    client_cert: ClientCert | None = None
    peer: str = dataclass_field(init=False, compare=False, repr=False)
    client: Client = dataclass_field(init=False, compare=False, repr=False)
    hop: bytes = dataclass_field(init=False, compare=False, repr=False)
    scheme: bytes = dataclass_field(init=False, compare=False, repr=False)
    forwarded: tuple[Field, ...] = dataclass_field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """`peer` is the client's address and port in one text, `client` who it is by them alone.

        `hop` is its address, `scheme` the connection's, and `forwarded` the fields that say both.
        """
        host = f"[{self.remote_ip}]" if ":" in self.remote_ip else self.remote_ip
        object.__setattr__(self, "peer", f"{host}:{self.remote_port}" if host else "")
        client = Client(self.remote_ip, self, behind_trusted_hop=False)
        object.__setattr__(self, "client", client)
        hop, scheme = self.remote_ip.encode(), b"https" if self.tls else b"http"
        fields = ((b"x-forwarded-for", hop), (b"x-forwarded-proto", scheme))
        object.__setattr__(self, "hop", hop)
        object.__setattr__(self, "scheme", scheme)
        object.__setattr__(self, "forwarded", fields if hop else fields[1:])

    @property
    def tls(self) -> bool:
        return bool(self.tls_version)


@dataclass(frozen=True, slots=True)
class Bind:
    """Where to listen. `kind` is tcp (host, port), unix (path) or fd (number).

    `protocol`: `auto` (HTTP/2 prior knowledge and HTTP/1.1, the first bytes decide; TLS too, where
    there are certificates), `clear` (the same, never TLS), `h2c` (HTTP/2 only), `https` (TLS).
    """

    kind: str
    protocol: str = "auto"
    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1


class Client(NamedTuple):
    """Who sent a request, after forwarded addresses were believed or not.

    `ip` without port or brackets, "" when unknown. `behind_trusted_hop`: a front proxy of ours
    carries many users on one connection.
    """

    ip: str
    connection: Connection
    behind_trusted_hop: bool
