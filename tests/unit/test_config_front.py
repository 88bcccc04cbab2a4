"""Hosts, Listeners, TLSContexts and Secrets from files: what becomes of them, and what is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from stickyproxy.edge import INSECURE, REDIRECT, REJECT, ROUTE, Guard, HostRule, ServerTls
from stickyproxy.model import UpstreamTls
from support.edge_files import ca_pem, document, mapping, pair, secret, tls_secret
from support.written import Written

ROUTED = "requestPolicy: {insecure: {action: Route}}\n"
LISTENER = """\
port: 8443
protocol: HTTPS
securityModel: XFP
hostBinding: {namespace: {from: ALL}}
"""


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def shown(written: Written, text: str) -> dict[str, ServerTls]:
    return {tls.name: tls for tls in written.load(text).front.tls}


# --- Hosts ----------------------------------------------------------------------------------------


def test_without_hosts_every_name_is_served(written: Written) -> None:
    front = written.load(mapping("a", "/a/", "a")).front
    assert front.hosts is None
    assert front.listeners == ()


def test_a_host_redirects_what_is_not_secure_unless_it_says_otherwise(written: Written) -> None:
    text = (
        document("Host", "a", "hostname: A.example")
        + document("Host", "b", "hostname: b.example\n" + ROUTED)
        + document("Host", "c", "requestPolicy: {insecure: {action: Reject}}")
    )
    rules = written.load(text).front.hosts
    assert rules == (
        HostRule("Host a", "a.example", REDIRECT),
        HostRule("Host b", "b.example", ROUTE),
        HostRule("Host c", "*", REJECT),
    )


def test_a_redirect_to_where_nothing_is_met_is_warned_about(written: Written) -> None:
    text = document("Host", "a", "hostname: a.example")
    warned = "`a.example` has no certificate here, yet what is not secure is sent to https"
    assert any(warned in line for line in written.warnings(text))
    behind = text + document("Listener", "l", LISTENER + "l7Depth: 1\n")
    assert not any(warned in line for line in written.warnings(behind))


@pytest.mark.parametrize("name", ["mappingSelector", "selector"])
def test_a_selector_names_labels_of_mappings(written: Written, name: str) -> None:
    spec = f"{name}: {{matchLabels: {{team: shop, tier: web}}}}\n" + ROUTED
    (rule,) = written.load(document("Host", "a", spec)).front.hosts or ()
    assert rule.selector == frozenset({("team", "shop"), ("tier", "web")})


def test_an_empty_selector_selects_everything(written: Written) -> None:
    (rule,) = (
        written.load(document("Host", "a", "mappingSelector: {}\n" + ROUTED)).front.hosts or ()
    )
    assert rule.selector is None


def test_labels_of_mappings_reach_their_targets(written: Written) -> None:
    text = mapping("a", "/a/", "a", metadata="labels: {team: shop}")
    flat = (
        "---\napiVersion: ambassador/v1\nkind: Mapping\nname: b\nprefix: /b/\nservice: b\n"
        "metadata_labels: {team: two}\n"
    )
    settings = written.load(text + flat)
    labels = {route.name: route.targets[0].labels for route in settings.routes}
    assert labels["a"] == {("team", "shop")}
    assert labels["b"] == {("team", "two")}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("hostname: a.*.example", "spec.hostname: `a.*.example` has a * in a wrong place"),
        (
            "mappingSelector: {matchExpressions: [{key: a}]}",
            "spec.mappingSelector.matchExpressions: is not read",
        ),
        (
            "requestPolicy: {insecure: {action: Deny}}",
            "spec.requestPolicy.insecure.action: must be one of Redirect, Reject, Route, not `Deny`",
        ),
        ("tlsSecret: {name: gone}", "spec.tlsSecret: Secret gone is not there"),
        ("tlsContext: {name: gone}", "spec.tlsContext.name: TLSContext gone is not there"),
        (
            "tls: {certRequired: true}",
            "spec.tls.cert_required: needs ca_secret or cacert_chain_file beside it",
        ),
        ("tls: {maxTlsVersion: v1.1}", "spec.tls.max_tls_version: v1.1 leaves no version"),
        ("tls: {ecdhCurves: [P-1]}", "spec.tls.ecdh_curves: `P-1` is not known"),
        (
            "tls: {certChainFile: /nowhere.pem}",
            "spec.tls.cert_chain_file: needs private_key_file beside it",
        ),
        ("tls: {caSecret: gone}", "spec.tls.ca_secret: Secret gone is not there"),
    ],
)
def test_what_is_wrong_with_a_host_is_refused_with_its_place(
    written: Written, spec: str, said: str
) -> None:
    assert any(said in problem for problem in written.refused(document("Host", "a", spec)))


@pytest.mark.parametrize(
    ("hostname", "why"),
    [
        ("Shop.example:8443", "without their port; right would be shop.example"),
        ("https://shop.example", "it is no host name"),
        ("shop example", "it is no host name"),
        ("bücher.example", "right would be xn--"),
        ("::1", "right would be [::1]"),
    ],
)
def test_a_host_that_nobody_can_ask_for_is_warned_about(
    written: Written, hostname: str, why: str
) -> None:
    spec = f"hostname: '{hostname}'\n"
    route = spec + "prefix: /a/\nservice: a\n"
    for text in (document("Host", "a", spec + ROUTED), document("Mapping", "a", route)):
        (said,) = [line for line in written.warnings(text) if "matches nothing" in line]
        assert f"spec.hostname: `{hostname.lower()}` matches nothing" in said
        assert why in said


@pytest.mark.parametrize(
    "hostname", ["*", "[::1]", "*.a_b.example", "xn--bcher-kva.example", "10.0.0.1"]
)
def test_a_host_that_somebody_may_ask_for_is_not(written: Written, hostname: str) -> None:
    text = document("Host", "a", f"hostname: '{hostname}'\n" + ROUTED)
    assert not any("matches nothing" in line for line in written.warnings(text))


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("Host", "hostname: a.example\n" + ROUTED, "hostname: b.example\n" + ROUTED),
        ("Listener", LISTENER, LISTENER.replace("8443", "8444")),
        ("TLSContext", "{}", "sni: a"),
    ],
)
def test_two_of_one_name_are_refused_at_the_second(
    written: Written, kind: str, one: str, other: str
) -> None:
    (said,) = written.refused(document(kind, "a", one) + document(kind, "a", other))
    assert f"{kind} a is already in " in said
    assert said.endswith(":2; give it another name")


def test_acme_is_warned_about_by_name(written: Written) -> None:
    spec = "acmeProvider: {authority: 'https://acme.example', email: a@b.c}\n" + ROUTED
    said = "spec.acmeProvider: has no effect, there is no ACME here"
    assert any(said in line for line in written.warnings(document("Host", "a", spec)))
    none = "acmeProvider: {authority: none}\n" + ROUTED
    assert not any("acme" in line for line in written.warnings(document("Host", "a", none)))


# --- certificates ---------------------------------------------------------------------------------


def test_a_hosts_secret_is_shown_for_its_hostname(written: Written) -> None:
    text = tls_secret("shop", "a.example") + document(
        "Host", "a", "hostname: a.example\ntlsSecret: {name: shop}"
    )
    (tls,) = shown(written, text).values()
    assert tls.globs == ("a.example",)
    assert bytes(tls.chain).decode() == pair("a.example").chain
    assert bytes(tls.key).decode() == pair("a.example").key
    assert not tls.client_required


def test_string_data_is_taken_as_it_is(written: Written) -> None:
    found = pair("a.example")
    data = (
        f"stringData:\n  tls.crt: |\n{_indented(found.chain)}  tls.key: |\n{_indented(found.key)}"
    )
    text = f"apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n{data}" + document(
        "Host", "a", "tlsSecret: {name: s}"
    )
    (tls,) = shown(written, text).values()
    assert bytes(tls.key).decode() == found.key


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def test_the_rest_of_a_hosts_tls_is_from_its_context_or_in_place(written: Written) -> None:
    secrets = tls_secret("shop", "a.example") + secret("ca", ca_crt=ca_pem())
    context = "ca_secret: ca\ncert_required: true\nmin_tls_version: v1.3\nalpn_protocols: h2\n"
    in_place = (
        "tls: {caSecret: ca, certRequired: true, minTlsVersion: v1.3, alpnProtocols: h2, "
        "cipherSuites: ['[A|B]', C], ecdhCurves: [P-256]}\n"
    )
    host = "tlsSecret: {name: shop}\n"
    for text in (
        document("TLSContext", "strict", context)
        + document("Host", "a", host + "tlsContext: {name: strict}"),
        document("TLSContext", "a-context", context) + document("Host", "a", host),
        document("Host", "a", host + in_place),
    ):
        front = written.load(secrets + text).front
        (tls,) = front.tls
        assert tls.client_required
        assert tls.client_ca is not None
        assert bytes(tls.client_ca).decode() == ca_pem()
        assert (tls.terms.min_version, tls.terms.alpn) == ("v1.3", ("h2",))
        assert front.guards == (Guard("*", "Host a"),)
    assert tls.terms.ciphers == ("A", "B", "C")
    assert tls.terms.curve == "prime256v1"


def test_both_forms_at_once_are_refused(written: Written) -> None:
    text = document("TLSContext", "x", "min_tls_version: v1.3") + document(
        "Host", "a", "tls: {sni: b}\ntlsContext: {name: x}"
    )
    assert any("tlsContext: and tls say the same" in line for line in written.refused(text))


def test_a_context_with_hosts_is_shown_for_them(written: Written) -> None:
    files = pair("b.example")
    chain = written.file(files.chain, "b.crt")
    key = written.file(files.key, "b.key")
    spec = f"hosts: [B.example, '*.b.example']\ncert_chain_file: {chain}\nprivate_key_file: {key}\n"
    settings = written.load(document("TLSContext", "b", spec))
    (tls,) = settings.front.tls
    assert (tls.name, tls.globs) == ("TLSContext b", ("b.example", "*.b.example"))
    assert {chain, key} <= set(settings.sources), "what is read must be watched"


def test_a_secret_of_another_namespace_is_named_with_a_dot_or_a_field(written: Written) -> None:
    secrets = tls_secret("shop", "a.example", "certs") + tls_secret("dot.ted", "b.example", "web")
    meta = "namespace: web"
    for host in ("tlsSecret: {name: shop.certs}", "tlsSecret: {name: shop, namespace: certs}"):
        assert shown(written, secrets + document("Host", "a", host, meta))
    context = "hosts: [b.example]\nsecret: dot.ted\n"
    plain = document("TLSContext", "b", context + "secret_namespacing: false", meta)
    assert shown(written, secrets + plain)
    (problem, *_) = written.refused(secrets + document("TLSContext", "b", context, meta))
    assert "spec.secret: Secret ted/dot is not there" in problem


def test_several_curves_and_old_versions_are_warned_about(written: Written) -> None:
    spec = "min_tls_version: v1.0\necdh_curves: [P-256, X25519]\nalpn_protocols: h2,h3\n"
    text = document("TLSContext", "a", spec + "hosts: [a]\nsecret: s\n") + tls_secret("s", "a")
    warnings = " ".join(written.warnings(text))
    assert "min_tls_version: v1.0 is too old to be served" in warnings
    assert "ecdh_curves: several have no effect" in warnings
    assert "alpn_protocols: `h3` is not spoken" in warnings
    (tls,) = shown(written, text).values()
    assert (tls.terms.min_version, tls.terms.curve, tls.terms.alpn) == ("", "", ("h2",))


def test_a_missing_ca_leaves_no_way_in(written: Written) -> None:
    """With Kubernetes on it may still come, so it is no problem of the file's."""
    text = tls_secret("shop", "a.example") + document(
        "Host", "a", "tlsSecret: {name: shop}\ntls: {caSecret: ca, certRequired: true}"
    )
    front = written.load(text, {"kubernetes": ["on"]}).front
    assert front.tls == ()
    assert front.guards == (Guard("*", "Host a"),)


