"""Mappings together: groups and weights, names of clusters, where services live, what is implied."""

from __future__ import annotations

from pathlib import Path

import pytest

from stickyproxy.config.process.settings import IMPLICIT_PRECEDENCE
from stickyproxy.model import UpstreamProtocol
from support.written import Written, cluster_of, mapping, route

REFLECTION = "/grpc.reflection.v1.ServerReflection/"
MAGLEV = "{policy: maglev, header: x-user}"


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def canary(**weights: str | None) -> str:
    """Mappings with the same match, each with this weight."""
    return "".join(
        mapping(name=name, service=name, **({} if weight is None else {"weight": weight}))
        for name, weight in weights.items()
    )


# --- groups ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"a": None}, {"a": 100.0}),
        ({"a": None, "b": None}, {"a": 50.0, "b": 50.0}),
        ({"a": "10", "b": None}, {"a": 10.0, "b": 90.0}),
        ({"a": "20", "b": None, "c": None}, {"a": 20.0, "b": 40.0, "c": 40.0}),
        ({"a": "100", "b": None}, {"a": 100.0, "b": 0.0}),
        ({"a": "0.5", "b": "99.5"}, {"a": 0.5, "b": 99.5}),
        ({"a": "10", "b": "30"}, {"a": 25.0, "b": 75.0}),
    ],
)
def test_members_without_a_weight_share_the_rest(
    written: Written, weights: dict[str, str | None], expected: dict[str, float]
) -> None:
    settings = written.load(canary(**weights))

    (group,) = settings.routes
    assert {target.cluster: target.weight for target in group.targets} == expected
    assert group.name == "a"


def test_weights_over_a_hundred_are_refused(written: Written) -> None:
    (problem,) = written.refused(canary(a="60", b="50"))

    assert problem == "config.yaml:7: weight: of a, b add up to 110; right would be 100 at most"


def test_weights_of_nothing_are_refused(written: Written) -> None:
    (problem,) = written.refused(canary(a="0", b="0"))

    assert problem == "config.yaml:7: weight: of a, b are all 0; right would be 100"


def test_weights_below_a_hundred_are_parts_and_that_is_said(written: Written) -> None:
    (warning,) = written.warnings(canary(a="10", b="30"))

    assert "weight: of a, b add up to 40; they are taken as parts of that" in warning


def test_a_group_has_one_balancer(written: Written) -> None:
    text = mapping(name="a", load_balancer=MAGLEV)
    text += mapping(name="b", load_balancer="{policy: round_robin}")

    (problem,) = written.refused(text)

    assert problem.startswith("config.yaml:14: load_balancer: differs from that of a (")


def test_members_without_a_balancer_take_their_groups(written: Written) -> None:
    text = mapping(name="a", service="a") + mapping(name="b", service="b", load_balancer=MAGLEV)

    assert {spec.load_balancer.policy for spec in written.load(text).clusters} == {"maglev"}


def test_the_order_of_conditions_does_not_divide_a_group(written: Written) -> None:
    text = mapping(name="a", headers='{X-One: "1", x-two: "2"}')
    text += mapping(name="b", headers='{x-two: "2", x-one: "1"}')

    (group,) = written.load(text).routes

    assert [target.name for target in group.targets] == ["a", "b"]


@pytest.mark.parametrize(
    "other",
    [
        {"prefix": "/other/"},
        {"prefix_exact": "true"},
        {"method": "GET"},
        {"hostname": "h"},
        {"precedence": "1"},
        {"headers": "{x: true}"},
        {"query_parameters": "{x: true}"},
    ],
)
def test_another_match_is_another_route(written: Written, other: dict[str, str]) -> None:
    settings = written.load(mapping(name="a") + mapping(name="b", **other))

    assert {found.name for found in settings.routes} == {"a", "b"}


def test_the_order_of_documents_does_not_matter(written: Written) -> None:
    parts = [
        mapping(name="a", weight="10", service="qotm"),
        mapping(name="b", service="qotm", load_balancer=MAGLEV),
        mapping(name="c", prefix="/c/", service="qotm"),
        mapping(name="d", prefix="/p.S/", service="qotm", grpc="true"),
    ]

    one, other = (written.load("".join(order)) for order in (parts, parts[::-1]))

    assert [spec.name for spec in one.clusters] == [spec.name for spec in other.clusters]
    assert one.clusters == other.clusters
    assert [found.name for found in one.routes if found.match.precedence == 0]
    strip = {found.name: [t.cluster for t in found.targets] for found in one.routes}
    assert strip == {found.name: [t.cluster for t in found.targets] for found in other.routes}


# --- clusters -------------------------------------------------------------------------------------


def test_mappings_of_one_service_share_a_cluster(written: Written) -> None:
    settings = written.load(mapping(name="a") + mapping(name="b", prefix="/b/"))

    assert [spec.name for spec in settings.clusters] == ["svc"]


def test_two_policies_on_one_service_are_two_clusters_named_by_policy(written: Written) -> None:
    text = mapping(name="a") + mapping(name="b", prefix="/b/", load_balancer=MAGLEV)

    names = [spec.name for spec in written.load(text).clusters]

    assert names == ["svc|maglev header:x-user", "svc|round_robin"]


