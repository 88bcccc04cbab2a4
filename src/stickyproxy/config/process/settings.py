"""What concerns the process: immutable, and made anew on each reload."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from stickyproxy.model import Bind
from stickyproxy.rules import OutlierDetection, SlowStart

IMPLICIT_PRECEDENCE = -(2**31)
"""Of routes that nobody wrote (`--backend`, reflection and health): below every Mapping's."""

DEFAULT_BIND = Bind(kind="tcp", host="0.0.0.0", port=8080)  # noqa: S104 (an ingress is for all)
DEFAULT_ADMIN = Bind(kind="tcp", host="127.0.0.1", port=9901)


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """What concerns the process and not a single request. Times in seconds, sizes in bytes.

    `drain_timeout` includes `drain_delay`. A `max_connection_age` of 0 lets connections of clients
    live for ever, a `max_connection_age_grace` of 0 what runs on them then. `dns_refresh` is how
    often a name is asked again.
    `max_header_list` counts name + value + 32 for each field (RFC 9113 §6.5.2). `backend_ca` and
    `backend_insecure` and `backend_proxy_protocol` are already contained in the clusters, `idempotent` in
    the route of `--backend`; they stand here to be shown.
    `workers` 0 is as many as cores. Of the limits on clients (`max_connections` to
    `work_budget`) 0 is none. `work_budget` is milliseconds of CPU at once, `work_refill` those a second.
    `max_memory` is of each worker, in bytes: 0 is none, -1 as much
    as `control.pressure` finds right.
    `preserve_external_request_id` None leaves it to the Module.
    `kube_namespace` is `all`, or "" for the one we live in (the kubeconfig context's).
    `outlier_detection` is for clusters without their own. Below `panic_threshold` percent of a cluster
    that are neither ejected nor failing their checks all are admitted; 0 is never.
    `enable_endpoints` is what AMBASSADOR_ENABLE_ENDPOINTS says, None when it says nothing.
    """

    binds: tuple[Bind, ...] = (DEFAULT_BIND,)
    admin: Bind | None = DEFAULT_ADMIN
    health: Bind | None = None
    workers: int = 1
    codec: str = "fast"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    drain_delay: float = 5.0
    drain_timeout: float = 25.0
    max_connection_age: float = 0.0
    max_connection_age_grace: float = 0.0
    log_format: str = "json"
    access_log: bool = True
    backend_ca: Path | None = None
    backend_insecure: bool = False
    backend_proxy_protocol: str = ""
    idempotent: bool = False
    dns_refresh: float = 5.0
    max_concurrent_streams: int = 1024
    max_header_list: int = 60 * 1024
    max_header_count: int = 100
    max_connections: int = 50_000
    max_connections_per_address: int = 4096
    max_requests_per_connection: int = 1_000_000
    request_headers_timeout: float = 10.0
    request_body_timeout: float = 60.0
    proxy_header_timeout: float = 5.0
    tls_handshake_timeout: float = 10.0
    first_byte_timeout: float = 60.0
    send_timeout: float = 60.0
    max_unsent_output: int = 262_144
    work_budget: int = 100
    work_refill: int = 50
    max_memory: int = -1
    proxy_protocol_from: tuple[str, ...] = ()
    preserve_external_request_id: bool | None = None
    kubernetes: bool = False
    kubeconfig: Path | None = None
    kube_context: str | None = None
    kube_namespace: str = ""
    ambassador_id: str = "default"
    kube_secrets: bool = True
    enable_endpoints: bool | None = None
    outlier_detection: OutlierDetection = field(default_factory=OutlierDetection)
    slow_start: SlowStart = field(default_factory=SlowStart)
    panic_threshold: int = 30
    connection_health: bool = True
    spare_connections: int = 1