# --- secrets stay where they are ------------------------------------------------------------------


def test_no_complaint_and_no_repr_has_what_a_secret_holds(written: Written) -> None:
    hidden = "aGlkZGVuIGhpZGRlbiBo"
    broken = (
        f"apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\ndata: {{tls.crt: {hidden}, "
        f"tls.key: '%{hidden}'}}\n"
    )
    said = " ".join(written.refused(broken + document("Host", "a", "tlsSecret: {name: s}")))
    assert "Secret s: tls.crt holds no CERTIFICATE in PEM" in said
    assert hidden not in said
    assert "hidden" not in said
    good = tls_secret("shop", "a.example") + document("Host", "a", "tlsSecret: {name: shop}")
    settings = written.load(good)
    body = pair("a.example").key.splitlines()[1]
    for thing in (settings, settings.front, settings.files):
        assert body not in repr(thing)
        assert "PRIVATE" not in repr(thing)


def test_an_unnamed_secret_is_never_looked_into(written: Written) -> None:
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {tls.crt: 17, x: [1]}\n"
    assert written.load(text + mapping("a", "/", "a")).front.tls == ()


# --- Listeners ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "protocol", "proxied"),
    [
        ("protocolStack: [PROXY, HTTP, TCP]", "clear", True),
        ("protocolStack: [PROXY, TLS, HTTP, TCP]", "auto", True),
        ("protocolStack: [TLS, PROXY, HTTP, TCP]", "auto", True),
        ("protocol: HTTPPROXY", "clear", True),
        ("protocol: HTTPSPROXY", "auto", True),
        ("protocolStack: [TLS, HTTP, TCP]", "auto", False),
        ("protocol: HTTPS", "auto", False),
    ],
)
def test_a_listener_may_have_proxy_headers_before(
    written: Written, said: str, protocol: str, proxied: bool
) -> None:
    text = document("Listener", "l", LISTENER.replace("protocol: HTTPS", said))
    [listener] = written.load(text).front.listeners

    assert (listener.protocol, listener.proxied) == (protocol, proxied)


