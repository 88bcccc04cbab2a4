"""The fields of our own document, `kind: StickyProxy`; each is a flag and a variable too."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

Texts = str | list[str]
Number = int | float

LISTS = frozenset(("bind", "backend", "cors-origin", "proxy-protocol-from", "service"))
"""Options that may be given several times, or as a list."""


class ProcessSpec(Struct, frozen=True, rename=lambda name: name.replace("_", "-")):
    """`kind: StickyProxy`: the process. The names are those of the flags.

    `${VAR}` and `${VAR:-default}` stand for environment variables, in this document only.
    """

    bind: Annotated[
        Texts | UnsetType,
        Meta(
            description="Where to listen: `ADDR` (HTTP/2 prior knowledge and HTTP/1.1), "
            "`h2c://ADDR` (HTTP/2 only), `https://ADDR`, `unix:PATH`, `fd://N`. "
            "Default `0.0.0.0:8080`, or what Listeners say.",
            examples=["[0.0.0.0:8080, 'unix:/run/proxy.sock']"],
        ),
    ] = UNSET
    backend: Annotated[
        Texts | UnsetType,
        Meta(
            description="Backends that take what no Mapping matches: `[scheme://]HOST:PORT`; "
            "without a scheme `h2c://`.",
            examples=["[127.0.0.1:50051, 127.0.0.1:50052]"],
        ),
    ] = UNSET
    service: Annotated[
        Texts | UnsetType,
        Meta(
            description="Where a Mapping's service lives: `NAME=HOST:PORT[,HOST:PORT]`.",
            examples=["qotm=127.0.0.1:8001,127.0.0.1:8002"],
        ),
    ] = UNSET
    policy: Annotated[
        str | UnsetType,
        Meta(
            description="Balancer of the backends: `round_robin`, `least_request`, `ring_hash`, "
            "`maglev`. Default `round_robin`, with `sticky` `maglev`."
        ),
    ] = UNSET
    sticky: Annotated[
        str | UnsetType,
        Meta(
            description="Key of a session on the backends: `header:NAME`, `cookie:NAME[:TTL]`, "
            "`source-ip`."
        ),
    ] = UNSET
    allow_upgrade: Annotated[
        str | UnsetType,
        Meta(description="Protocol that a connection to the backends may become: `websocket`."),
    ] = UNSET
    grpc_web: Annotated[
        bool | UnsetType,
        Meta(
            description="Browsers' gRPC-Web becomes gRPC for HTTP/2 backends: `on` or `off` (it passes "
            "as it is). Default on."
        ),
    ] = UNSET
    cors_origin: Annotated[
        Texts | UnsetType,
        Meta(
            description="Origins whose pages may call the backends and read all of their answers, `*` is "
            "any. With `sticky` by cookie browsers send it, but not with `*`. Default: none.",
            examples=["[https://app.example.com]"],
        ),
    ] = UNSET
    admin: Annotated[
        str | bool | UnsetType,
        Meta(description="Address of the admin port, or `off`. Default `127.0.0.1:9901`."),
    ] = UNSET
    health: Annotated[
        str | UnsetType,
        Meta(description="Address for the read-only part of it, where a kubelet reaches it."),
    ] = UNSET
    workers: Annotated[
        int | str | UnsetType,
        Meta(
            description="Processes that serve. `auto`: as many as cores, or as a container's CPU "
            "limit has. Default 1."
        ),
    ] = UNSET
    codec: Annotated[
        str | UnsetType, Meta(description="HTTP/2 engine: `fast` (default) or `reference`.")
    ] = UNSET
    tls_cert: Annotated[
        str | UnsetType,
        Meta(description="Certificate chain (PEM); every bind without a scheme speaks TLS."),
    ] = UNSET
    tls_key: Annotated[str | UnsetType, Meta(description="Its private key (PEM).")] = UNSET
    backend_ca: Annotated[
        str | UnsetType,
        Meta(description="Authorities (PEM) that TLS backends are verified against."),
    ] = UNSET
    backend_insecure: Annotated[
        bool | UnsetType, Meta(description="Do not verify TLS backends.")
    ] = UNSET
    backend_proxy_protocol: Annotated[
        str | UnsetType,
        Meta(
            description="`v2`: each connection to the backends begins with a PROXY header that names the "
            "client, as a Mapping's `proxy_protocol` has it. Default: none."
        ),
    ] = UNSET
    idempotent: Annotated[
        bool | UnsetType,
        Meta(
            description="The backends may process a request twice, as a Mapping's `idempotent` says "
            "it of a service."
        ),
    ] = UNSET
    drain_delay: Annotated[
        Number | str | UnsetType,
        Meta(description="Seconds to go on accepting after SIGTERM. Default 5."),
    ] = UNSET
    drain_timeout: Annotated[
        Number | str | UnsetType,
        Meta(description="Seconds from SIGTERM to the end, the delay included. Default 25."),
    ] = UNSET
    max_connection_age: Annotated[
        Number | str | bool | UnsetType,
        Meta(
            description="Seconds after which a client's connection is sent away by GOAWAY, give or "
            "take 10 %; requests under way go on. HTTP/1.1 closes with its next response. "
            "Default `off`."
        ),
    ] = UNSET
    max_connection_age_grace: Annotated[
        Number | str | bool | UnsetType,
        Meta(
            description="Seconds after that until it is closed, whatever is under way. "
            "Default `off`: never."
        ),
    ] = UNSET
    log_format: Annotated[
        str | UnsetType, Meta(description="`json` or `text`. Default `json`.")
    ] = UNSET
    access_log: Annotated[
        bool | UnsetType, Meta(description="A line for each stream: `on` or `off`. Default on.")
    ] = UNSET
    dns_refresh: Annotated[
        Number | str | UnsetType, Meta(description="Seconds between questions to DNS. Default 5.")
    ] = UNSET
    outlier_detection: Annotated[
        str | bool | UnsetType,
        Meta(
            description="Which endpoints are left alone for how their calls end: `off`, or what "
            "differs from the default ([endpoints](endpoints.md)).",
            examples=["consecutive_gateway_failure=3, base_ejection_time=10s"],
        ),
    ] = UNSET
    slow_start: Annotated[
        Number | str | bool | UnsetType,
        Meta(
            description="How long an endpoint that joined or returned takes to come to its share "
            "under `round_robin` and `least_request`: `off`, `30s`, or `window=30s, aggression=2, "
            "min_weight_percent=10`. Default 10s."
        ),
    ] = UNSET
    panic_threshold: Annotated[
        int | UnsetType,
        Meta(
            description="Percent of a cluster's endpoints: with fewer of them neither ejected nor "
            "failing their checks, all are used. 0: never. Default 30."
        ),
    ] = UNSET
    connection_health: Annotated[
        bool | UnsetType,
        Meta(
            description="Look after connections to endpoints: suspect, ask, leave and end the bad ones "
            "([endpoints](endpoints.md#connections)), `on` or `off`. Default on."
        ),
    ] = UNSET
    spare_connections: Annotated[
        int | UnsetType,
        Meta(
            description="HTTP/2 connections that an endpoint with traffic has beyond those it needs, "
            "for the moment in which one goes bad. Default 1."
        ),
    ] = UNSET
    max_concurrent_streams: Annotated[
        int | UnsetType, Meta(description="Streams of one connection. Default 1024.")
    ] = UNSET
    max_header_list: Annotated[
        int | UnsetType, Meta(description="Bytes of a header list. Default 61440.")
    ] = UNSET
    max_header_count: Annotated[
        int | UnsetType, Meta(description="Fields of a header list. Default 100.")
    ] = UNSET
    max_connections: Annotated[
        int | str | bool | UnsetType,
        Meta(
            description="Connections of clients in all; one more is closed at once. `off`: any "
            "number. Default 50000 (Envoy's edge guide)."
        ),
    ] = UNSET
    max_connections_per_address: Annotated[
        int | str | bool | UnsetType,
        Meta(
            description="Of one client address, unless it is that of a trusted hop before us "
            "(`xff_num_trusted_hops`). `off`: any number. Default 4096: more is an attack, or a "
            "balancer that was not declared."
        ),
    ] = UNSET
    max_requests_per_connection: Annotated[
        int | str | bool | UnsetType,
        Meta(
            description="Requests after which a client's connection is sent away as at its age. "
            "`off`: any number. Default 1000000: some time what a connection holds on to is let go."
        ),
    ] = UNSET
    request_headers_timeout: Annotated[
        Number | str | bool | UnsetType,
        Meta(
            description="Seconds from the first byte of a request's head to its last, to a second or "
            "two. `off`: no limit. Default 10 (Envoy's edge guide)."
        ),
    ] = UNSET
    request_body_timeout: Annotated[
        Number | str | bool | UnsetType,
        Meta(
            description="Seconds between two parts of a request's body that we wait for, until the "
            "answer begins; then 408. Not for gRPC, Connect and WebSockets, which may rest "
            "(`idle_timeout_ms` holds them). `off`: no limit. Default 60 (nginx's)."
        ),
    ] = UNSET
    proxy_header_timeout: Annotated[
        Number | str | bool | UnsetType,
        Meta(
            description="Seconds for a PROXY header, where one must come first. `off`: no limit. Default "
            "5: a balancer sends it with its first segment, and may have to send that again."
        ),
    ] = UNSET
    tls_handshake_timeout: Annotated[
        Number | str | bool | UnsetType,
        Meta(
            description="Seconds for a client's TLS handshake. `off`: no limit. Default 10 (Envoy's edge "
            "guide)."
        ),
    ] = UNSET
    first_byte_timeout: Annotated[
        Number | str | bool | UnsetType,
        Meta(
            description="Seconds that a new connection may be silent, to a second or two. `off`: no "
            "limit. Default 60: browsers and balancers open connections ahead of need."
        ),
    ] = UNSET
    send_timeout: Annotated[
        Number | str | bool | UnsetType,
        Meta(
            description="Seconds for one send of up to some 100 KB to a peer of either side that hardly "
            "reads; then its connection is closed. `off`: no limit. Default 60 (nginx's)."
        ),
    ] = UNSET
    max_unsent_output: Annotated[
        int | str | bool | UnsetType,
        Meta(
            description="Bytes that a peer of either side makes us write and does not read (answers to "
            "PING and SETTINGS, resets) above which nothing more is read of it; from 262144, as bodies "
            "may take that much. `off`: any number. Default 262144: 10,000 frames that nobody needed."
        ),
    ] = UNSET
    work_budget: Annotated[
        int | str | bool | UnsetType,
        Meta(
            description="Milliseconds of CPU at once that a connection of either side may cost by what "
            "asks for nothing: resets, PINGs, SETTINGS, empty frames. Beyond it is GOAWAY 11. `off`: no "
            "limit. Default 100: 1,500 cancelled requests or 10,000 PINGs."
        ),
    ] = UNSET
    work_refill: Annotated[
        int | UnsetType,
        Meta(
            description="Milliseconds of CPU a second by which that budget is filled again, 0 to 1000. "
            "Default 50: 5 % of a core, twice what Envoy lets through before it calls it a rapid reset."
        ),
    ] = UNSET
    max_memory: Annotated[
        int | str | bool | UnsetType,
        Meta(
            description="Resident memory of a worker above which it takes no new request (503); 10 % "
            "above it sends connections away, 20 % above it closes the worst. Bytes, or with `Mi`, "
            "`Gi`; `off`: no mark. Default `auto`: 80 % of the container's limit or the machine, "
            "divided among the workers.",
            examples=["512Mi"],
        ),
    ] = UNSET
    proxy_protocol_from: Annotated[
        Texts | UnsetType,
        Meta(
            description="Addresses and ranges of balancers that begin every connection with a PROXY "
            "header (version 1 or 2; HAProxy, cloud load balancers). Who connects from there must, and "
            "is believed; nobody else is. `unix`: unix sockets. Default: none.",
            examples=["[10.0.0.0/24, 192.0.2.7]"],
        ),
    ] = UNSET
    preserve_external_request_id: Annotated[
        bool | UnsetType,
        Meta(
            description="A client's `x-request-id` goes on whoever it is: `on` or `off` (only that of a "
            "trusted hop does, any other is replaced). For a proxy beside its clients, whose word is "
            "good. Default: what the Module says, else off."
        ),
    ] = UNSET
    kubernetes: Annotated[
        bool | UnsetType,
        Meta(
            description="Take pods, and Ambassador's resources, from the cluster's API server: `on` "
            "or `off`. Default off; the manifests that we ship turn it on."
        ),
    ] = UNSET
    kubeconfig: Annotated[
        str | UnsetType,
        Meta(
            description="How to reach it from outside; in a pod it is not needed. Default: the "
            "pod's service account, else `$KUBECONFIG` or `~/.kube/config`."
        ),
    ] = UNSET
    kube_context: Annotated[
        str | UnsetType,
        Meta(description="Context of the kubeconfig. Default: its current one."),
    ] = UNSET
    kube_namespace: Annotated[
        str | UnsetType,
        Meta(
            description="Namespace that resources are read from, or `all`. Default: the pod's own "
            "(the context's); `AMBASSADOR_NAMESPACE` with `AMBASSADOR_SINGLE_NAMESPACE`.",
            examples=["prod"],
        ),
    ] = UNSET
    ambassador_id: Annotated[
        str | UnsetType,
        Meta(
            description="Of resources with an `ambassador_id` only those with this one count. "
            "Default `AMBASSADOR_ID`, else `default`."
        ),
    ] = UNSET
    kube_secrets: Annotated[
        bool | UnsetType,
        Meta(
            description="Read Secrets for TLS: `on` or `off`. Default on; `AMBASSADOR_NO_SECRETS` "
            "turns it off."
        ),
    ] = UNSET
