"""What the admin port looks at, made by hand: one route, one cluster, and secrets to look for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stickyproxy.config.cluster.status import Status
from stickyproxy.config.load import Settings
from stickyproxy.config.process.settings import ProcessSettings
from stickyproxy.control.discovery.kube_reflector import ReflectorState
from stickyproxy.edge import XFP, Front, HostRule, ListenerSpec, Pem, ServerTls
from stickyproxy.health.changes import HEALTHY, Seen
from stickyproxy.metrics import Metrics
from stickyproxy.model import (
    Cluster,
    ClusterSpec,
    Endpoint,
    HashPolicy,
    HeaderAdd,
    HeaderMatch,
    Headers,
    LoadBalancer,
    Route,
    RouteMatch,
    Snapshot,
    Target,
    UpstreamProtocol,
)

SECRET = "s3cr3t-value"


@dataclasses.dataclass(frozen=True)
class Routes:
    routes: Sequence[Route]

    def match(self, headers: Headers, _: Mapping[bytes, bytes] | None = None) -> Route | None:
        return self.routes[0] if headers else None


class Table:
    def lookup(self, hash_: int, attempt: int = 0) -> int:
        return (hash_ + attempt) % 2


ROUTE = Route(
    name="greeter",
    match=RouteMatch(
        path="/a.B/",
        headers=(HeaderMatch("authorization", SECRET), HeaderMatch("x-team", "blue")),
        query_parameters=(HeaderMatch("api_key", SECRET),),
    ),
    targets=(
        Target(
            name="greeter",
            cluster="greeters",
            idle_timeout=float("inf"),
            add_request_headers=(HeaderAdd("x-upstream-auth", SECRET),),
            add_response_headers=(HeaderAdd("x-served-by", SECRET),),
        ),
    ),
)
CLUSTER = Cluster(
    spec=ClusterSpec(
        name="greeters",
        service="greeter.default",
        protocol=UpstreamProtocol.H2C,
        targets=(("greeter.default", 80),),
        load_balancer=LoadBalancer("maglev", HashPolicy("cookie", "sticky-cookie", ttl=60)),
    ),
    endpoints=(
        Endpoint("10.0.0.1:80", (("10.0.0.1", 80),), pod="greeter-0"),
        Endpoint("10.0.0.2:80", (("10.0.0.2", 80),)),
        Endpoint("[::1]:80", (("::1", 80),), weight=3),
    ),
    table=Table(),
    removed=frozenset({"10.0.0.2:80"}),
)
HOST = HostRule("Host shop.prod", "*.example", "Route", frozenset({("team", "shop")}))
FRONT = Front(
    tls=(
        ServerTls(
            name="Host shop.prod",
            globs=("*.example",),
            chain=Pem(SECRET.encode()),
            key=Pem(SECRET.encode()),
            client_ca=Pem(SECRET.encode()),
        ),
    ),
    hosts=(HOST, HostRule("Host other.prod", "other.test")),
    listeners=(ListenerSpec("Listener https.prod", 8443, "auto", XFP, l7_depth=1, hosts=(HOST,)),),
)


class View:
    """A worker as the admin port sees it, with its answers settable."""

    def __init__(self) -> None:
        self.is_ready = True
        self.is_draining = False
        self.drains = 0
        self.failed: list[bool] = []
        self.counted = Metrics()
        self.problems: dict[str, str] = {}
        self.watched: dict[str, ReflectorState] = {}
        self.statuses: list[Status] = []
        self.panicking: set[str] = set()
        self.crew: list[Mapping[str, Any]] = []
        self.current: Snapshot | None = Snapshot(7, Routes([ROUTE]), {"greeters": CLUSTER})

    def ready(self) -> bool:
        return self.is_ready

    def draining(self) -> bool:
        return self.is_draining

    def uptime(self) -> float:
        return 12.7

    def snapshot(self) -> Snapshot | None:
        return self.current

    def settings(self) -> Any:
        return {
            "tls_cert": "/tls/tls.crt",
            "tls_key": Path("/tls/tls.key"),
            "admin_token": SECRET,
            "token_file": "/run/token",
            "backends": [f"https://user:{SECRET}@backend.example"],
            "workers": 1,
            "mappings": [
                {
                    "add_request_headers": {"X-Key": {"value": SECRET, "append": False}},
                    "headers": {"cookie": SECRET, "x-api-key": SECRET, "x-team": "blue"},
                    "query_parameters": [{"name": "access_token", "value": SECRET}],
                    "load_balancer": {"cookie": {"name": "sticky-cookie", "ttl": "60s"}},
                }
            ],
        }

    def loaded(self) -> Settings:
        return Settings(ProcessSettings(), (ROUTE,), (CLUSTER.spec,))

    def front(self) -> Front:
        return FRONT

    def listeners(self) -> Sequence[tuple[str, str]]:
        return [("auto", "127.0.0.1:41234")]

    def endpoint_health(self, cluster: str, key: str) -> Seen:
        if (cluster, key) != ("greeters", "[::1]:80"):
            return HEALTHY
        return Seen("/failed_outlier_check", "ejected: consecutive_5xx")

    def workers(self) -> Sequence[Mapping[str, Any]]:
        return self.crew

    def panics(self, cluster: str) -> bool:
        return cluster in self.panicking

    def problem(self, cluster: str) -> str:
        return self.problems.get(cluster, "")

    def kubernetes(self) -> Mapping[str, ReflectorState]:
        return self.watched

    def objects(self) -> Sequence[Status]:
        return self.statuses

    def metrics(self) -> Metrics:
        return self.counted

    def drain(self) -> None:
        self.drains += 1

    def fail_health(self, failed: bool) -> None:
        self.failed.append(failed)

    def done(self) -> tuple[int, list[bool]]:
        """What was asked of it: how often to drain, and to fail (true) or not."""
        return self.drains, self.failed
