"""What people may write in Host, TLSContext and Listener: fields, types, bounds and meaning.

Field sources: Emissary's v3alpha1 resources (api/getambassador.io). Read as `config.schema.mapping` is.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from stickyproxy.config.schema.mapping import Flag, Text

Port = Annotated[int, Meta(ge=1, le=65535)]


class SecretRefSpec(Struct, frozen=True):
    """A Secret by name."""

    name: Annotated[Text, Meta(description="Name of the Secret.", examples=["shop-tls"])]
    namespace: Annotated[Text | None, Meta(description="Default: that of the resource.")] = None


class NameSpec(Struct, frozen=True):
    """A resource by name."""

    name: Annotated[Text, Meta(description="Its name.")]


class SelectorSpec(Struct, frozen=True, rename="camel"):
    """Labels that something must have."""

    match_labels: Annotated[
        dict[str, str] | None, Meta(description="Every one of these.", examples=["{team: shop}"])
    ] = None
    match_expressions: Annotated[
        list[dict[str, str | list[str]]] | None,
        Meta(description="Not read; use `matchLabels`."),
    ] = None


class InsecureSpec(Struct, frozen=True, rename="camel"):
    """What becomes of a request that is not secure."""

    action: Annotated[
        Literal["Redirect", "Reject", "Route"] | None,
        Meta(
            description="`Redirect` (301 to https, the default), `Reject` (404, as Emissary), `Route` "
            "(served)."
        ),
    ] = None
    additional_port: Annotated[
        Annotated[int, Meta(ge=-1, le=65535)] | None,
        Meta(description="A port to be opened beside, for requests that are not secure; -1 none."),
    ] = None


class RequestPolicySpec(Struct, frozen=True):
    """By how a request came."""

    insecure: Annotated[
        InsecureSpec | None, Meta(description="See `requestPolicy.insecure` below.")
    ] = None


class AcmeSpec(Struct, frozen=True, rename="camel"):
    """Certificates by ACME: not done here; `tlsSecret` takes those of cert-manager."""

    authority: Annotated[str | None, Meta(description="`none`, or where they would be from.")] = (
        None
    )
    email: Annotated[str | None, Meta(description="No effect.")] = None
    private_key_secret: Annotated[
        SecretRefSpec | None, Meta(description="No effect; it is never read.")
    ] = None
    registration: Annotated[str | None, Meta(description="No effect.")] = None


class TlsFields(Struct, frozen=True, kw_only=True):
    """How TLS is spoken; `Host.tls` takes the names in camelCase too."""

    cert_chain_file: Annotated[
        Text | None, Meta(description="Certificate chain (PEM), leaf first.")
    ] = None
    private_key_file: Annotated[Text | None, Meta(description="Its private key (PEM).")] = None
    ca_secret: Annotated[
        Text | None,
        Meta(
            description="Secret with the authorities (`ca.crt`, else `tls.crt`) that the other side "
            "is verified against."
        ),
    ] = None
    cacert_chain_file: Annotated[Text | None, Meta(description="The same as a file (PEM).")] = None
    crl_secret: Annotated[
        Text | None,
        Meta(description="Secret with `crl.pem`: certificates of the other side that are revoked."),
    ] = None
    cert_required: Annotated[
        Flag,
        Meta(
            description="Clients must show a certificate. Without it one that is shown is verified."
        ),
    ] = None
    alpn_protocols: Annotated[
        Text | None,
        Meta(description="Protocols towards clients by preference.", examples=["h2,http/1.1"]),
    ] = None
    min_tls_version: Annotated[
        Literal["v1.0", "v1.1", "v1.2", "v1.3"] | None,
        Meta(description="Default `v1.2`, and never less."),
    ] = None
    max_tls_version: Annotated[
        Literal["v1.0", "v1.1", "v1.2", "v1.3"] | None, Meta(description="Default `v1.3`.")
    ] = None
    cipher_suites: Annotated[
        list[Text] | None,
        Meta(
            description="Suites of TLS 1.2 by OpenSSL's names.",
            examples=["[ECDHE-ECDSA-AES128-GCM-SHA256]"],
        ),
    ] = None
    ecdh_curves: Annotated[
        list[Text] | None,
        Meta(description="One of `X25519`, `P-256`, `P-384`, `P-521`; of several none acts."),
    ] = None
    sni: Annotated[
        Text | None, Meta(description="Name that a backend is asked for and verified by.")
    ] = None


class TlsContextSpec(TlsFields, frozen=True, kw_only=True):
    """`kind: TLSContext`: a certificate for clients (`hosts`), or how a Mapping's `tls` is spoken."""

    hosts: Annotated[
        list[Text] | None,
        Meta(description="Names (globs) that this certificate is shown for."),
    ] = None
    secret: Annotated[
        Text | None,
        Meta(description="Secret with `tls.crt` and `tls.key`; `name.namespace` for another one."),
    ] = None
    redirect_cleartext_from: Annotated[
        Port | None, Meta(description="A port to be opened, which redirects these hosts to https.")
    ] = None
    secret_namespacing: Annotated[
        Flag, Meta(description="False: a dot in a Secret's name is a dot. Default true.")
    ] = None


