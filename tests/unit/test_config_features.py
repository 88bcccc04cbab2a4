"""What Mapping and Module say beyond routing: what it comes to, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from stickyproxy.config.fields.tuning import NO_OUTLIERS
from stickyproxy.errors import ConfigError
from stickyproxy.model import HeaderAdd
from stickyproxy.rules import (
    CircuitBreaker,
    Cors,
    EdgePolicy,
    GateRules,
    GrpcCheck,
    HealthCheck,
    IpRange,
    Keepalive,
    OutlierDetection,
    Redirect,
    RetryPolicy,
    Shadow,
    Upkeep,
)
from support.written import Written, cluster_of, mapping, route


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def module(**fields: object) -> str:
    lines = "".join(f"  {key}: {value}\n" for key, value in fields.items())
    return f"---\napiVersion: ambassador/v1\nkind: Module\nname: ambassador\nconfig:\n{lines}"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"cors": "{}"}, "cors.origins: is missing; right would be [https://app.example.com]"),
        ({"cors": "{origins: []}"}, "cors.origins: is empty; right would be [https://app.ex"),
        ({"cors": "{origins: ' , '}"}, "cors.origins: is empty"),
        ({"cors": "{origins: app.example}"}, "cors.origins: `app.example` is no origin; right w"),
        ({"cors": "{origins: 'https://a/b'}"}, "cors.origins: `https://a/b` is no origin"),
        ({"cors": "{origins: '*', methods: 'G T'}"}, "cors.methods: `G T` is no name; right wo"),
        ({"cors": "{origins: '*', headers: ['a:b']}"}, "cors.headers: `a:b` is no name"),
        ({"cors": "{origins: '*', max_age: 1d}"}, "cors.max_age: `1d` is no seconds; right wou"),
        ({"cors": "{origins: '*', credentials: 1}"}, "cors.credentials: must be true or false"),
        ({"cors": "'*'"}, "cors: must be a mapping, not `*`"),
        ({"retry_policy": "{retry_on: 6xx}"}, "retry_policy.retry_on: `6xx` is not known; right"),
        ({"retry_policy": "{retry_on: ','}"}, "retry_policy.retry_on: `` is not known; right wo"),
        ({"retry_policy": "{num_retries: 1}"}, "retry_policy.retry_on: is missing; right would b"),
        (
            {"retry_policy": "{retry_on: 5xx, per_try_timeout: 2}"},
            "retry_policy.per_try_timeout: must be text that is not empty, not `2` (a number); ri",
        ),
        (
            {"retry_policy": "{retry_on: 5xx, per_try_timeout: 2x}"},
            "retry_policy.per_try_timeout: `2x` is no duration; right would be 2s",
        ),
        ({"retry_policy": "{retry_on: 5xx, num_retries: -1}"}, "retry_policy.num_retries: must be"),
        ({"circuit_breakers": "{}"}, "circuit_breakers: must be a list"),
        (
            {"circuit_breakers": "[{priority: low}]"},
            "circuit_breakers: priority `low` is not known; right would be default or high",
        ),
        (
            {"circuit_breakers": "[{}, {priority: default}]"},
            "circuit_breakers: has two for the priority default; keep one",
        ),
        (
            {"circuit_breakers": "[{max_requests: x}]"},
            "circuit_breakers[0].max_requests: must be a",
        ),
        (
            {"health_checks": "[{}]"},
            "health_checks[0].health_check: is missing; right would be {ht",
        ),
        ({"health_checks": "[{health_check: {}}]"}, "health_checks: health_check needs one of htt"),
        (
            {"health_checks": "[{health_check: {http: {path: healthz}}}]"},
            "health_checks: `healthz` is no path; right would be /healthz",
        ),
        (
            {"health_checks": "[{health_check: {tcp: {}}, timeout: 0s}]"},
            "health_checks: `0s` is no duration; right would be 3s",
        ),
        (
            {
                "health_checks": "[{health_check: {http: {path: /h, "
                "expected_statuses: [{min: 300, max: 200}]}}}]"
            },
            "health_checks: expected_statuses: 300 is more than 200; right would be 200 to 299",
        ),
        (
            {"health_checks": "[{health_check: {http: {path: /h}, tcp: {}}}]"},
            "health_checks: health_check needs one of http, grpc and tcp",
        ),
        (
            {"health_checks": "[{health_check: {grpc: {upstream_name: a}}}]"},
            "health_checks: a grpc check needs HTTP/2; add grpc: true, or check by http",
        ),
        (
            {"outlier_detection": "consecutive_5xx=many"},
            "outlier_detection: consecutive_5xx: `many` is no value for it; right would be 0 to 1e",
        ),
        (
            {"outlier_detection": "sometimes"},
            "outlier_detection: `sometimes` is not known; right would be off, or consecutive_5xx=",
        ),
        (
            {"health_checks": "[{health_check: {http: {path: /h, remove_request_headers: a b}}}]"},
            "health_checks: `a b` is no header name",
        ),
        ({"keepalive": "{probes: 0}"}, "keepalive.probes: must be a whole number from 1 to 127"),
        ({"keepalive": "{interval: 10s}"}, "keepalive.interval: must be a whole number from 1 to"),
        ({"cluster_idle_timeout_ms": "-1"}, "cluster_idle_timeout_ms: must be a whole number fro"),
        (
            {"enable_ipv4": "false", "enable_ipv6": "false"},
            "enable_ipv6: and enable_ipv4 leave no address; right would be true for one of them",
        ),
        (
            {"auto_host_rewrite": "true", "host_rewrite": "a"},
            "auto_host_rewrite: and host_rewrite exclude each other; keep one",
        ),
        (
            {"host_redirect": "true", "redirect_response_code": "304"},
            "redirect_response_code: `304` is no redirect; right would be one of 301, 302, 303, 3",
        ),
        (
            {"host_redirect": "true", "service": "h2c://a"},
            "service: h2c:// is no place for clients",
        ),
        ({"host_redirect": "true", "service": "a/b"}, "service: `a/b` has more than a host and a"),
        (
            {"host_redirect": "true", "path_redirect": "/a b"},
            "path_redirect: `/a b` has a blank or",
        ),
        (
            {"host_redirect": "true", "regex_redirect": "{pattern: (, substitution: a}"},
            "regex_redirect.pattern: `(` is no regular expression (RE2): ",
        ),
        ({"host_redirect": "true", "regex_redirect": "{pattern: a}"}, "regex_redirect.substitutio"),
        ({"shadow": "1"}, "shadow: must be true or false, not `1` (a number)"),
        ({"cluster_tag": '""'}, "cluster_tag: must be text that is not empty"),
    ],
)
def test_wrong_values_are_refused_with_what_would_be_right(
    written: Written, fields: dict[str, str], said: str
) -> None:
    (problem,) = written.refused(mapping(**fields))

    place, _, complaint = problem.partition(": ")
    assert complaint.startswith(said)
    assert place.startswith("config.yaml:")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"ip_allow": "[{remote: a}]"}, "ip_allow: `a` is no address or range; right would be 10"),
        ({"ip_deny": "[{}]"}, "ip_deny: needs one of remote and peer in each item; right would b"),
        ({"ip_deny": "[{remote: '::1', peer: '::1'}]"}, "ip_deny: needs one of remote and peer in"),
        (
            {"ip_deny": "[{remote: '::1'}]", "ip_allow": "[{peer: '::1'}]"},
            "ip_deny: and ip_allow exclude each other; keep one",
        ),
        (
            {"headers_with_underscores_action": "DROP"},
            "headers_with_underscores_action: must be one of ALLOW, DROP_HEADER, REJECT_REQUEST",
        ),
        ({"max_request_headers_kb": "0"}, "max_request_headers_kb: must be a whole number from 1 "),
        ({"server_name": '"a\\nb"'}, "server_name: a header value has no line breaks"),
        ({"cors": "{origins: x}"}, "cors.origins: `x` is no origin"),
        ({"retry_policy": "{retry_on: often}"}, "retry_policy.retry_on: `often` is not known"),
        ({"merge_slashes": "yes please"}, "merge_slashes: must be true or false"),
        ({"listener_idle_timeout_ms": "0"}, "listener_idle_timeout_ms: must be a whole number fr"),
    ],
)
def test_a_wrong_module_is_refused_with_what_would_be_right(
    written: Written, fields: dict[str, str], said: str
) -> None:
    (problem,) = written.refused(module(**fields) + mapping())

    assert problem.split(": ", 1)[1].startswith(f"config.{said}")


# --- redirects ------------------------------------------------------------------------------------


def redirect_of(written: Written, **fields: str) -> Redirect | None:
    settings = written.load(mapping(host_redirect="true", **fields))
    assert settings.clusters == ()
    (target,) = route(settings, "m").targets
    return target.redirect


def test_a_redirect_needs_no_service_that_is_there(written: Written) -> None:
    assert redirect_of(written, service="www.example.com") == Redirect("www.example.com")
    assert redirect_of(written, service="https://[::1]:8443") == Redirect("[::1]:8443", "https")
    assert redirect_of(written, service="'[::1]'") == Redirect("[::1]")


def test_a_redirects_host_is_given_no_namespace(written: Written) -> None:
    assert redirect_of(written, service="www", namespace="shop") == Redirect("www")


def test_of_several_redirected_paths_one_counts_and_the_others_are_told(written: Written) -> None:
    paths = {
        "path_redirect": "/p",
        "prefix_redirect": "/x/",
        "regex_redirect": "{pattern: a, substitution: b}",
    }
    text = mapping(host_redirect="true", **paths)

    assert route(written.load(text), "m").targets[0].redirect == Redirect("svc", path="/p")
    assert [w.split(": ", 1)[1] for w in written.warnings(text)] == [
        "prefix_redirect: has no effect beside path_redirect",
        "regex_redirect: has no effect beside path_redirect",
    ]


def test_redirect_fields_without_host_redirect_warn(written: Written) -> None:
    text = mapping(path_redirect="/p", redirect_response_code="302")

    assert route(written.load(text), "m").targets[0].redirect is None
    assert [w.split(": ", 1)[1] for w in written.warnings(text)] == [
        "path_redirect: has no effect without host_redirect: true",
        "redirect_response_code: has no effect without host_redirect: true",
    ]


def test_what_needs_a_backend_warns_beside_a_redirect(written: Written) -> None:
    text = mapping(host_redirect="true", cors="{origins: '*'}")

    assert route(written.load(text), "m").targets[0].cors is None
    assert [w.split(": ", 1)[1] for w in written.warnings(text)] == [
        "cors: has no effect beside host_redirect: true"
    ]


def test_a_redirect_shares_its_match_with_nobody(written: Written) -> None:
    (problem,) = written.refused(mapping(name="a") + mapping(name="b", host_redirect="true"))

    assert problem == (
        "config.yaml:13: host_redirect: cannot stand beside a (config.yaml:2), which has the same "
        "match; keep one"
    )


def test_a_backend_stands_beside_no_redirect(written: Written) -> None:
    (problem,) = written.refused(mapping(name="a", host_redirect="true") + mapping(name="b"))

    assert "service: cannot stand beside the redirect a (" in problem


# --- shadows --------------------------------------------------------------------------------------


def test_a_shadow_is_of_its_group_and_no_part_of_its_weights(written: Written) -> None:
    text = mapping(name="a", weight="80") + mapping(name="b", service="other")
    settings = written.load(text + mapping(name="c", service="third", shadow="true", weight="40"))

    found = route(settings, "a")
    assert [(t.name, t.weight) for t in found.targets] == [("a", 80.0), ("b", 20.0)]
    assert found.shadow is not None
    assert (found.shadow.cluster, found.shadow.percent) == ("third", 40.0)
    assert {spec.name for spec in settings.clusters} == {"svc", "other", "third"}


def test_a_shadow_without_weight_gets_everything(written: Written) -> None:
    settings = written.load(mapping() + mapping(name="s", service="other", shadow="true"))

    assert route(settings, "m").shadow == Shadow(
        "s", "other", 100.0, f"{written.folder}/config.yaml:8"
    )


def test_a_second_shadow_is_refused(written: Written) -> None:
    shadows = mapping(name="s", shadow="true") + mapping(name="t", shadow="true")
    (problem,) = written.refused(mapping() + shadows)

    assert "shadow: is already that of s (" in problem


def test_a_shadow_alone_mirrors_nothing_and_says_so(written: Written) -> None:
    text = mapping(name="s", shadow="true")

    assert written.load(text).routes == ()
    assert (
        "shadow: mirrors nothing: no other Mapping with the same match has a backend"
        in (written.warnings(text)[0])
    )


def test_shadow_wins_over_host_redirect(written: Written) -> None:
    text = mapping() + mapping(name="s", service="x", shadow="true", host_redirect="true")

    assert route(written.load(text), "m").shadow is not None
    assert [w.split(": ", 1)[1] for w in written.warnings(text)] == [
        "host_redirect: has no effect beside shadow: true"
    ]


# --- defaults of the Module -----------------------------------------------------------------------


def test_mappings_take_what_they_do_not_say_from_the_module(written: Written) -> None:
    text = module(
        cors="{origins: 'https://a.example,https://b.example', methods: [GET, PUT]}",
        retry_policy="{retry_on: 5xx}",
        circuit_breakers="[{max_requests: 7}]",
        keepalive="{time: 9}",
        cluster_idle_timeout_ms="5000",
        cluster_max_connection_lifetime_ms="60000",
        enable_ipv6="false",
        add_linkerd_headers="true",
    )
    settings = written.load(text + mapping())

    (target,) = route(settings, "m").targets
    assert target.cors == Cors(("https://a.example", "https://b.example"), methods="GET, PUT")
    assert target.retry == RetryPolicy(("5xx",))
    assert target.add_request_headers == (HeaderAdd("l5d-dst-override", "svc:80", append=False),)
    assert cluster_of(settings, "m").upkeep == Upkeep(
        keepalive=Keepalive(9),
        idle_timeout=5.0,
        max_lifetime=60.0,
        families="v4",
        circuit_breakers=(CircuitBreaker(max_requests=7),),
    )


def test_a_mappings_own_word_wins_over_the_modules(written: Written) -> None:
    text = module(
        cors="{origins: '*'}",
        keepalive="{time: 9, probes: 2}",
        enable_ipv6="false",
        add_linkerd_headers="true",
        cluster_idle_timeout_ms="5000",
    )
    own = mapping(
        cors="{origins: https://own.example}",
        keepalive="{idle_time: 3}",
        enable_ipv6="true",
        enable_ipv4="false",
        add_linkerd_headers="false",
        cluster_idle_timeout_ms="7000",
    )
    settings = written.load(text + own)

    (target,) = route(settings, "m").targets
    assert target.cors == Cors(("https://own.example",))
    assert target.add_request_headers == ()
    upkeep = cluster_of(settings, "m").upkeep
    assert upkeep == Upkeep(keepalive=Keepalive(3), idle_timeout=7.0, families="v6")


def test_no_milliseconds_are_no_limit_of_its_own(written: Written) -> None:
    text = module(cluster_idle_timeout_ms="5000") + mapping(cluster_idle_timeout_ms="0")

    assert cluster_of(written.load(text), "m").upkeep.idle_timeout == 5.0


# --- names of clusters ----------------------------------------------------------------------------


def test_a_stats_name_names_the_cluster(written: Written) -> None:
    assert cluster_of(written.load(mapping(stats_name="shop")), "m").name == "shop"


def test_one_stats_name_for_two_services_is_told_apart(written: Written) -> None:
    text = mapping(name="a", prefix="/a/", service="one", stats_name="shop")
    settings = written.load(
        text + mapping(name="b", prefix="/b/", service="two", stats_name="shop")
    )

    names = {cluster_of(settings, name).name for name in ("a", "b")}
    assert len(names) == 2
    assert all(name.startswith("shop|") for name in names)


def test_a_tag_splits_the_cluster_of_one_service(written: Written) -> None:
    text = mapping(name="a", prefix="/a/") + mapping(name="b", prefix="/b/", cluster_tag="x")
    settings = written.load(text)

    assert [cluster_of(settings, name).name for name in ("a", "b")] == ["svc", "svc|x"]


def test_what_keeps_connections_apart_is_in_the_name(written: Written) -> None:
    text = mapping(name="a", prefix="/a/", cluster_idle_timeout_ms="1000")
    text += mapping(name="b", prefix="/b/", keepalive="{probes: 3}")
    settings = written.load(text + mapping(name="c", prefix="/c/"))

    names = [cluster_of(settings, name).name for name in ("a", "b", "c")]
    assert names[0] == "svc|round_robin|http|svc:80|3s|idle=1.0"
    assert names[1].startswith("svc|round_robin|http|svc:80|3s|upkeep=")
    assert names[2] == "svc|round_robin|http|svc:80|3s"


def test_a_grpc_check_is_of_a_service_that_speaks_http2(written: Written) -> None:
    check = "[{health_check: {grpc: {upstream_name: shop.Every, authority: shop}}}]"
    settings = written.load(mapping(grpc="true", health_checks=check))

    (spec,) = settings.clusters
    assert spec.upkeep.health_checks == (HealthCheck(GrpcCheck("shop.Every", "shop")),)


def test_a_mappings_outlier_detection_wins_over_the_modules(written: Written) -> None:
    text = module(outlier_detection='"off"') + mapping(name="a", prefix="/a/")
    text += mapping(name="b", prefix="/b/", outlier_detection="consecutive_5xx=3")
    settings = written.load(text)

    found = [cluster_of(settings, name).upkeep.outlier_detection for name in ("a", "b")]
    assert found == [NO_OUTLIERS, OutlierDetection(consecutive_5xx=3)]


# --- what has no effect, what is silent -----------------------------------------------------------


def test_a_condition_of_retries_that_can_match_nothing_is_named(written: Written) -> None:
    text = mapping(retry_policy="{retry_on: '5xx, retriable-headers'}")

    assert [w.split(": ", 1)[1] for w in written.warnings(text)] == [
        "retry_policy.retry_on: `retriable-headers` matches nothing here"
    ]


@pytest.mark.parametrize(("said", "held"), [(None, False), ("false", False), ("true", True)])
def test_only_a_mapping_that_says_so_is_idempotent(
    written: Written, said: str | None, held: bool
) -> None:
    text = mapping(**({} if said is None else {"idempotent": said}))

    assert [t.idempotent for r in written.load(text).routes for t in r.targets] == [held]


def test_fields_for_filters_that_are_not_there_are_silent(written: Written) -> None:
    text = module(default_labels="{a: {defaults: [x]}}", enable_http10="true")
    text += mapping(labels="{a: [b]}", docs="{path: /}", bypass_auth="true", enable_ipv4="true")

    assert written.warnings(text) == []


@pytest.mark.parametrize(
    "name", ["dns_type", "respect_dns_ttl", "priority", "error_response_overrides"]
)
def test_what_is_accepted_and_not_acted_on_is_warned_about(written: Written, name: str) -> None:
    (warning,) = written.warnings(mapping(**{name: "x"}))

    assert warning.endswith(f"{name}: is known and has no effect in this version")


@pytest.mark.parametrize(
    ("fields", "upgrades"),
    [
        ({}, ()),
        ({"allow_upgrade": "[websocket]"}, ("websocket",)),
        ({"allow_upgrade": "WebSocket"}, ("websocket",)),
        ({"allow_upgrade": "[]"}, ()),
        ({"use_websocket": "true"}, ("websocket",)),
        ({"use_websocket": "false"}, ()),
    ],
)
def test_a_mapping_says_what_its_connections_may_become(
    written: Written, fields: dict[str, str], upgrades: tuple[str, ...]
) -> None:
    settings = written.load(mapping(**fields))

    assert route(settings, "m").targets[0].upgrades == upgrades


def test_grpc_web_is_translated_for_mappings_of_grpc(written: Written) -> None:
    for text, translated in (
        (mapping(grpc="true"), True),
        (mapping(), False),
        (module(enable_grpc_web="true") + mapping(grpc="true"), True),
        (module(enable_grpc_web="false") + mapping(grpc="true"), False),
    ):
        assert route(written.load(text), "m").targets[0].grpc_web is translated


def test_cors_of_a_grpc_mapping_has_what_grpc_web_needs(written: Written) -> None:
    cors = "{origins: '*', headers: [X-Grpc-Web, authorization], exposed_headers: x-more}"
    found = route(written.load(mapping(grpc="true", cors=cors)), "m").targets[0].cors

    assert found == Cors(
        ("*",),
        methods="POST",
        headers="X-Grpc-Web, authorization, content-type, grpc-timeout, x-user-agent",
        exposed_headers="x-more, grpc-status, grpc-message, grpc-status-details-bin",
    )
    anything = mapping(grpc="true", cors="{origins: '*', methods: '*', headers: '*'}")
    found = route(written.load(anything), "m").targets[0].cors
    assert found is not None
    assert (found.methods, found.headers) == ("*", "*")


def test_a_protocol_that_is_not_served_is_warned_about(written: Written) -> None:
    (warning,) = written.warnings(mapping(allow_upgrade="[spdy/3.1, websocket]"))

    assert "`spdy/3.1` is not served and has no effect" in warning


# --- the edge -------------------------------------------------------------------------------------


def test_the_module_makes_the_rules_of_the_edge(written: Written) -> None:
    text = module(
        ip_deny="[{remote: 10.1.2.3/8}, {peer: '2001:db8::1'}]",
        x_forwarded_proto_redirect="true",
        merge_slashes="true",
        reject_requests_with_escaped_slashes="true",
        strip_matching_host_port="true",
        preserve_external_request_id="true",
        use_proxy_proto="true",
        headers_with_underscores_action="DROP_HEADER",
        server_name="gate",
        listener_idle_timeout_ms="90000",
    )

    assert written.load(text + mapping()).edge == EdgePolicy(
        gate=GateRules(
            ip_deny=(IpRange("10.0.0.0/8"), IpRange("2001:db8::1/128", peer=True)),
            https_redirect=True,
            merge_slashes=True,
            reject_escaped_slashes=True,
            strip_port=True,
            underscores="drop",
            server="gate",
        ),
        idle_timeout=90.0,
        preserve_request_id=True,
        proxy_protocol=True,
    )


def test_an_empty_allow_list_lets_nobody_in(written: Written) -> None:
    assert written.load(module(ip_allow="[]") + mapping()).edge.gate.ip_allow == ()


def test_a_module_without_rules_makes_no_gate(written: Written) -> None:
    text = module(merge_slashes="false", preserve_external_request_id="false")

    assert written.load(text + mapping()).edge == EdgePolicy()


@pytest.mark.parametrize("said", ["true", "false"])
@pytest.mark.parametrize("flag", ["on", "off"])
def test_the_flag_wins_over_what_a_module_preserves(written: Written, said: str, flag: str) -> None:
    flags = {"preserve-external-request-id": [flag]}
    both = written.load(module(preserve_external_request_id=said) + mapping(), flags)
    alone = written.load(mapping(), flags)

    assert both.edge.preserve_request_id is alone.edge.preserve_request_id is (flag == "on")


def test_max_request_headers_kb_is_the_limit_of_header_lists(written: Written) -> None:
    text = module(max_request_headers_kb="80") + mapping()

    assert written.load(text).process.max_header_list == 80 * 1024
    assert written.warnings(text) == []


def test_the_flag_wins_over_max_request_headers_kb(written: Written) -> None:
    text = module(max_request_headers_kb="80") + mapping()
    settings = written.load(text, {"max-header-list": ["4096"]})

    assert settings.process.max_header_list == 4096
    assert settings.warnings[0].endswith(
        "the limit is 4096 bytes (--max-header-list); --max-header-list sets it"
    )


# --- PROXY headers for services -------------------------------------------------------------------


def test_a_service_may_want_to_be_told_of_clients(written: Written) -> None:
    settings = written.load(mapping(proxy_protocol="v2"))
    flagged = written.load("", {"backend": ["a:1"], "backend-proxy-protocol": ["v2"]})

    assert [spec.upkeep.proxy_protocol for spec in settings.clusters] == ["v2"]
    assert [spec.upkeep.proxy_protocol for spec in flagged.clusters] == ["v2"]


@pytest.mark.parametrize("said", ["v1", "V2", "true", "2", "[v2]", "''"])
def test_another_version_than_2_is_refused_with_its_place(written: Written, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        written.load(mapping(proxy_protocol=said))
    [problem] = caught.value.problems
    assert "proxy_protocol: " in problem
    assert "v2" in problem


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            {"backend": ["a:1"], "backend-proxy-protocol": ["v1"]},
            "`v1` is not known; right would be v2",
        ),
        (
            {"backend": ["a:1"], "backend-proxy-protocol": ["on"]},
            "`on` is not known; right would be v2",
        ),
        (
            {"backend-proxy-protocol": ["v2"]},
            "is about backends; add --backend URL, or use proxy_protoc",
        ),
    ],
)
def test_what_is_wrong_with_the_flag_is_said(
    written: Written, flags: dict[str, list[str]], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        written.load(mapping(), flags)
    assert [p.startswith(f"--backend-proxy-protocol: {said}") for p in caught.value.problems] == [
        True
    ]
