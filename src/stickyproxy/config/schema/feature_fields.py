"""The fields of Mapping and Module for what goes beyond routing; `config.schema.mapping` has the rest."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from stickyproxy.config.schema.features import (
    CircuitBreakerSpec,
    ClientCertDetailsSpec,
    CorsSpec,
    Flag,
    HealthCheckSpec,
    IpRangeSpec,
    KeepaliveSpec,
    RegexRedirectSpec,
    RetryPolicySpec,
    Text,
)

Milliseconds = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Duration = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class MappingFeatures(Struct, frozen=True, kw_only=True):
    """Of a Mapping."""

    host_redirect: Annotated[
        Flag,
        Meta(
            description="True: requests are answered by a redirect to the host `service` (which "
            "needs not be reachable; a scheme before it is the redirect's)."
        ),
    ] = None
    path_redirect: Annotated[
        Text | None, Meta(description="Path of the redirect. The query is kept, unless it has one.")
    ] = None
    prefix_redirect: Annotated[
        str | None, Meta(description="Replaces the matched prefix in the redirect's path.")
    ] = None
    regex_redirect: Annotated[
        RegexRedirectSpec | None,
        Meta(description="Makes the redirect's path; `path_redirect` wins, then the prefix."),
    ] = None
    redirect_response_code: Annotated[
        int | None, Meta(description="301, 302, 303, 307 or 308. Default 301.", examples=["308"])
    ] = None
    allow_upgrade: Annotated[
        str | list[Text] | None,
        Meta(
            description="Protocols that a connection may become: `websocket`, from HTTP/1.1 and HTTP/2 "
            "to either. `timeout_ms` does not apply to it, `idle_timeout_ms` does. Any other is "
            "ignored, with a warning.",
            examples=["[websocket]"],
        ),
    ] = None
    use_websocket: Annotated[
        Flag, Meta(description="The older form of `allow_upgrade: [websocket]`.")
    ] = None
    auto_host_rewrite: Annotated[
        Flag,
        Meta(
            description="The service is given the name that its endpoint was found by as the "
            "authority; that of a pod is `service.namespace`."
        ),
    ] = None
    cors: Annotated[
        CorsSpec | None,
        Meta(
            description="Default: the Module's, which is replaced whole. A Mapping with `method` "
            "sees a preflight only if that is OPTIONS."
        ),
    ] = None
    shadow: Annotated[
        Flag,
        Meta(
            description="True: the service gets copies of the requests of the Mappings with the "
            "same match, `weight` percent of them. Its answers are thrown away; a copy that lags "
            "1 MiB behind, or cannot be sent, is dropped. The copy's host has `-shadow` added."
        ),
    ] = None
    add_linkerd_headers: Annotated[
        Flag,
        Meta(description="Add `l5d-dst-override: service:port`. Default: the Module's, else no."),
    ] = None
    retry_policy: Annotated[RetryPolicySpec | None, Meta(description="Default: the Module's.")] = (
        None
    )
    proxy_protocol: Annotated[
        Literal["v2"] | None,
        Meta(
            description="`v2` (ours, not Ambassador's): each connection to the service begins with a PROXY "
            "header of that version, before TLS, that names the client. So each client has "
            "connections of its own there; they are closed when they rested for a minute."
        ),
    ] = None
    idempotent: Annotated[
        Flag,
        Meta(
            description="True (ours, not Ambassador's): the service may process a request twice, so "
            "one whose connection died before its answer is sent again, and one whose connection is "
            "in doubt is sent on another one as well, the first answer being taken. Default false, "
            "for GET too."
        ),
    ] = None
    circuit_breakers: Annotated[
        list[CircuitBreakerSpec] | None,
        Meta(
            description="How much of the service may be under way at once. Default: the Module's."
        ),
    ] = None
    health_checks: Annotated[
        list[HealthCheckSpec] | None,
        Meta(
            description="Active checks. An endpoint that fails one is walked past until it passes."
        ),
    ] = None
    outlier_detection: Annotated[
        str | bool | None,
        Meta(
            description="`off`, or what differs from the default, in Envoy's names. Default: the "
            "Module's, else that of `--outlier-detection`.",
            examples=["consecutive_gateway_failure=3, base_ejection_time=10s"],
        ),
    ] = None
    keepalive: Annotated[KeepaliveSpec | None, Meta(description="Default: the Module's.")] = None
    cluster_idle_timeout_ms: Annotated[
        Milliseconds | None,
        Meta(
            description="A connection to the service without streams is closed. Default (and 0): "
            "the Module's, else one hour."
        ),
    ] = None
    cluster_max_connection_lifetime_ms: Annotated[
        Milliseconds | None,
        Meta(
            description="A connection to the service takes no new streams after that. Default "
            "(and 0): the Module's, else none."
        ),
    ] = None
    enable_ipv4: Annotated[
        Flag,
        Meta(
            description="False: IPv4 addresses of the service's name are not used. Default: the "
            "Module's, else both families (IPv4 where several addresses of both are there)."
        ),
    ] = None
    enable_ipv6: Annotated[Flag, Meta(description="The same for IPv6.")] = None
    cluster_tag: Annotated[
        Text | None,
        Meta(description="Mappings with different tags share no connections and no counters."),
    ] = None
    stats_name: Annotated[
        Text | None, Meta(description="What the service is called in metrics and logs.")
    ] = None
    labels: Annotated[
        Any, Meta(description="For rate limiting, which is not there: no effect, no warning.")
    ] = None
    docs: Annotated[Any, Meta(description="For a portal: no effect, no warning.")] = None
    bypass_auth: Annotated[
        Any, Meta(description="There is no AuthService to be bypassed: no effect, no warning.")
    ] = None
    auth_context_extensions: Annotated[Any, Meta(description="As `bypass_auth`.")] = None
    bypass_error_response_overrides: Annotated[
        Any, Meta(description="There are none: no effect, no warning.")
    ] = None


class ModuleFeatures(Struct, frozen=True, kw_only=True):
    """Of the Module."""

    cors: Annotated[CorsSpec | None, Meta(description="For Mappings without their own.")] = None
    enable_grpc_web: Annotated[
        Flag,
        Meta(
            description="Browsers' gRPC-Web (`application/grpc-web`, `-text`) becomes gRPC for Mappings "
            "with `grpc: true`. Default true, unlike Ambassador; false: it passes as it is."
        ),
    ] = None
    retry_policy: Annotated[
        RetryPolicySpec | None,
        Meta(description="For Mappings without their own."),
    ] = None
    circuit_breakers: Annotated[
        list[CircuitBreakerSpec] | None,
        Meta(description="For Mappings without their own."),
    ] = None
    outlier_detection: Annotated[
        str | bool | None, Meta(description="For Mappings without their own.")
    ] = None
    keepalive: Annotated[
        KeepaliveSpec | None, Meta(description="For Mappings without their own.")
    ] = None
    cluster_idle_timeout_ms: Annotated[
        Milliseconds | None, Meta(description="For Mappings without their own.")
    ] = None
    cluster_max_connection_lifetime_ms: Annotated[
        Milliseconds | None, Meta(description="For Mappings without their own.")
    ] = None
    listener_idle_timeout_ms: Annotated[
        Duration | None,
        Meta(description="A client's connection without streams is ended. Default one hour."),
    ] = None
    enable_ipv4: Annotated[Flag, Meta(description="For Mappings without their own.")] = None
    enable_ipv6: Annotated[Flag, Meta(description="For Mappings without their own.")] = None
    add_linkerd_headers: Annotated[Flag, Meta(description="For Mappings without their own.")] = None
    x_forwarded_proto_redirect: Annotated[
        Flag,
        Meta(
            description="True: what did not come over TLS is redirected to https, with 301. "
            "`x-forwarded-proto` of a trusted hop tells (`use_remote_address: false` or "
            "`xff_num_trusted_hops`), else the connection."
        ),
    ] = None
    ip_allow: Annotated[
        list[IpRangeSpec] | None,
        Meta(
            description="Requests from elsewhere are answered 403 (PERMISSION_DENIED). Excludes "
            "`ip_deny`.",
            examples=["[{remote: 10.0.0.0/8}]"],
        ),
    ] = None
    ip_deny: Annotated[
        list[IpRangeSpec] | None,
        Meta(description="Requests from there are answered 403.", examples=["[{peer: 192.0.2.7}]"]),
    ] = None
    merge_slashes: Annotated[
        Flag, Meta(description="`//` in a path becomes `/`, before a route is looked for.")
    ] = None
    reject_requests_with_escaped_slashes: Annotated[
        Flag, Meta(description="Paths with `%2F` or `%5C` are answered 400.")
    ] = None
    strip_matching_host_port: Annotated[
        Flag, Meta(description="The port that we listen on goes from the host.")
    ] = None
    preserve_external_request_id: Annotated[
        Flag,
        Meta(
            description="True: a client's `x-request-id` goes on, whoever it is; false (the "
            "default): only that of a trusted hop before us does, any other is replaced. "
            "`--preserve-external-request-id` wins."
        ),
    ] = None
    use_proxy_proto: Annotated[
        Flag,
        Meta(
            description="True: on every port balancers begin each connection with a PROXY header, as "
            "`PROXY` in a Listener's `protocolStack` says it for one. Trusted are the addresses of "
            "`--proxy-protocol-from`; if that is not given, private ones."
        ),
    ] = None
    forward_client_cert_details: Annotated[
        Literal["SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY"]
        | None,
        Meta(
            description="What becomes of `x-forwarded-client-cert`, in Envoy's words. Default "
            "`SANITIZE`: it is taken away. `SANITIZE_SET`: what the client's certificate says takes "
            "its place."
        ),
    ] = None
    set_current_client_cert_details: Annotated[
        ClientCertDetailsSpec | None,
        Meta(description="What is said of it there beside its hash.", examples=["{subject: true}"]),
    ] = None
    headers_with_underscores_action: Annotated[
        Literal["ALLOW", "REJECT_REQUEST", "DROP_HEADER"] | None,
        Meta(description="`ALLOW` (the default), `REJECT_REQUEST` (400) or `DROP_HEADER`."),
    ] = None
    max_request_headers_kb: Annotated[
        Annotated[int, Meta(ge=1, le=8192)] | None,
        Meta(
            description="KiB of a request's header list. Default 60; `--max-header-list` wins. Needs "
            "a restart."
        ),
    ] = None
    server_name: Annotated[
        Text | None,
        Meta(
            description="`server` of every response, in place of the service's. Default: the "
            "service's stays (Ambassador writes `envoy`)."
        ),
    ] = None
    enable_http10: Annotated[
        Any, Meta(description="HTTP/1.0 is always served: no effect, no warning.")
    ] = None
    default_labels: Annotated[
        Any, Meta(description="For rate limiting, which is not there: no effect, no warning.")
    ] = None
    default_label_domain: Annotated[Any, Meta(description="As `default_labels`.")] = None
