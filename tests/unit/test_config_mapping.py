"""One Mapping: what its fields come to, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from stickyproxy.model import (
    HashPolicy,
    LoadBalancer,
    UpstreamProtocol,
    UpstreamTls,
)
from stickyproxy.policy.routes import Routes
from support.written import Written, cluster_of, mapping, route

MODULE = "---\napiVersion: ambassador/v1\nkind: Module\nname: ambassador\nconfig:\n"


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"weight": '"20"'},
            "weight: must be a number from 0 to 100, not `20`; write 20 without quotes",
        ),
        ({"weight": "101"}, "weight: must be a number from 0 to 100, not `101` (a number)"),
        ({"weight": "true"}, "weight: must be a number from 0 to 100, not `true` (true or false)"),
        ({"timeout_ms": "-1"}, "timeout_ms: must be a whole number from 0 to 2147483647"),
        ({"timeout_ms": "1.5"}, "timeout_ms: must be a whole number"),
        ({"service": "8080"}, "service: must be text that is not empty, not `8080` (a number)"),
        ({"service": '""'}, "service: must be text that is not empty, not ``"),
        ({"service": "ftp://x"}, "service: scheme ftp:// is not one of h2c://"),
        ({"service": "x:99999"}, "service: port `99999` is no number from 1 to 65535"),
        ({"service": "x/y"}, "service: `x/y` has more than a host and a port"),
        ({"service": "http://x", "tls": "true"}, "service: http:// has no TLS, but tls asks for"),
        ({"prefix": "null"}, "prefix: must be text, not nothing; right would be /qotm/"),
        ({"prefix": "7"}, "prefix: must be text, not `7` (a number); right would be /qotm/"),
        ({"grpc": '"yes"'}, "grpc: must be true or false, not `yes`"),
        ({"headers": "{x: 2}"}, "headers.x: must be text or true or false, not `2` (a number); wr"),
        ({"headers": "{x: on}"}, 'headers.x: `on` is a boolean in YAML; write "on", or true for'),
        ({"headers": "{x y: z}"}, "headers: `x y` is no header name"),
        ({"regex_headers": "{x: '('}"}, "regex_headers.x: `(` is no regular expression (RE2): "),
        ({"prefix": "'a(?=b)'", "prefix_regex": "true"}, "prefix: `a(?=b)` is no regular exp"),
        ({"prefix_exact": "true", "prefix_regex": "true"}, "prefix_regex: and prefix_exact excl"),
        ({"method": "'['", "method_regex": "true"}, "method: `[` is no regular expression"),
        ({"hostname": "'a.*.b'"}, "hostname: `a.*.b` has a * in a wrong place; right would be *."),
        ({"hostname": "a", "host": "a"}, "host: and hostname say the same; keep hostname"),
        ({"endpoints": "[]"}, "endpoints: is an empty list"),
        ({"endpoints": "['1.2.3:80']"}, "endpoints: `1.2.3` is no IPv4 address"),
        ({"endpoints": "['h2c://a:1']"}, "endpoints: `h2c://a:1` has a scheme, which belongs to"),
        ({"endpoints": "['a:1', 'a:1']"}, "endpoints: names an address twice"),
        (
            {"endpoints": "[{address: 'a:1', weight: 4294967295}, 'b:1']"},
            "endpoints: weights sum to 4294967296, which is above 4294967295; give smaller ones",
        ),
        ({"endpoints": "[{weight: 2}]"}, "endpoints[0].address: is missing; right would be 10.0."),
        ({"add_request_headers": "{x: {value: 1}}"}, "add_request_headers.x.value: must be text"),
        ({"add_request_headers": '{x: "a\\nb"}'}, "add_request_headers.x: a header value has no l"),
        (
            {"add_request_headers": '{x: "a\\x7f"}'},
            "add_request_headers.x: a header value has no l",
        ),
        (
            {"add_response_headers": '{x: " a"}'},
            "add_response_headers.x: a header value has no lin",
        ),
        ({"add_request_headers": "{':path': /x}"}, "add_request_headers: `:path` is no header na"),
        ({"add_request_headers": "{Host: x}"}, "add_request_headers: `Host` is set by host_rewri"),
        (
            {"add_response_headers": "{content-length: '3'}"},
            "add_response_headers: `content-length` ",
        ),
        (
            {"add_request_headers": "{Transfer-Encoding: x}"},
            "add_request_headers: `Transfer-Encoding",
        ),
        (
            {"add_request_headers": "{connection: close}"},
            "add_request_headers: `connection` is bet",
        ),
        ({"remove_request_headers": "':path'"}, "remove_request_headers: `:path` is no header nam"),
        ({"remove_request_headers": "host"}, "remove_request_headers: `host` is set by host_rewri"),
        ({"remove_request_headers": "[a b]"}, "remove_request_headers: `a b` is no header name"),
        ({"regex_rewrite": "{pattern: a}"}, "regex_rewrite.substitution: is missing"),
        ({"rewrite": '"/a b"'}, "rewrite: `/a b` has a blank or control character; write %20"),
        ({"rewrite": "/ü"}, "rewrite: `/ü` is not all ASCII; right would be /%C3%BC"),
        (
            {"regex_rewrite": "{pattern: (a), substitution: '\\2'}"},
            "regex_rewrite.substitution: has \\2, and pattern has 1 group",
        ),
        (
            {
                "host_redirect": "true",
                "regex_redirect": "{pattern: a, substitution: '\\\\1\\1'}",
            },
            "regex_redirect.substitution: has \\1, and pattern has 0 groups",
        ),
        ({"host_rewrite": '"a\\r\\nb"'}, "host_rewrite: `a\\r\\nb` has a blank or control char"),
        ({"regex_rewrite": "text"}, "regex_rewrite: must be a mapping, not `text`"),
    ],
)
def test_wrong_values_are_refused_with_what_would_be_right(
    written: Written, fields: dict[str, str], said: str
) -> None:
    (problem,) = written.refused(mapping(**fields))

    place, _, complaint = problem.partition(": ")
    assert complaint.startswith(said)
    assert place.startswith("config.yaml:")


def test_one_wrong_field_does_not_hide_what_is_wrong_with_the_others(written: Written) -> None:
    text = mapping(
        timeout_ms="-5",
        host_rewrite='"a b"',
        load_balancer="{policy: ring_hash, header: x, cookie: {name: c}}",
    )

    said = [problem.split(": ", 2)[1] for problem in written.refused(text)]

    assert said == ["timeout_ms", "load_balancer", "host_rewrite"]


def test_a_wrong_service_does_not_hide_what_is_wrong_elsewhere(written: Written) -> None:
    said = written.refused(mapping(service="x/y", rewrite='"/a b"', endpoints="[]"))

    assert [problem.split(": ", 2)[1] for problem in said] == ["service", "rewrite"]


def test_a_mapping_without_a_name_is_looked_at_all_the_same(written: Written) -> None:
    text = "apiVersion: ambassador/v1\nkind: Mapping\nprefix: /m/\nservice: x/y\nweight: 101\n"

    said = [problem.split(": ", 2)[1] for problem in written.refused(text)]

    assert said == ["name", "weight", "service"]


@pytest.mark.parametrize(
    "fields",
    [
        {"prefix_regex": '"yes"', "prefix": "'[/'"},
        {"host_regex": '"yes"', "host": "'.*a.*'"},
        {"host_redirect": '"yes"', "service": "x/y"},
        {"prefix": "7", "service": "'8080'"},
        {"tls": "5", "service": "http://x"},
    ],
)
def test_what_follows_from_a_complaint_is_not_complained_about(
    written: Written, fields: dict[str, str]
) -> None:
    (problem,) = written.refused(mapping(**fields))

    assert problem.split(": ", 2)[1] == next(iter(fields))


# --- load_balancer, as strict as Emissary's ------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{policy: round_robin}", LoadBalancer("round_robin")),
        ("{policy: least_request}", LoadBalancer("least_request")),
        (
            "{policy: maglev, header: X-User}",
            LoadBalancer("maglev", HashPolicy("header", "x-user")),
        ),
        ("{policy: maglev, source_ip: true}", LoadBalancer("maglev", HashPolicy("source_ip"))),
        ("{policy: maglev, source_ip: false}", LoadBalancer("maglev", None)),
        (
            "{policy: ring_hash, cookie: {name: c, path: /p, ttl: 1.5s}}",
            LoadBalancer("ring_hash", HashPolicy("cookie", "c", 1.5, "/p")),
        ),
        (
            "{policy: ring_hash, cookie: {name: c, ttl: 0s}}",
            LoadBalancer("ring_hash", HashPolicy("cookie", "c", 0.0)),
        ),
        (
            "{policy: ring_hash, cookie: {name: c}}",
            LoadBalancer("ring_hash", HashPolicy("cookie", "c", None)),
        ),
    ],
)
def test_each_balancer_of_emissary(written: Written, text: str, expected: LoadBalancer) -> None:
    settings = written.load(mapping(load_balancer=text))

    assert cluster_of(settings, "m").load_balancer == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{policy: rr}", "load_balancer.policy: must be one of least_request, maglev, ring_hash,"),
        ("{}", "load_balancer.policy: is missing; right would be maglev"),
        ("maglev", "load_balancer: must be a mapping, not `maglev`"),
        ("{policy: round_robin, header: x}", "load_balancer.header: round_robin takes no other"),
        ("{policy: least_request, source_ip: true}", "load_balancer.source_ip: least_request tak"),
        ("{policy: maglev}", "load_balancer: maglev needs exactly one of cookie, header, source_"),
        (
            "{policy: ring_hash, header: x, source_ip: true}",
            "load_balancer: ring_hash needs exactly one of cookie, header, source_ip, not 2",
        ),
        ("{policy: maglev, cookie: {ttl: 1s}}", "load_balancer.cookie.name: is missing"),
        ("{policy: maglev, cookie: {name: 'a b'}}", "load_balancer.cookie.name: `a b` is no cook"),
        ("{policy: maglev, cookie: {name: a, ttl: 5m}}", "load_balancer.cookie.ttl: `5m` is no n"),
        ("{policy: maglev, cookie: {name: a, path: 'a;b'}}", "load_balancer.cookie.path: has a c"),
        ("{policy: maglev, header: 'a b'}", "load_balancer.header: `a b` is no header name"),
        ("{policy: maglev, source_ip: 1}", "load_balancer.source_ip: must be true or false, not "),
    ],
)
def test_an_invalid_balancer_refuses_its_mapping(written: Written, text: str, said: str) -> None:
    (problem,) = written.refused(mapping(load_balancer=text))

    assert problem.startswith(f"config.yaml:7: {said}")


def test_an_invalid_balancer_of_the_module_is_placed_there(written: Written) -> None:
    text = MODULE + "  load_balancer:\n    policy: maglev\n    cookie:\n      name: a b\n"

    (problem,) = written.refused(text)

    assert problem.startswith("config.yaml:9: config.load_balancer.cookie.name: `a b` is no cookie")


# --- defaults -------------------------------------------------------------------------------------


def test_grpc_mappings_are_not_rewritten_and_have_no_timeout_unless_asked(
    written: Written,
) -> None:
    text = MODULE + "  cluster_request_timeout_ms: 9000\n"
    text += mapping(name="g", prefix="/p.S/", grpc="true")
    text += mapping(name="asked", prefix="/p.T/", grpc="true", rewrite="/q.T/", timeout_ms="50")
    text += mapping(name="http", prefix="/h/")
    text += mapping(name="left", prefix="/l/", rewrite='""', timeout_ms="0")

    settings = written.load(text)

    targets = {found.name: found.targets[0] for found in settings.routes}
    assert (targets["g"].rewrite, targets["g"].timeout) == (None, None)
    assert (targets["asked"].rewrite, targets["asked"].timeout) == ("/q.T/", 0.05)
    assert (targets["http"].rewrite, targets["http"].timeout) == ("/", 9.0)
    assert (targets["left"].rewrite, targets["left"].timeout) == (None, None)


def test_a_regular_expression_is_not_rewritten_by_prefix(written: Written) -> None:
    text = mapping(prefix="'/a/[0-9]+'", prefix_regex="true", rewrite="/b")

    settings = written.load(text)

    assert route(settings, "m").match.path_kind == "regex"
    assert route(settings, "m").targets[0].rewrite is None
    assert written.warnings(text) == [
        "config.yaml:8: rewrite: has no effect with prefix_regex; use regex_rewrite"
    ]


@pytest.mark.parametrize(
    ("fields", "protocol", "target"),
    [
        ({"service": "a"}, UpstreamProtocol.HTTP, ("a", 80)),
        ({"service": "a:8080"}, UpstreamProtocol.HTTP, ("a", 8080)),
        ({"service": "http://a"}, UpstreamProtocol.HTTP, ("a", 80)),
        ({"service": "https://a"}, UpstreamProtocol.HTTPS, ("a", 443)),
        ({"service": "a", "tls": "true"}, UpstreamProtocol.HTTPS, ("a", 443)),
        ({"service": "a", "tls": "ctx"}, UpstreamProtocol.HTTPS, ("a", 443)),
        ({"service": "a", "grpc": "true"}, UpstreamProtocol.H2C, ("a", 80)),
        ({"service": "https://a", "grpc": "true"}, UpstreamProtocol.H2, ("a", 443)),
        ({"service": "grpc://a:1"}, UpstreamProtocol.H2C, ("a", 1)),
        ({"service": "grpcs://a"}, UpstreamProtocol.H2, ("a", 443)),
        ({"service": "h2c://a"}, UpstreamProtocol.H2C, ("a", 80)),
        ({"service": "h2://a"}, UpstreamProtocol.H2, ("a", 443)),
        ({"service": "'[::1]:9'"}, UpstreamProtocol.HTTP, ("::1", 9)),
        (
            {"service": "a.b.svc.cluster.local:1"},
            UpstreamProtocol.HTTP,
            ("a.b.svc.cluster.local", 1),
        ),
    ],
)
def test_scheme_tls_and_grpc_decide_what_is_spoken_and_the_port(
    written: Written, fields: dict[str, str], protocol: UpstreamProtocol, target: tuple[str, int]
) -> None:
    context = "---\napiVersion: ambassador/v1\nkind: TLSContext\nname: ctx\n"
    spec = cluster_of(written.load(mapping(**fields) + context), "m")

    assert (spec.protocol, spec.targets) == (protocol, (target,))


def test_tls_services_are_not_verified_without_a_ca_and_that_is_said(written: Written) -> None:
    (warning,) = written.warnings(mapping(service="https://a"))

    assert "config.yaml:6: service: the certificate of https://a is not verified" in warning
    assert "--backend-ca" in warning


def test_a_ca_verifies_tls_services(written: Written) -> None:
    authority = written.file("pem", "ca.pem")

    settings = written.load(mapping(service="https://a"), {"backend-ca": [str(authority)]})

    tls = cluster_of(settings, "m").tls
    assert tls == UpstreamTls(verify=True, ca_file=str(authority), server_name="a")
    assert settings.warnings == ()


def test_v1_hosts_are_exact_or_regular_expressions(written: Written) -> None:
    text = mapping(host="A.Example.com") + mapping(name="n", host="'a.*'", host_regex="true")

    settings = written.load(text)

    assert route(settings, "m").match.hostname == "a.example.com"
    assert route(settings, "n").match.hostname_regex


@pytest.mark.parametrize("prefix", ["m/", "/m?x=1", "/m#x"])
def test_a_prefix_that_no_path_has_is_warned_about(written: Written, prefix: str) -> None:
    assert any(
        f"prefix: `{prefix}` matches nothing" in line
        for line in written.warnings(mapping(prefix=f"'{prefix}'"))
    )


def test_an_empty_prefix_is_said_to_match_everything_which_it_does(written: Written) -> None:
    settings = written.load(mapping(prefix='""'))

    assert any("prefix: is empty and matches every path" in line for line in settings.warnings)
    assert Routes(settings.routes).match([(b":path", b"/x")]) is route(settings, "m")