def test_names_tell_apart_whatever_differs(written: Written) -> None:
    text = mapping(name="a") + mapping(name="b", prefix="/b/", connect_timeout_ms="1")
    text += mapping(name="c", prefix="/c/", grpc="true")
    text += mapping(name="d", prefix="/d/", endpoints="['1.2.3.4:5']")
    text += mapping(name="e", prefix="/e/", load_balancer=MAGLEV)

    clusters = written.load(text).clusters

    assert len({spec.name for spec in clusters}) == len(clusters) == 5
    assert "svc|maglev header:x-user" in {spec.name for spec in clusters}


def test_a_service_called_as_the_backends_keeps_apart(written: Written) -> None:
    settings = written.load(mapping(service="backends"), {"backend": ["10.0.0.1:1"]})

    assert cluster_of(settings, "m").targets == (("backends", 80),)
    assert cluster_of(settings, "backends").targets == (("10.0.0.1", 1),)


# --- where a service lives ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["svc", "svc.shop", "svc:8080", "svc.shop:8080"])
def test_a_service_is_found_by_each_of_its_names(written: Written, name: str) -> None:
    text = mapping(service="svc:8080", namespace="shop")

    settings = written.load(text, {"service": [f"{name}=10.0.0.1:1,[::1]:2"]})

    assert cluster_of(settings, "m").targets == (("10.0.0.1", 1), ("::1", 2))
    assert settings.warnings == ()


def test_the_most_exact_name_of_a_service_wins(written: Written) -> None:
    text = mapping(service="svc:1") + mapping(name="n", prefix="/n/", service="svc:2")

    settings = written.load(text, {"service": ["svc=h:9", "svc:2=i:9"]})

    assert cluster_of(settings, "m").targets == (("h", 9),)
    assert cluster_of(settings, "n").targets == (("i", 9),)


def test_the_flag_wins_over_endpoints_and_those_over_dns(written: Written) -> None:
    text = mapping(endpoints="['10.0.0.1']") + mapping(name="n", prefix="/n/", service="other:7")

    assert cluster_of(written.load(text), "m").targets == (("10.0.0.1", 80),)
    assert cluster_of(written.load(text), "n").targets == (("other", 7),)
    flagged = written.load(text, {"service": ["svc=10.0.0.2"]})
    assert cluster_of(flagged, "m").targets == (("10.0.0.2", 80),)


def test_a_service_flag_that_nothing_uses_is_said(written: Written) -> None:
    settings = written.load(mapping(), {"service": ["svc=h:1", "scv=h:1"]})

    assert settings.warnings == ("--service: no Mapping has the service scv",)


@pytest.mark.parametrize(
    "text", ["svc", "svc=", "=h:1", "svc=http://h:1", "svc=h:x", "svc=h:0", "svc=h h:1"]
)
def test_a_malformed_service_flag_is_refused(written: Written, text: str) -> None:
    (problem,) = written.refused(mapping(), {"service": [text]})

    assert problem.startswith("--service: ")
    assert "right would be qotm=127.0.0.1:8001,127.0.0.1:8002" in problem


# --- what is implied ------------------------------------------------------------------------------


def test_reflection_and_health_follow_the_first_grpc_mapping_by_name(written: Written) -> None:
    text = mapping(name="z", prefix="/p.Z/", service="z", grpc="true")
    text += mapping(name="b", prefix="/p.B/", service="b", grpc="true", timeout_ms="9")
    text += mapping(name="a", prefix="/a/", service="a")

    settings = written.load(text)

    implied = {r.match.path: r for r in settings.routes if r.match.precedence < 0}
    assert set(implied) == {
        REFLECTION,
        "/grpc.reflection.v1alpha.ServerReflection/",
        "/grpc.health.v1.Health/",
    }
    for found in implied.values():
        (target,) = found.targets
        assert (target.cluster, target.rewrite, target.timeout) == ("b", None, None)
        assert found.match.precedence == IMPLICIT_PRECEDENCE


def test_each_hostname_has_its_own_reflection(written: Written) -> None:
    text = mapping(name="a", prefix="/p.A/", service="a", grpc="true", hostname="a.com")
    text += mapping(name="b", prefix="/p.B/", service="b", grpc="true", hostname="b.com")

    settings = written.load(text)

    found = {r.match.hostname: r for r in settings.routes if r.match.path == REFLECTION}
    assert {host: r.targets[0].cluster for host, r in found.items()} == {"a.com": "a", "b.com": "b"}
    assert len({r.name for r in settings.routes}) == len(settings.routes)


@pytest.mark.parametrize("prefix", [REFLECTION, "/grpc.", "/"])
def test_a_mapping_that_takes_reflection_keeps_it(written: Written, prefix: str) -> None:
    text = mapping(name="g", prefix="/p.S/", grpc="true") + mapping(name="own", prefix=prefix)

    settings = written.load(text)

    assert [r.name for r in settings.routes if r.match.path == REFLECTION] == (
        ["own"] if prefix == REFLECTION else []
    )


def test_without_grpc_nothing_is_implied(written: Written) -> None:
    assert [r.name for r in written.load(mapping()).routes] == ["m"]


def test_reflection_speaks_as_the_mapping_does(written: Written) -> None:
    settings = written.load(mapping(service="grpcs://svc:7"))

    implied = route(settings, "grpc-reflection-v1")
    (spec,) = settings.clusters
    assert implied.targets[0].cluster == spec.name
    assert spec.protocol is UpstreamProtocol.H2