def test_a_listener_is_a_port_with_its_hosts(written: Written) -> None:
    text = (
        document("Host", "a", "hostname: a.example\n" + ROUTED, "labels: {edge: one}")
        + document("Host", "b", "hostname: b.example\n" + ROUTED, "namespace: other")
        + document("Listener", "all", LISTENER + "http2MaxConcurrentStreams: 7\n")
        + document(
            "Listener",
            "some",
            "port: 80\nprotocolStack: [HTTP, TCP]\nsecurityModel: INSECURE\nl7Depth: 2\n"
            "hostBinding: {selector: {matchLabels: {edge: one}}}\n",
        )
        + document(
            "Listener",
            "own",
            "port: 81\nprotocol: HTTP\nsecurityModel: SECURE\nhostBinding: {namespace: {from: SELF}}",
            "namespace: other",
        )
    )
    some, own, whole = written.load(text).front.listeners
    assert (some.name, some.port, some.protocol) == ("Listener some", 80, "clear")
    assert (some.security, some.l7_depth, some.max_streams) == ("INSECURE", 2, None)
    assert [rule.hostname for rule in some.hosts or ()] == ["a.example"]
    assert [rule.hostname for rule in own.hosts or ()] == ["b.example"]
    assert (whole.port, whole.protocol, whole.max_streams) == (8443, "auto", 7)
    assert [rule.hostname for rule in whole.hosts or ()] == ["a.example", "b.example"]


