"""What people may write: the fields of each document, their types, bounds and meaning.

The structs validate (`config.text.decode`), give the JSON Schema, and are the source of
docs/configuration.md (`config.schema.reference`). Our own document is in `config.schema.process`.
Field sources: Emissary's v3alpha1 resources (api/getambassador.io).
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from stickyproxy.config.schema.feature_fields import MappingFeatures, ModuleFeatures

Milliseconds = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Text = Annotated[str, Meta(min_length=1)]
Flag = bool | None

POLICIES = ("round_robin", "least_request", "ring_hash", "maglev")
HASH_POLICIES = frozenset(("ring_hash", "maglev"))
UPGRADES = frozenset(("websocket",))


class CookieSpec(Struct, frozen=True):
    """The cookie that names a session."""

    name: Annotated[str, Meta(description="Name of the cookie.", examples=["sticky-cookie"])]
    ttl: Annotated[
        str | None,
        Meta(
            description="Lifetime of a cookie that we make: seconds with an `s` (`60s`, `1.5s`); "
            "`0s` is a session cookie. Without `ttl` no cookie is made.",
            examples=["60s"],
        ),
    ] = None
    path: Annotated[str | None, Meta(description="Path of a cookie that we make.")] = None


class LoadBalancerSpec(Struct, frozen=True):
    """How a backend is chosen for each stream.

    `round_robin` and `least_request` stand alone; `ring_hash` and `maglev` take exactly one of
    `cookie`, `header`, `source_ip`.
    """

    policy: Annotated[
        Literal["round_robin", "least_request", "ring_hash", "maglev"],
        Meta(description="The balancer.", examples=["maglev"]),
    ]
    cookie: Annotated[
        CookieSpec | None, Meta(description="Stick by this cookie.", examples=["{name: session}"])
    ] = None
    header: Annotated[
        Text | None,
        Meta(description="Stick by the value of this request header.", examples=["x-user"]),
    ] = None
    source_ip: Annotated[Flag, Meta(description="Stick by the client's address.")] = None


class RegexRewriteSpec(Struct, frozen=True):
    """A rewrite of the whole path by regular expression (RE2)."""

    pattern: Annotated[Text, Meta(description="Every match in the path is replaced.")]
    substitution: Annotated[str, Meta(description=r"What by; `\1` is the first group.")]


class HeaderAddSpec(Struct, frozen=True):
    """A header to be added."""

    value: Annotated[str, Meta(description="The value.")]
    append: Annotated[Flag, Meta(description="False replaces what is there.")] = None


class EndpointSpec(Struct, frozen=True):
    """A backend address with a weight."""

    address: Annotated[Text, Meta(description="HOST:PORT.", examples=["10.0.0.7:50051"])]
    weight: Annotated[
        int, Meta(ge=1, le=2**32 - 1, description="Relative to the others in this Mapping.")
    ] = 1


HeaderValues = dict[str, str | bool]


class MappingSpec(MappingFeatures, frozen=True, kw_only=True):
    """`kind: Mapping`: which requests go to which service, and how."""

    prefix: Annotated[
        str,
        Meta(
            description="Start of the path (a plain string prefix).",
            examples=["/qotm/", "/helloworld.Greeter/"],
        ),
    ]
    service: Annotated[
        Text,
        Meta(
            description="`[scheme://]name[.namespace][:port]`; schemes are `http`, `https`, `h2c`, "
            "`h2`, `grpc`, `grpcs`. The default port is 80, with TLS 443.",
            examples=["qotm", "https://qotm.prod:8443"],
        ),
    ]
    endpoints: Annotated[
        list[str | EndpointSpec] | None,
        Meta(
            description="Where the service lives, instead of asking DNS (ours, not Ambassador's): "
            "`HOST:PORT` or `{address, weight}`.",
            examples=["[10.0.0.7:50051, 10.0.0.8:50051]"],
        ),
    ] = None
    prefix_regex: Annotated[
        Flag, Meta(description="`prefix` is a regular expression (RE2) for the whole path.")
    ] = None
    prefix_exact: Annotated[Flag, Meta(description="`prefix` is the whole path.")] = None
    case_sensitive: Annotated[
        Flag, Meta(description="False: the path's case does not matter. Default true.")
    ] = None
    hostname: Annotated[
        Text | None,
        Meta(
            description="Host of the request, a glob: `example.com`, `*.example.com`, `*`.",
            examples=["*.example.com"],
        ),
    ] = None
    host: Annotated[
        Text | None, Meta(description="The v1/v2 form of `hostname`: the exact host.")
    ] = None
    host_regex: Annotated[Flag, Meta(description="`host` is a regular expression (RE2).")] = None
    method: Annotated[Text | None, Meta(description="HTTP method.", examples=["POST"])] = None
    method_regex: Annotated[Flag, Meta(description="`method` is a regular expression.")] = None
    headers: Annotated[
        HeaderValues | None,
        Meta(description="Request headers with these values; `true` means present."),
    ] = None
    regex_headers: Annotated[
        dict[str, str] | None,
        Meta(description="Request headers whose whole values match these regular expressions."),
    ] = None
    query_parameters: Annotated[
        HeaderValues | None,
        Meta(description="Query parameters with these values; `true` means present."),
    ] = None
    regex_query_parameters: Annotated[
        dict[str, str] | None, Meta(description="Query parameters, by regular expression.")
    ] = None
    precedence: Annotated[
        int,
        Meta(ge=-(10**9), le=10**9, description="Higher is tried first, whatever the prefix."),
    ] = 0
    rewrite: Annotated[
        str | None,
        Meta(
            description='Replaces the matched prefix; `""` leaves the path alone. Default `/`, for '
            "`grpc: true` none.",
        ),
    ] = None
    regex_rewrite: Annotated[
        RegexRewriteSpec | None,
        Meta(
            description="Wins over `rewrite`. A path of which nothing would be left stays as it was."
        ),
    ] = None
    host_rewrite: Annotated[
        Text | None, Meta(description="The authority that the service is given.")
    ] = None
    grpc: Annotated[Flag, Meta(description="The service speaks gRPC (HTTP/2).")] = None
    tls: Annotated[
        bool | str | None,
        Meta(description="`true` (or the name of a TLSContext): TLS towards the service."),
    ] = None
    timeout_ms: Annotated[
        Milliseconds | None,
        Meta(
            description="The whole request; 0 is no limit. Default: the Module's "
            "`cluster_request_timeout_ms`, else 3000; for `grpc: true` none."
        ),
    ] = None
    idle_timeout_ms: Annotated[
        Milliseconds | None,
        Meta(description="A stream with no traffic; 0 is no limit. Default 300000."),
    ] = None
    connect_timeout_ms: Annotated[
        Annotated[int, Meta(ge=1, le=2**31 - 1)] | None,
        Meta(description="A connection to an endpoint. Default 3000."),
    ] = None
    weight: Annotated[
        Annotated[float, Meta(ge=0, le=100)] | None,
        Meta(
            description="Percent of the requests among Mappings with the same match; those without "
            "share the rest."
        ),
    ] = None
    load_balancer: Annotated[
        LoadBalancerSpec | None,
        Meta(description="Default: the Module's, which is replaced whole; else round_robin."),
    ] = None
    resolver: Annotated[
        Text | None,
        Meta(
            description="Who balances, with Kubernetes on: we over the pods (`kubernetes-endpoint`, "
            "`endpoint`: the default) or kube-proxy (`kubernetes-service`, without "
            "`load_balancer`); or a resolver resource by name. Default: the Module's.",
            examples=["kubernetes-service"],
        ),
    ] = None
    add_request_headers: Annotated[
        dict[str, str | HeaderAddSpec] | None,
        Meta(description="`name: value` or `name: {value, append}`; appended by default."),
    ] = None
    add_response_headers: Annotated[
        dict[str, str | HeaderAddSpec] | None, Meta(description="As `add_request_headers`.")
    ] = None
    remove_request_headers: Annotated[
        str | list[str] | None, Meta(description="Names of headers.")
    ] = None
    remove_response_headers: Annotated[
        str | list[str] | None, Meta(description="Names of headers.")
    ] = None


class ModuleSpec(ModuleFeatures, frozen=True, kw_only=True):
    """`kind: Module` with `name: ambassador`: defaults for all Mappings, and the edge."""

    load_balancer: Annotated[
        LoadBalancerSpec | None, Meta(description="For Mappings without their own.")
    ] = None
    resolver: Annotated[
        Text | None,
        Meta(description="For Mappings without their own.", examples=["kubernetes-service"]),
    ] = None
    cluster_request_timeout_ms: Annotated[
        Milliseconds | None,
        Meta(description="For Mappings without `timeout_ms` that are not `grpc: true`."),
    ] = None
    use_remote_address: Annotated[
        bool, Meta(description="The connection's peer is the client, and is put into XFF.")
    ] = True
    xff_num_trusted_hops: Annotated[
        int, Meta(ge=0, le=100, description="How many proxies before us are believed.")
    ] = 0