class HostSpec(Struct, frozen=True, kw_only=True, rename="camel"):
    """`kind: Host`: a name that clients reach us by. With any Host, other names are answered 404."""

    hostname: Annotated[
        Text | None,
        Meta(
            description="A glob: `shop.example.com`, `*.example.com`, `*` (the default).",
            examples=["*.example.com"],
        ),
    ] = None
    mapping_selector: Annotated[
        SelectorSpec | None,
        Meta(
            description="Labels of the Mappings that are reachable here, beside their own `hostname`. "
            "Default: all."
        ),
    ] = None
    selector: Annotated[
        SelectorSpec | None, Meta(description="The older name of `mappingSelector`.")
    ] = None
    tls_secret: Annotated[
        SecretRefSpec | None, Meta(description="Certificate: Secret with `tls.crt` and `tls.key`.")
    ] = None
    tls_context: Annotated[
        NameSpec | None,
        Meta(
            description="TLSContext with the rest. Default: one named `<host>-context`, if it is "
            "there."
        ),
    ] = None
    tls: Annotated[
        TlsFields | None, Meta(description="The same in place; not both. Fields as TLSContext's.")
    ] = None
    request_policy: Annotated[
        RequestPolicySpec | None, Meta(description="What becomes of requests that are not secure.")
    ] = None
    acme_provider: Annotated[
        AcmeSpec | None, Meta(description="No effect: there is no ACME here.")
    ] = None


class FromSpec(Struct, frozen=True, rename={"from_": "from"}):
    """Which namespaces."""

    from_: Annotated[
        Literal["SELF", "ALL"] | None, Meta(description="`SELF` or `ALL`.", examples=["ALL"])
    ] = None


class HostBindingSpec(Struct, frozen=True):
    """Which Hosts are reachable through a Listener."""

    namespace: Annotated[
        FromSpec | None, Meta(description="By namespace.", examples=["{from: ALL}"])
    ] = None
    selector: Annotated[SelectorSpec | None, Meta(description="By labels of the Host.")] = None


class ListenerDocument(Struct, frozen=True, kw_only=True, rename="camel"):
    """`kind: Listener`: a port to listen on, in place of the default bind, or beside `--bind`."""

    port: Annotated[Port, Meta(description="On all addresses (IPv4).", examples=[8443])]
    security_model: Annotated[
        Literal["XFP", "SECURE", "INSECURE"],
        Meta(
            description="Which requests are secure: those over TLS, or that a hop before us says so of "
            "by `x-forwarded-proto` (`XFP`; believed by `l7Depth`); all; none.",
            examples=["XFP"],
        ),
    ]
    host_binding: Annotated[
        HostBindingSpec,
        Meta(
            description="Which Hosts are reachable through it.",
            examples=["{namespace: {from: ALL}}"],
        ),
    ]
    protocol: Annotated[
        Literal["HTTP", "HTTPS", "HTTPPROXY", "HTTPSPROXY", "TCP", "TLS", "UDP"] | None,
        Meta(
            description="`HTTPS` (TLS or not, the first byte decides) or `HTTP` (never TLS); "
            "`HTTPSPROXY` and `HTTPPROXY` are these with PROXY headers before. The others are not "
            "served.",
            examples=["HTTPS"],
        ),
    ] = None
    protocol_stack: Annotated[
        list[Text] | None,
        Meta(
            description="The same in layers. `PROXY` among them: who connects from a trusted address "
            "begins with a PROXY header and is believed. Trusted are those of "
            "`--proxy-protocol-from`; if that is not given, private addresses.",
            examples=["[TLS, HTTP, TCP]"],
        ),
    ] = None
    l7_depth: Annotated[
        Annotated[int, Meta(ge=0, le=100)] | None,
        Meta(
            description="How many proxies before us are believed on this port; 0: as the Module's "
            "`xff_num_trusted_hops`."
        ),
    ] = None
    http2_max_concurrent_streams: Annotated[
        Annotated[int, Meta(ge=1, le=2**31 - 1)] | None,
        Meta(description="Streams of one connection. Default: the process's."),
    ] = None


HOST_IGNORED = frozenset(("previewUrl",))
TLS_CONTEXT_IGNORED = frozenset(("crl_file",))
LISTENER_IGNORED = frozenset(("statsPrefix", "internal_address_config", "internalAddressConfig"))
"""Fields of Emissary that are known and have no effect here; each is warned about."""
