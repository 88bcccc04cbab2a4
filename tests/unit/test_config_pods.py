"""Whose pods a Mapping's requests go to, from written documents: every row of the table, every name."""

from __future__ import annotations

from pathlib import Path

import pytest

from stickyproxy.config.load import Settings
from stickyproxy.model import ClusterSpec, ServiceRef
from support.written import Written, cluster_of, mapping

ON = {"kubernetes": ["on"]}
BALANCED = "{policy: maglev, header: x-user}"
PODS = ServiceRef("", "svc")


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def only(settings: Settings) -> ClusterSpec:
    (spec,) = settings.clusters
    return spec


def module(**fields: str) -> str:
    lines = "".join(f"  {key}: {value}\n" for key, value in fields.items())
    return f"---\napiVersion: ambassador/v1\nkind: Module\nname: ambassador\nconfig:\n{lines}"


def resolver(kind: str, name: str) -> str:
    return f"---\napiVersion: getambassador.io/v2\nkind: {kind}\nmetadata: {{name: {name}}}\n"


# --- the table ------------------------------------------------------------------------------------

POD_RESOLVER, DNS_RESOLVER = "kubernetes-endpoint", "kubernetes-service"
TABLE: list[tuple[str, str, bool, str]] = [
    # (AMBASSADOR_ENABLE_ENDPOINTS, resolver, load_balancer, who balances or the complaint)
    ("", "", False, "pods"),
    ("", "", True, "pods"),
    ("true", "", False, "pods"),
    ("true", "", True, "pods"),
    ("false", "", False, "dns"),
    ("false", "", True, "load_balancer: load_balancer needs the pods, and AMBASSADOR_ENABLE"),
    *(
        (enabled, POD_RESOLVER, lb, "pods")
        for enabled in ("", "true", "false")
        for lb in (False, True)
    ),
    *((enabled, DNS_RESOLVER, False, "dns") for enabled in ("", "true", "false")),
    *(
        (enabled, DNS_RESOLVER, True, "resolver: load_balancer needs the pods, and resolver")
        for enabled in ("", "true", "false")
    ),
]


@pytest.mark.parametrize("place", ["mapping", "module"])
@pytest.mark.parametrize("row", TABLE, ids=str)
def test_row(written: Written, row: tuple[str, str, bool, str], place: str) -> None:
    enabled, resolver, balanced, expected = row
    fields = {"resolver": resolver} if resolver else {}
    fields |= {"load_balancer": BALANCED} if balanced else {}
    text = mapping(**fields) if place == "mapping" else mapping() + module(**fields)
    environ = {"AMBASSADOR_ENABLE_ENDPOINTS": enabled}
    if expected not in ("pods", "dns"):
        (problem,) = written.refused(text, ON, environ)
        inside = "config." if place == "module" else ""
        assert f": {inside}{expected}" in problem
        return
    spec = only(written.load(text, ON, environ))
    assert spec.kube == (PODS if expected == "pods" else None)
    assert spec.targets == (() if expected == "pods" else (("svc", 80),))


def test_mappings_resolver_wins_over_the_modules(written: Written) -> None:
    text = mapping(resolver=POD_RESOLVER) + module(resolver=DNS_RESOLVER)
    assert only(written.load(text, ON)).kube == PODS


def test_modules_balancer_is_no_error_for_a_mapping_that_asks_for_dns_itself(
    written: Written,
) -> None:
    text = mapping(resolver=DNS_RESOLVER) + module(load_balancer=BALANCED)
    assert only(written.load(text, ON)).kube is None


def test_contradiction_of_the_module_is_told_once_for_all_mappings(written: Written) -> None:
    text = mapping() + mapping(name="other", prefix="/o/")
    (problem,) = written.refused(text + module(resolver=DNS_RESOLVER, load_balancer=BALANCED), ON)
    assert problem.startswith("config.yaml:")
    assert "config.resolver: load_balancer needs the pods" in problem


