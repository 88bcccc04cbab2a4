"""What a house is built of, and the heads that are said in it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from stickyproxy.codec.api import CodecLimits
from stickyproxy.model import (
    Cluster,
    ClusterSpec,
    Endpoint,
    HashPolicy,
    HeaderAdd,
    Headers,
    LoadBalancer,
    Route,
    RouteMatch,
    Snapshot,
    Target,
    UpstreamProtocol,
)
from stickyproxy.policy.maglev import MaglevTable
from stickyproxy.policy.routes import Routes
from stickyproxy.proxy.admission import Admission
from stickyproxy.proxy.server import Patience
from stickyproxy.rules import Cors, Redirect, RetryPolicy, Shadow, Upkeep
from stickyproxy.wire.bounds import DEFAULT, Allowance
from stickyproxy.wire.conduct import Conduct
from support.wires import CAPACITY

POST: Headers = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":authority", b"svc.example"),
    (b":path", b"/things"),
]
GET: Headers = [(b":method", b"GET"), *POST[1:]]
GRPC: Headers = [
    *POST[:3],
    (b":path", b"/pkg.Service/Method"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
]
OK: Headers = [(b":status", b"200")]
GRPC_OK: Headers = [(b":status", b"200"), (b"content-type", b"application/grpc")]
GRPC_END: Headers = [(b"grpc-status", b"0")]
CLUSTER = "things"
SHADOW = "shadow"
"""The cluster that gets copies, of one endpoint."""
SHADOW_KEY = "10.0.9.1:80"


def message(size: int) -> bytes:
    """One gRPC message of `size` bytes, prefix included."""
    return b"\0" + (size - 5).to_bytes(4, "big") + b"m" * (size - 5)


@dataclass
class Plan:
    """What a house is built of. Times in seconds, None meaning no limit.

    `shadow` is the percent of requests that are copied. `announced`: clients begin with a PROXY header.
    """

    endpoints: int = 1
    upstream: str = "h2c"
    engine: str = "reference"
    timeout: float | None = None
    idle_timeout: float | None = None
    connect_timeout: float = 3.0
    sticky: bool = False
    limits: CodecLimits = field(default_factory=CodecLimits)
    backend_limits: CodecLimits = field(default_factory=CodecLimits)
    wire: int = CAPACITY
    shadow: float | None = None
    cors: Cors | None = None
    redirect: Redirect | None = None
    upgrades: tuple[str, ...] = ()
    grpc_web: bool = False
    upkeep: Upkeep = field(default_factory=Upkeep)
    body_timeout: float = 0.0
    conduct: Conduct | None = None
    admission: Admission | None = None
    patience: Patience | None = None
    announced: bool = False
    allowed: Allowance = DEFAULT
    retry: RetryPolicy | None = None
    idempotent: bool = False
    added: tuple[HeaderAdd, ...] = ()

    @property
    def cluster(self) -> Cluster:
        endpoints = tuple(
            Endpoint(f"10.0.0.{n}:80", ((f"10.0.0.{n}", 80),)) for n in range(1, self.endpoints + 1)
        )
        balancer = LoadBalancer()
        table = None
        if self.sticky:
            balancer = LoadBalancer("maglev", HashPolicy("header", "x-user"))
            table = MaglevTable.build([(e.key, 1.0) for e in endpoints], 251)
        spec = ClusterSpec(
            CLUSTER,
            "svc",
            UpstreamProtocol(self.upstream),
            (("svc", 80),),
            load_balancer=balancer,
            connect_timeout=self.connect_timeout,
            upkeep=self.upkeep,
        )
        return Cluster(spec, endpoints, table)

    @property
    def snapshot(self) -> Snapshot:
        target = Target(
            "all",
            "" if self.redirect is not None else CLUSTER,
            timeout=self.timeout,
            idle_timeout=self.idle_timeout,
            cors=self.cors,
            redirect=self.redirect,
            upgrades=self.upgrades,
            retry=self.retry,
            idempotent=self.idempotent,
            grpc_web=self.grpc_web,
            add_response_headers=self.added,
        )
        shadow = None if self.shadow is None else Shadow("copies", SHADOW, self.shadow)
        routes = Routes([Route("all", RouteMatch("/"), (target,), shadow)])
        clusters = {cluster.name: cluster for cluster in self.clusters}
        return Snapshot(1, routes, clusters)

    @property
    def clusters(self) -> list[Cluster]:
        cluster = self.cluster
        if self.shadow is None:
            return [cluster]
        spec = replace(cluster.spec, name=SHADOW, load_balancer=LoadBalancer())
        return [cluster, Cluster(spec, (Endpoint(SHADOW_KEY, (("10.0.9.1", 80),)),))]