def test_without_hosts_a_listener_serves_every_name(written: Written) -> None:
    (listener,) = written.load(document("Listener", "l", LISTENER)).front.listeners
    assert listener.hosts is None


def test_an_explicit_bind_stands_beside_listeners(written: Written) -> None:
    text = document("Listener", "l", LISTENER)
    assert not written.load(text).front.binds_given
    assert written.load(text, {"bind": ["127.0.0.1:9000"]}).front.binds_given


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("protocol: HTTPS", "protocol: TCP"), "spec.protocol: TCP is not served"),
        (("protocol: HTTPS", ""), "spec: needs protocol or protocolStack, and not both"),
        (
            ("protocol: HTTPS", "protocolStack: [PROXY, TCP]"),
            "spec.protocolStack: PROXY, TCP is not served",
        ),
        (
            ("protocol: HTTPS", "protocolStack: [PROXY, PROXY, HTTP, TCP]"),
            "spec.protocolStack: PROXY, PROXY, HTTP, TCP is not served",
        ),
        (("protocol: HTTPS", "protocolStack: [PROXY]"), "spec.protocolStack: PROXY is not served"),
        (("protocol: HTTPS", "protocolStack: []"), "spec.protocolStack:  is not served"),
        (("protocol: HTTPS", "protocolStack: [proxy, HTTP, TCP]"), "spec.protocolStack: proxy,"),
        (("protocol: HTTPS", "protocolStack: PROXY"), "spec.protocolStack: "),
        (("protocol: HTTPS", "protocol: PROXY"), "spec.protocol: "),
        (("port: 8443", "port: 70000"), "spec.port: must be a whole number from 1 to 65535"),
        (("securityModel: XFP", ""), "spec.securityModel: is missing; right would be XFP"),
        (("{namespace: {from: ALL}}", "{}"), "spec.hostBinding: names neither"),
    ],
)
def test_what_is_wrong_with_a_listener_is_refused_with_its_place(
    written: Written, change: tuple[str, str], said: str
) -> None:
    text = document("Listener", "l", LISTENER.replace(*change))
    assert any(said in problem for problem in written.refused(text)), written.refused(text)


