"""Envoy's configuration for a Job. What is not said here is Envoy's default."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bench.job import MAGLEV, USER, Job

Json = dict[str, Any]

API = "type.googleapis.com/envoy.extensions"
CLUSTER = "bench"


def config(job: Job, *, discovered: bool = False) -> str:
    """`discovered`: endpoints come from the file `members_path(job)`, which may be replaced."""
    return json.dumps(
        {
            "node": {"id": "bench", "cluster": "bench"},
            "static_resources": {
                "listeners": [_listener(job)],
                "clusters": [_cluster(job, discovered=discovered)],
            },
            "admin": {"address": address(job.admin)},
        },
        indent=1,
    )


def argv(binary: str, job: Job) -> list[str]:
    path = str(job.folder / "envoy.json")
    threads = ["--concurrency", str(job.workers)]
    return [binary, "-c", path, *threads, "--disable-hot-restart", "-l", "error"]


def address(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def members(ports: Sequence[int]) -> Json:
    """A ClusterLoadAssignment."""
    endpoints = [{"endpoint": {"address": address(port)}} for port in ports]
    return {"cluster_name": CLUSTER, "endpoints": [{"lb_endpoints": endpoints}]}


def members_file(ports: Sequence[int], version: int) -> str:
    """A DiscoveryResponse, as a file that Envoy watches."""
    kind = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    resource = {"@type": kind, **members(ports)}
    return json.dumps({"version_info": str(version), "resources": [resource]})


def members_path(job: Job) -> str:
    return str(job.folder / "members.json")


def _cluster(job: Job, *, discovered: bool) -> Json:
    protocol = "http_protocol_options" if job.h1 else "http2_protocol_options"
    options = f"{API}.upstreams.http.v3.HttpProtocolOptions"
    cluster: Json = {
        "name": CLUSTER,
        "connect_timeout": "3s",
        "lb_policy": job.policy.upper(),
        "typed_extension_protocol_options": {
            options.removeprefix("type.googleapis.com/"): {
                "@type": options,
                "explicit_http_config": {protocol: {}},
            }
        },
    }
    if not discovered:
        return {**cluster, "type": "STATIC", "load_assignment": members(job.backends)}
    source = {"path_config_source": {"path": members_path(job)}, "resource_api_version": "V3"}
    return {**cluster, "type": "EDS", "eds_cluster_config": {"eds_config": source}}


def _listener(job: Job) -> Json:
    chain: Json = {
        "filters": [
            {
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": _connection_manager(job),
            }
        ]
    }
    if job.tls:
        chain["transport_socket"] = _tls(str(job.tls[0]), str(job.tls[1]))
    return {"address": address(job.port), "filter_chains": [chain]}


def _connection_manager(job: Job) -> Json:
    route: Json = {
        "cluster": CLUSTER,
        "timeout": f"{job.timeout:g}s",
    }
    if job.policy == MAGLEV:
        route["hash_policy"] = [{"header": {"header_name": USER}}]
    host = {
        "name": "all",
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": route}],
    }
    router = {"@type": f"{API}.filters.http.router.v3.Router"}
    manager: Json = {
        "@type": f"{API}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {"virtual_hosts": [host]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    if job.log:
        log = {
            "@type": f"{API}.access_loggers.file.v3.FileAccessLog",
            "path": str(job.access_log),
        }
        manager["access_log"] = [{"name": "envoy.access_loggers.file", "typed_config": log}]
    return manager


def _tls(certificate: str, key: str) -> Json:
    pair = {"certificate_chain": {"filename": certificate}, "private_key": {"filename": key}}
    context = {"tls_certificates": [pair], "alpn_protocols": ["h2", "http/1.1"]}
    kind = f"{API}.transport_sockets.tls.v3.DownstreamTlsContext"
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": kind, "common_tls_context": context},
    }