def test_resolver_resource_is_known_by_its_name(written: Written) -> None:
    dns = resolver("KubernetesServiceResolver", "mine")
    assert only(written.load(dns + mapping(resolver="mine"), ON)).kube is None
    pods = resolver("KubernetesEndpointResolver", "mine")
    assert only(written.load(pods + mapping(resolver="mine"), ON)).kube == PODS


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        ("", "resolver mine is not there; right would be kubernetes-endpoint or"),
        (resolver("ConsulResolver", "mine"), "resolver mine is a ConsulResolver, which is not"),
    ],
)
def test_resolver_that_cannot_be_is_a_problem_at_its_line(
    written: Written, documents: str, said: str
) -> None:
    (problem,) = written.refused(mapping(resolver="mine") + documents, ON)
    assert problem.startswith("config.yaml:7: resolver: ")
    assert said in problem


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ("qotm", ServiceRef("", "qotm")),
        ("qotm.prod", ServiceRef("prod", "qotm")),
        ("qotm.prod.svc", ServiceRef("prod", "qotm")),
        ("qotm.prod.svc.cluster.local", ServiceRef("prod", "qotm")),
        ("Qotm.Prod", ServiceRef("prod", "qotm")),
        ("qotm:8080", ServiceRef("", "qotm", 8080)),
        ("qotm:grpc", ServiceRef("", "qotm", "grpc")),
        ("http://qotm.prod:8080", ServiceRef("prod", "qotm", 8080)),
        ("https://qotm", ServiceRef("", "qotm", None, 443)),
        ("grpc://qotm.prod:grpc-web", ServiceRef("prod", "qotm", "grpc-web")),
    ],
)
def test_service_of_the_cluster_is_served_by_its_pods(
    written: Written, service: str, expected: ServiceRef
) -> None:
    spec = only(written.load(mapping(service=f'"{service}"'), ON))
    assert (spec.kube, spec.targets) == (expected, ())


def test_bare_name_is_in_the_mappings_namespace_else_in_the_one_that_is_read(
    written: Written,
) -> None:
    assert only(written.load(mapping(namespace="shop"), ON)).kube == ServiceRef("shop", "svc")
    assert only(written.load(mapping(namespace="default"), ON)).kube == ServiceRef("default", "svc")
    read = ON | {"kube-namespace": ["prod"]}
    assert only(written.load(mapping(), read)).kube == ServiceRef("prod", "svc")
    everywhere = ON | {"kube-namespace": ["all"]}
    assert only(written.load(mapping(), everywhere)).kube == PODS


@pytest.mark.parametrize(
    "service",
    [
        "10.0.0.7",
        "10.0.0.7:8080",
        "[fd00::1]:80",
        "localhost:8080",
        "api.example.com",
        "qotm.prod.svc.other.domain",
        "my_container:80",
    ],
)
def test_what_is_no_service_of_the_cluster_is_asked_of_dns(written: Written, service: str) -> None:
    """A load_balancer spreads over its addresses then, and no resolver is missed."""
    text = mapping(service=f'"{service}"', resolver=DNS_RESOLVER, load_balancer=BALANCED)
    spec = only(written.load(text, ON))
    assert spec.kube is None
    assert len(spec.targets) == 1


def test_explicit_addresses_win_over_the_cluster(written: Written) -> None:
    listed = only(written.load(mapping(endpoints="[10.0.0.7:80]"), ON))
    assert (listed.kube, listed.targets) == (None, (("10.0.0.7", 80),))
    placed = only(written.load(mapping(), ON | {"service": ["svc=127.0.0.1:8001"]}))
    assert (placed.kube, placed.targets) == (None, (("127.0.0.1", 8001),))


def test_same_name_in_two_namespaces_is_two_clusters_with_names_of_their_own(
    written: Written,
) -> None:
    text = mapping(namespace="a") + mapping(name="n", prefix="/n/", namespace="b")
    clusters = written.load(text, ON).clusters
    assert {spec.kube for spec in clusters} == {ServiceRef("a", "svc"), ServiceRef("b", "svc")}
    assert all("pods of svc." in spec.name for spec in clusters)


def test_name_of_a_port_is_for_pods_only(written: Written) -> None:
    (problem,) = written.refused(mapping(service="svc:grpc", resolver=DNS_RESOLVER), ON)
    assert "service: port `grpc` is a name, and DNS knows none; write its number" in problem
    (problem,) = written.refused(mapping(service="svc:grpc"))
    assert "port `grpc` is no number" in problem


# --- without Kubernetes ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["endpoint", "kubernetes-endpoint", "kubernetes-service"])
def test_without_kubernetes_every_known_resolver_means_dns(written: Written, name: str) -> None:
    settings = written.load(mapping(resolver=name, load_balancer=BALANCED))
    assert cluster_of(settings, "m").targets == (("svc", 80),)
    assert settings.warnings == ()


def test_without_kubernetes_an_unknown_resolver_is_a_warning(written: Written) -> None:
    (warning,) = written.warnings(mapping(resolver="consul-dc1"))
    assert warning == (
        "config.yaml:7: resolver: consul-dc1 is not there, the service is asked of DNS"
    )