def test_two_listeners_on_one_port_are_refused(written: Written) -> None:
    text = document("Listener", "l", LISTENER) + document("Listener", "m", LISTENER)
    (problem,) = written.refused(text)
    assert "spec.port: 8443 is that of Listener l; give it another" in problem


def test_ports_asked_for_beside_are_for_those_who_ask(written: Written) -> None:
    text = (
        document("Host", "a", "requestPolicy: {insecure: {action: Route, additionalPort: 8080}}")
        + document("Host", "b", "hostname: b\n" + ROUTED)
        + tls_secret("s", "c.example")
        + document(
            "TLSContext", "c", "hosts: [c.example]\nsecret: s\nredirect_cleartext_from: 8081"
        )
    )
    extra, redirecting = written.load(text).front.listeners
    assert (extra.port, extra.security, extra.beside) == (8080, INSECURE, True)
    assert [rule.hostname for rule in extra.hosts or ()] == ["*"]
    assert redirecting.port == 8081
    assert [(rule.hostname, rule.insecure) for rule in redirecting.hosts or ()] == [
        ("c.example", REDIRECT)
    ]


# --- towards backends -----------------------------------------------------------------------------


def upstream(written: Written, text: str, service: str = "https://a") -> UpstreamTls | None:
    settings = written.load(mapping("a", "/", service, "tls: up") + text)
    return settings.clusters[0].tls


def test_a_mappings_context_verifies_by_its_ca_and_shows_its_certificate(written: Written) -> None:
    text = (
        tls_secret("client", "client.example")
        + secret("ca", ca_crt=ca_pem())
        + document(
            "TLSContext",
            "up",
            "secret: client\nca_secret: ca\nsni: real.example\nmin_tls_version: v1.3",
        )
    )
    tls = upstream(written, text)
    assert tls is not None
    assert tls.verify
    assert tls.ca is not None
    assert tls.chain is not None
    assert (tls.server_name, tls.terms.min_version) == ("real.example", "v1.3")
    assert not any("not verified" in line for line in written.warnings(text))


def test_a_context_without_a_ca_leaves_the_backend_unverified_with_a_warning(
    written: Written,
) -> None:
    text = document("TLSContext", "up", "sni: real.example")
    tls = upstream(written, text)
    assert tls is not None
    assert not tls.verify
    assert tls.server_name == "real.example"
    warnings = written.load(mapping("a", "/", "https://a", "tls: up") + text).warnings
    assert any("the certificate of https://a is not verified" in line for line in warnings)


def test_a_mapping_that_names_no_context_is_refused(written: Written) -> None:
    (problem,) = written.refused(mapping("a", "/", "https://a", "tls: up"))
    assert problem.startswith("config.yaml:10: spec.tls: TLSContext up is not there")


def test_a_context_that_lacks_its_ca_is_not_used_unverified(written: Written) -> None:
    text = mapping("a", "/", "https://a", "tls: up") + document("TLSContext", "up", "ca_secret: ca")
    problems = written.refused(text)
    assert any("spec.tls: TLSContext up lacks something" in line for line in problems)
    assert any("spec.ca_secret: Secret ca is not there" in line for line in problems)
