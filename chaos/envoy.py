"""Envoy's configuration for a Job: as it comes, and as an expert would set it for this very test.

What is not said here is Envoy's default, with three exceptions in its favour: circuit breakers are wide
open (1,024 requests otherwise), a connection is given up after 1 s (5 s), and downstream may have as
many streams as calls come.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from chaos.job import BACKEND_PORT, PORT, USER, Job

Json = dict[str, Any]

API = "type.googleapis.com/envoy.extensions"
WIDE = 100_000
STREAMS = 20_000  # downstream, on one connection


@dataclass(frozen=True, slots=True)
class Tuning:
    """What is set beside the defaults. `http2`: options of HTTP/2 to the backends, None: HTTP/1.1."""

    http2: Json | None = field(default_factory=dict)
    cluster: Json = field(default_factory=dict)
    route: Json = field(default_factory=dict)


DEFAULT = Tuning()
HTTP1 = Tuning(http2=None)


def most() -> Tuning:
    """Every threshold fitted by hand to a service that answers in 10 ms: four streams a connection,
    PING every 100 ms, checks every 200 ms, outlier detection, TCP_USER_TIMEOUT, and after 30 ms a second
    try elsewhere while the first still runs.
    """
    check = {"path": "/", "codec_client_type": "HTTP2"}
    user_timeout = {"level": 6, "name": 18, "int_value": 1500, "state": "STATE_PREBIND"}
    previous = f"{API}.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    return Tuning(
        http2={
            "max_concurrent_streams": 4,
            "connection_keepalive": {"interval": "0.1s", "timeout": "0.05s"},
        },
        cluster={
            "connect_timeout": "0.1s",
            "outlier_detection": {
                "consecutive_5xx": 3,
                "consecutive_gateway_failure": 3,
                "enforcing_consecutive_gateway_failure": 100,
                "split_external_local_origin_errors": True,
                "consecutive_local_origin_failure": 3,
                "interval": "0.5s",
                "base_ejection_time": "2s",
                "max_ejection_time": "4s",
                "max_ejection_percent": 50,
            },
            "upstream_bind_config": {"socket_options": [user_timeout]},
            "health_checks": [
                {
                    "timeout": "0.1s",
                    "interval": "0.2s",
                    "unhealthy_threshold": 2,
                    "healthy_threshold": 1,
                    "http_health_check": check,
                }
            ],
            "close_connections_on_host_health_failure": True,
        },
        route={
            "retry_policy": {
                "retry_on": "connect-failure,refused-stream,reset,gateway-error",
                "num_retries": 3,
                "per_try_timeout": "0.03s",
                "retry_host_predicate": [
                    {
                        "name": "envoy.retry_host_predicates.previous_hosts",
                        "typed_config": {"@type": previous},
                    }
                ],
                "host_selection_retry_max_attempts": 5,
            },
            "hedge_policy": {"hedge_on_per_try_timeout": True},
            "timeout": "5s",
        },
    )


def config(job: Job, tuning: Tuning) -> str:
    return json.dumps(
        {
            "static_resources": {
                "listeners": [_listener(job, tuning)],
                "clusters": [_cluster(job, tuning)],
            },
            "admin": {"address": _address("127.0.0.1", 9901)},
        },
        indent=1,
    )


def argv(binary: str, job: Job, tuning: Tuning) -> list[str]:
    path = job.folder / "envoy.json"
    path.write_text(config(job, tuning))
    return [binary, "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]


def _address(host: str, port: int) -> Json:
    return {"socket_address": {"address": host, "port_value": port}}


def _cluster(job: Job, tuning: Tuning) -> Json:
    options = f"{API}.upstreams.http.v3.HttpProtocolOptions"
    h2 = tuning.http2 is not None
    protocol = {"http2_protocol_options": tuning.http2} if h2 else {"http_protocol_options": {}}
    limits = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    endpoints = [{"endpoint": {"address": _address(one, BACKEND_PORT)}} for one in job.places]
    cluster: Json = {
        "name": "lab",
        "type": "STRICT_DNS" if job.setup.named else "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "MAGLEV" if job.setup.sticky else "ROUND_ROBIN",
        "typed_extension_protocol_options": {
            options.removeprefix("type.googleapis.com/"): {
                "@type": options,
                "explicit_http_config": protocol,
            }
        },
        "circuit_breakers": {"thresholds": [dict.fromkeys(limits, WIDE)]},
        "load_assignment": {"cluster_name": "lab", "endpoints": [{"lb_endpoints": endpoints}]},
        **tuning.cluster,
    }
    if job.setup.tls:
        tls = f"{API}.transport_sockets.tls.v3.UpstreamTlsContext"
        alpn = {"alpn_protocols": ["h2" if h2 else "http/1.1"]}
        cluster["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {"@type": tls, "common_tls_context": alpn},
        }
    return cluster


def _listener(job: Job, tuning: Tuning) -> Json:
    route: Json = {"cluster": "lab", "timeout": f"{job.timeout}s"}
    if job.setup.sticky:
        route["hash_policy"] = [{"header": {"header_name": USER}}]
    routes = [{"match": {"prefix": "/"}, "route": route | tuning.route}]
    router = {"@type": f"{API}.filters.http.router.v3.Router"}
    manager = {
        "@type": f"{API}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "lab",
        "codec_type": "HTTP2",
        "http2_protocol_options": {"max_concurrent_streams": STREAMS},
        "route_config": {"virtual_hosts": [{"name": "lab", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {"address": _address("127.0.0.1", PORT), "filter_chains": [{"filters": filters}]}
