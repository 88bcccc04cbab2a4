"""Ambassador's documents: every form of them, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from stickyproxy.config.load import load
from stickyproxy.model import (
    HashPolicy,
    HeaderAdd,
    HeaderMatch,
    LoadBalancer,
    RouteMatch,
    UpstreamProtocol,
    UpstreamTls,
)
from stickyproxy.rules import (
    CircuitBreaker,
    ConnectCheck,
    Cors,
    EdgePolicy,
    HealthCheck,
    HttpCheck,
    Keepalive,
    OutlierDetection,
    Redirect,
    RetryPolicy,
    Shadow,
    Upkeep,
)
from support.written import DATA, Written, cluster_of, mapping, route

MODULE = "---\napiVersion: ambassador/v1\nkind: Module\nname: ambassador\nconfig:\n"


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


# --- the seed -------------------------------------------------------------------------------------


def test_the_articles_round_robin_mapping_loads_unchanged() -> None:
    settings = load([DATA / "qotm_round_robin.yaml"])

    assert cluster_of(settings, "qotm_mapping").load_balancer == LoadBalancer("round_robin")
    assert settings.warnings == ()


def test_the_articles_ring_hash_mapping_loads_unchanged() -> None:
    where = {"service": ["qotm=127.0.0.1:8001,127.0.0.1:8002"]}
    settings = load([DATA / "qotm_ring_hash.yaml"], where)

    found = route(settings, "qotm_mapping")
    spec = cluster_of(settings, "qotm_mapping")
    assert found.match == RouteMatch("/qotm/")
    assert (found.targets[0].rewrite, found.targets[0].timeout) == ("/", 3.0)
    assert spec.name == spec.service == "qotm"
    assert spec.protocol is UpstreamProtocol.HTTP
    assert spec.targets == (("127.0.0.1", 8001), ("127.0.0.1", 8002))
    assert spec.load_balancer == LoadBalancer(
        "ring_hash", HashPolicy("cookie", "sticky-cookie", 60.0)
    )
    assert settings.warnings == ()


def test_the_articles_module_is_a_default_for_mappings_without_their_own(
    written: Written,
) -> None:
    plain = written.file(mapping(name="plain", prefix="/plain/"))
    settings = load([DATA / "module_header.yaml", DATA / "qotm_ring_hash.yaml", plain])

    assert cluster_of(settings, "plain").load_balancer == LoadBalancer(
        "ring_hash", HashPolicy("header", "x-user")
    )
    own = cluster_of(settings, "qotm_mapping").load_balancer.hash
    assert own == HashPolicy("cookie", "sticky-cookie", 60.0)


# --- forms ----------------------------------------------------------------------------------------


def test_every_field_has_its_effect() -> None:
    settings = load([DATA / "every_field.yaml"])

    found = route(settings, "everything")
    (target,) = found.targets
    spec = cluster_of(settings, "everything")
    assert found.match == RouteMatch(
        path="/every/",
        case_sensitive=False,
        hostname="*.example.com",
        method="POST",
        headers=(
            HeaderMatch("x-any", None),
            HeaderMatch("x-name", "a.*", regex=True),
            HeaderMatch("x-version", "2"),
        ),
        query_parameters=(HeaderMatch("page", "1"), HeaderMatch("size", "[0-9]+", regex=True)),
        precedence=3,
    )
    assert target.rewrite == "/v2/"
    assert target.regex_rewrite == ("/every/(.*)", r"/\1")
    assert target.host_rewrite == "internal.example.com"
    assert (target.timeout, target.idle_timeout, target.weight) == (1.5, None, 100.0)
    assert target.add_request_headers[:2] == (
        HeaderAdd("x-one", "1"),
        HeaderAdd("x-two", "2", append=False),
    )
    assert target.add_response_headers == (HeaderAdd("x-three", "3"),)
    assert target.remove_request_headers == ("x-secret",)
    assert target.remove_response_headers == ("server",)
    assert target.origin == f"{DATA}/every_field.yaml:1"
    assert spec.protocol is UpstreamProtocol.HTTPS
    assert spec.targets == (("10.0.0.1", 8443), ("10.0.0.2", 8443))
    assert spec.weights == (1, 2)
    assert spec.tls == UpstreamTls(verify=False, server_name="backend.shop")
    assert spec.connect_timeout == 0.25
    assert spec.load_balancer == LoadBalancer("least_request")


def test_every_field_beyond_routing_has_its_effect() -> None:
    settings = load([DATA / "every_field.yaml"])

    found = route(settings, "everything")
    (target,) = found.targets
    spec = cluster_of(settings, "everything")
    assert target.cors == Cors(
        ("https://app.example.com",),
        methods="GET, POST",
        headers="content-type, x-grpc-web",
        exposed_headers="grpc-status",
        credentials=True,
        max_age="86400",
    )
    assert target.retry == RetryPolicy(("5xx", "unavailable"), 2, 1.5)
    assert target.idempotent
    assert HeaderAdd("l5d-dst-override", "backend.shop:8443", append=False) in (
        target.add_request_headers
    )
    assert target.upgrades == ("websocket",)
    assert found.shadow == Shadow(
        "every-shadow", "backend-next:8080", 20.0, f"{DATA}/every_field.yaml:91"
    )
    assert (spec.name, spec.tag) == ("every-shop", "canary")
    assert spec.upkeep == Upkeep(
        keepalive=Keepalive(30, 5, 3),
        idle_timeout=60.0,
        max_lifetime=600.0,
        families="v4",
        circuit_breakers=(CircuitBreaker("high", 1, 2, 3, 4),),
        health_checks=(
            HealthCheck(
                HttpCheck(
                    "/healthz",
                    "probe.example.com",
                    (("x-probe", "1", True),),
                    ("x-trace",),
                    ((200, 299),),
                ),
                timeout=0.25,
                interval=90.0,
                healthy_threshold=3,
                unhealthy_threshold=4,
            ),
            HealthCheck(ConnectCheck()),
        ),
        outlier_detection=OutlierDetection(consecutive_gateway_failure=3, base_ejection_time=10.0),
        proxy_protocol="v2",
    )
    (gone,) = route(settings, "every-redirect").targets
    assert gone.redirect == Redirect("www.example.com", "https", path="/new?from=old", code=308)
    assert gone.cluster == ""


@pytest.mark.parametrize(
    "version",
    [
        "ambassador/v0",
        "ambassador/v1",
        "ambassador/v2",
        "getambassador.io/v1",
        "getambassador.io/v2",
        "getambassador.io/v3alpha1",
    ],
)
def test_flat_and_spec_mean_the_same_in_every_version(written: Written, version: str) -> None:
    fields = {"prefix": "/a/", "service": "a"}
    flat = {"apiVersion": version, "kind": "Mapping", "name": "a", **fields}
    resource = {
        "apiVersion": version,
        "kind": "Mapping",
        "metadata": {"name": "a"},
        "spec": fields,
    }

    one, other = (written.load(str(document)) for document in (flat, resource))

    assert one.routes == other.routes
    assert one.clusters == other.clusters
    assert one.warnings == other.warnings == ()


def test_a_flat_document_without_api_version_is_taken_with_a_warning(written: Written) -> None:
    text = "kind: Mapping\nname: a\nprefix: /a/\nservice: a\n"

    assert route(written.load(text), "a").targets
    assert written.warnings(text) == [
        "config.yaml:1: apiVersion: is missing, getambassador.io/v3alpha1 is taken"
    ]


def test_an_unknown_version_is_refused(written: Written) -> None:
    text = mapping().replace("ambassador/v1", "getambassador.io/v9")

    (problem,) = written.refused(text)

    assert problem == (
        "config.yaml:2: apiVersion: getambassador.io/v9 is no version that we know; right would be "
        "getambassador.io/v3alpha1"
    )


def test_documents_in_a_services_annotation_are_read_with_their_lines() -> None:
    settings = load([DATA / "service_annotation.yaml"])

    found = route(settings, "qotm_mapping")
    assert found.targets[0].origin.endswith("service_annotation.yaml:9")
    assert cluster_of(settings, "qotm_mapping").targets == (("qotm.shop", 80),)
    (warning,) = settings.warnings
    assert "service_annotation.yaml:14: unknown_key: is unknown" in warning


def test_a_list_of_resources_is_opened(written: Written) -> None:
    inner = "{apiVersion: ambassador/v1, kind: Mapping, name: NAME, prefix: /NAME/, service: s}"
    items = ", ".join(inner.replace("NAME", name) for name in ("a", "b"))

    settings = written.load(f"apiVersion: v1\nkind: List\nitems: [{items}]\n")

    assert [found.name for found in settings.routes] == ["a", "b"]


def test_other_kinds_are_named_and_passed_over(written: Written) -> None:
    text = """\
        apiVersion: getambassador.io/v3alpha1
        kind: TCPMapping
        metadata: {name: my-host}
        ---
        apiVersion: v1
        kind: Service
        metadata: {name: web}
        ---
        apiVersion: ambassador/v1
        kind: Module
        name: tls
        config: {}
        """

    assert written.warnings(text)[:3] == [
        "config.yaml:1: kind TCPMapping my-host is passed over",
        "config.yaml:5: kind Service web is passed over",
        "config.yaml:9: kind Module tls is passed over",
    ]


@pytest.mark.parametrize(
    ("kind", "meant"),
    [("mapping", "Mapping"), ("Maping", "Mapping"), ("stickyproxy", "StickyProxy")],
)
def test_a_kind_that_is_nearly_one_of_ours_is_a_hint(
    written: Written, kind: str, meant: str
) -> None:
    (warning, *_) = written.warnings(f"apiVersion: ambassador/v1\nkind: {kind}\nname: m\n")

    assert warning == f"config.yaml:1: kind {kind} m is passed over; did you mean {meant}?"


def test_a_document_without_kind_is_refused(written: Written) -> None:
    assert written.refused("apiVersion: ambassador/v1\n") == [
        "config.yaml:1: kind: is missing; right would be Mapping (getambassador.io/v3alpha1)"
    ]


def test_a_name_that_is_taken_is_refused(written: Written) -> None:
    assert written.refused(mapping() + mapping(prefix="/n/")) == [
        f"config.yaml:8: name: Mapping m is already in {written.folder}/config.yaml:2; give it "
        "another name".replace(f"{written.folder}/", "")
    ]


def test_the_same_name_in_two_namespaces_is_two_mappings(written: Written) -> None:
    text = mapping(namespace="a", prefix="/a/") + mapping(namespace="b", prefix="/b/")

    settings = written.load(text)

    assert [found.name for found in settings.routes] == ["m.a", "m.b"]
    assert [spec.targets for spec in settings.clusters] == [(("svc.a", 80),), (("svc.b", 80),)]


# --- warnings and complaints ----------------------------------------------------------------------


def test_unknown_keys_and_keys_without_effect_warn_with_their_line(written: Written) -> None:
    text = mapping(timeot_ms="5", priority="high", resolver="endpoint", ambassador_id="x")

    assert written.warnings(text) == [
        "config.yaml:7: timeot_ms: is unknown and has no effect; did you mean timeout_ms?",
        "config.yaml:8: priority: is known and has no effect in this version",
        "config.yaml:10: ambassador_id: is known and has no effect in this version",
    ]


@pytest.mark.parametrize("key", ["prefix", "service"])
def test_what_a_mapping_needs_is_asked_for(written: Written, key: str) -> None:
    text = "".join(line for line in mapping().splitlines(keepends=True) if not line.startswith(key))

    (problem,) = written.refused(text)

    assert problem.startswith(f"config.yaml:2: {key}: is missing; right would be ")


def test_the_path_of_a_resource_begins_at_spec(written: Written) -> None:
    text = """\
        apiVersion: getambassador.io/v2
        kind: Mapping
        metadata: {name: a}
        spec:
          prefix: /a/
          service: a
          load_balancer:
            policy: maglev
            cookie:
              name: c
              ttl: 60
        """

    (problem,) = written.refused(text)

    assert problem == (
        "config.yaml:11: spec.load_balancer.cookie.ttl: must be text, not `60` (a number); right "
        "would be 60s"
    )


def test_the_module_decides_about_the_edge(written: Written) -> None:
    text = MODULE + "  use_remote_address: false\n  xff_num_trusted_hops: 2\n  gzip: {}\n"

    assert written.load(text).edge == EdgePolicy(use_remote_address=False, xff_num_trusted_hops=2)
    assert "config.yaml:8: config.gzip: is known and has no effect in this version" in (
        written.warnings(text)
    )


def test_two_modules_are_refused(written: Written) -> None:
    (problem,) = written.refused(MODULE + "  gzip: {}\n" + MODULE + "  gzip: {}\n")

    assert "name: Module ambassador is already in" in problem
