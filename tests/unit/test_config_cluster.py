"""Objects of a cluster stand alone: what is broken harms itself, and the older one has its way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stickyproxy.config.cluster.load import combine
from stickyproxy.config.cluster.status import (
    CURRENT,
    ERROR,
    INACTIVE,
    LAST_GOOD,
    NOTHING,
    RUNNING,
    UNAVAILABLE,
    Memory,
)
from stickyproxy.model import HashPolicy, HeaderMatch, LoadBalancer, RouteMatch
from support.cluster_objects import (
    Cluster,
    annotated,
    cluster_named,
    files,
    is_unserved,
    mapping_object,
    reasons,
    resource,
)
from support.written import DATA, Written, mapping

BROKEN: dict[str, Any] = {"load_balancer": {"policy": "nope"}}
MAGLEV = {"policy": "maglev", "header": "x-user"}
RING = {"policy": "ring_hash", "header": "x-user"}


# --- one broken document --------------------------------------------------------------------------


def test_good_mapping_is_served_and_runs() -> None:
    world = Cluster(mapping_object())

    assert world.route("qotm").match == RouteMatch("/qotm/")
    status = world.status("qotm")
    assert (status.state, status.reason, status.serves) == (RUNNING, "", CURRENT)
    assert world.now.problems == ()


def test_broken_mapping_keeps_its_last_good_version_and_says_why() -> None:
    world = Cluster(mapping_object(timeout_ms=500))
    world.put(mapping_object(generation=2, timeout_ms=900, **BROKEN))

    assert world.route("qotm").targets[0].timeout == 0.5
    status = world.status("qotm")
    assert (status.state, status.serves) == (ERROR, LAST_GOOD)
    assert (status.generation, status.served_generation) == (2, 1)
    assert status.reason.startswith("spec.load_balancer.policy: must be one of")
    assert world.now.problems == (f"Mapping default/qotm: {status.reason}",)


def test_status_tells_all_that_is_wrong_at_once() -> None:
    world = Cluster(mapping_object(rewrite="/a b", **BROKEN))

    first, second = world.status("qotm").reason.split("; spec")
    assert first.startswith("spec.load_balancer.policy: must be one of")
    assert second.startswith(".rewrite: `/a b` has a blank")


def test_last_good_version_survives_one_broken_version_after_the_other() -> None:
    world = Cluster(mapping_object(timeout_ms=500))
    for generation in (2, 3, 4):
        world.put(mapping_object(generation=generation, weight=100 + generation))

    assert world.route("qotm").targets[0].timeout == 0.5
    assert world.status("qotm").served_generation == 1


def test_mended_mapping_is_served_as_it_is_now() -> None:
    world = Cluster(mapping_object())
    world.put(mapping_object(generation=2, **BROKEN))
    world.put(mapping_object(generation=3, timeout_ms=700))

    assert world.route("qotm").targets[0].timeout == 0.7
    assert world.status("qotm").state == RUNNING
    assert world.now.problems == ()


def test_broken_mapping_harms_no_other() -> None:
    alone = Cluster(mapping_object("fine"))
    world = Cluster(mapping_object("fine"), mapping_object("broken", **BROKEN))

    assert world.route("fine") == alone.route("fine")
    assert world.status("fine").state == RUNNING


def test_broken_mapping_without_a_past_answers_503_and_does_not_fall_through() -> None:
    world = Cluster(mapping_object("all", prefix="/"), mapping_object("qotm", **BROKEN))

    broken = world.route("qotm")
    assert broken.match == RouteMatch("/qotm/")
    assert is_unserved(world.now, broken)
    assert broken.targets[0].cluster == "(Mapping default/qotm is broken)"
    assert world.status("qotm").serves == UNAVAILABLE
    assert world.status("qotm").served_generation == 0


@pytest.mark.parametrize(
    "given",
    [
        {"service": None},
        {"service": "ftp://x"},
        {"weight": 200},
        {"timeout_ms": "soon"},
        {"load_balancer": {"policy": "maglev"}},
        {"resolver": "nobody"},
        {"regex_rewrite": {"pattern": "(", "substitution": ""}},
    ],
    ids=lambda given: next(iter(given)),
)
def test_whatever_is_wrong_with_it_its_prefix_is_still_its_own(given: dict[str, Any]) -> None:
    world = Cluster(mapping_object("qotm", hostname="a.example.com", precedence=3, **given))

    match = world.route("qotm").match
    assert (match.path, match.hostname, match.precedence) == ("/qotm/", "a.example.com", 3)
    assert is_unserved(world.now, world.route("qotm"))


def test_conditions_that_make_no_sense_are_dropped_and_the_others_kept() -> None:
    world = Cluster(
        mapping_object(
            "qotm",
            method="POST",
            headers={"x-version": "2"},
            regex_headers={"x-name": "(?!no)"},
            precedence="high",
        )
    )

    match = world.route("qotm").match
    assert match == RouteMatch("/qotm/", method="POST", headers=(HeaderMatch("x-version", "2"),))


@pytest.mark.parametrize(
    "given",
    [{"prefix": None}, {"prefix": 7}, {"prefix": "(", "prefix_regex": True}, {"hostname": "a*b.c"}],
    ids=["none", "number", "regex", "host"],
)
def test_without_a_readable_prefix_or_host_nobody_knows_whose_requests_they_are(
    given: dict[str, Any],
) -> None:
    world = Cluster(
        mapping_object("fine"), mapping_object("qotm", **{"service": "ftp://x"} | given)
    )

    assert world.routes() == {"fine"}
    assert (world.status("qotm").state, world.status("qotm").serves) == (ERROR, NOTHING)


def test_good_mapping_with_the_same_match_answers_for_a_broken_one() -> None:
    world = Cluster(mapping_object("qotm"), mapping_object("new", prefix="/qotm/", **BROKEN))

    assert world.shares("qotm") == {"qotm": 100.0}
    assert world.status("new").serves == NOTHING


def test_broken_shadow_takes_nobodys_requests() -> None:
    world = Cluster(mapping_object("copy", shadow=True, **BROKEN))

    assert world.routes() == set()


def test_object_without_a_spec_is_an_error_of_its_own() -> None:
    world = Cluster(mapping_object("fine"), resource("Mapping", "empty", None))

    assert world.routes() == {"fine"}
    assert world.status("empty").reason == "spec: is missing; it holds prefix, service"


def test_object_nested_too_deep_is_an_error_of_its_own() -> None:
    deep: object = "x"
    for _ in range(60):
        deep = [deep]
    world = Cluster(mapping_object(timeout_ms=500), mapping_object("fine"))
    world.put(mapping_object(generation=2, docs=deep))

    assert world.status("qotm").reason == "is nested deeper than 50 levels"
    assert world.route("qotm").targets[0].timeout == 0.5
    assert world.status("fine").state == RUNNING


def test_deleted_mapping_is_gone_with_its_past() -> None:
    world = Cluster(mapping_object())
    world.delete("qotm")
    assert world.routes() == set()

    world.put(mapping_object(uid="another", **BROKEN))
    assert is_unserved(world.now, world.route("qotm"))


def test_mapping_that_was_made_anew_in_one_go_has_no_past() -> None:
    world = Cluster(mapping_object(uid="one"))
    world.put(mapping_object(uid="two", **BROKEN))

    assert is_unserved(world.now, world.route("qotm"))


def test_replica_that_has_just_started_decides_by_the_objects_alone() -> None:
    world = Cluster(mapping_object())
    world.put(mapping_object(generation=2, **BROKEN))

    fresh = world.restarted()
    (status,) = fresh.statuses
    assert (status.state, status.reason) == (ERROR, world.status("qotm").reason)
    assert status.serves == UNAVAILABLE


def test_unchanged_objects_are_read_once() -> None:
    objects = [mapping_object("a"), mapping_object("b")]
    first = combine(files(), objects, Memory())
    again = combine(files(), [objects[0], mapping_object("b")], first.memory)

    (a, b) = (key for key, _ in first.memory.decoded.items())
    assert again.memory.decoded[a][1] is first.memory.decoded[a][1]
    assert again.memory.decoded[b][1] is not first.memory.decoded[b][1]


# --- two in each other's way ----------------------------------------------------------------------


def test_weights_over_100_harm_the_younger() -> None:
    old = mapping_object("old", prefix="/q/", weight=60, created=1)
    new = mapping_object("new", prefix="/q/", weight=60, created=2)
    for world in (Cluster(old, new), Cluster(new, old)):
        assert world.shares("old") == {"old": 100.0}
        assert world.status("old").state == RUNNING
        assert world.status("new").state == ERROR
        assert world.status("new").reason.startswith("spec.weight: of old, new add up to 120")


def test_of_two_made_in_one_second_the_name_decides() -> None:
    objects = [mapping_object(name, prefix="/q/", weight=60) for name in ("b", "a", "c")]
    for first in range(3):
        world = Cluster(*objects[first:], *objects[:first])
        assert {s.key.name for s in world.now.statuses if s.state == ERROR} == {"b", "c"}


def test_canary_that_takes_too_much_keeps_the_share_that_it_had() -> None:
    world = Cluster(
        mapping_object("main", prefix="/q/", weight=90, created=1),
        mapping_object("canary", prefix="/q/", weight=10, created=2),
    )
    world.put(mapping_object("canary", prefix="/q/", weight=30, created=2, generation=2))

    assert world.shares("main") == {"main": 90.0, "canary": 10.0}
    assert world.status("canary").serves == LAST_GOOD

    world.put(mapping_object("main", prefix="/q/", weight=70, created=1, generation=2))
    assert world.shares("main") == {"main": 70.0, "canary": 30.0}
    assert world.now.problems == ()


def test_different_balancers_in_one_group_harm_the_younger() -> None:
    world = Cluster(
        mapping_object("new", prefix="/q/", weight=50, load_balancer=RING, created=2),
        mapping_object("old", prefix="/q/", weight=50, load_balancer=MAGLEV, created=1),
    )

    assert world.shares("old") == {"old": 100.0}
    assert world.cluster("old").load_balancer.policy == "maglev"
    assert world.status("new").reason.startswith("spec.load_balancer: differs from that of old")


def test_group_without_any_weight_stays_as_it_last_was() -> None:
    world = Cluster(mapping_object("a", prefix="/q/", weight=70), mapping_object("b", prefix="/q/"))
    world.put(
        mapping_object("a", prefix="/q/", weight=0, generation=2),
        mapping_object("b", prefix="/q/", weight=0, generation=2),
    )

    assert world.shares("a") == {"a": 70.0, "b": 30.0}
    assert {s.state for s in world.now.statuses} == {ERROR}


def test_group_that_never_had_a_weight_answers_503() -> None:
    world = Cluster(mapping_object(weight=0))

    assert is_unserved(world.now, world.route("qotm"))
    assert world.status("qotm").reason == "spec.weight: of qotm are all 0; right would be 100"


def test_second_shadow_of_a_match_is_refused() -> None:
    world = Cluster(
        mapping_object("main", prefix="/q/", created=1),
        mapping_object("first", prefix="/q/", shadow=True, created=2),
        mapping_object("second", prefix="/q/", shadow=True, created=3),
    )

    assert world.status("first").state == RUNNING
    assert world.status("second").state == ERROR
    assert world.shares("main") == {"main": 100.0}


def test_of_two_with_one_name_the_older_has_it() -> None:
    note = annotated("web", mapping(name="qotm", prefix="/old/"), created=1)
    world = Cluster(mapping_object("qotm", prefix="/new/", created=2), note)

    old, new = sorted(world.now.statuses, key=lambda status: status.state == INACTIVE)
    assert (old.state, old.origin) == (RUNNING, "Service default/web annotation:2")
    assert (new.state, new.serves) == (INACTIVE, UNAVAILABLE)
    assert new.reason == (
        "name: Mapping qotm is already in Service default/web annotation:2; give it another name"
    )


def test_moving_from_annotation_to_resource_interrupts_nothing() -> None:
    note = annotated("web", mapping(name="qotm", prefix="/qotm/", service="qotm"), created=1)
    world = Cluster(note)
    world.put(mapping_object("qotm", created=2))
    assert world.shares("qotm") == {"qotm": 100.0}

    world.delete("web", kind="Service")
    assert world.shares("qotm") == {"qotm": 100.0}
    assert world.status("qotm").state == RUNNING


def test_names_of_different_namespaces_do_not_meet() -> None:
    world = Cluster(
        mapping_object("qotm", prefix="/a/"), mapping_object("qotm", prefix="/b/", namespace="shop")
    )

    assert world.now.problems == ()
    assert world.routes() == {"qotm.default", "qotm.shop"}


# --- files beside ---------------------------------------------------------------------------------


def test_files_and_cluster_work_together_and_files_are_older(tmp_path: Path) -> None:
    path = Written(tmp_path).file(
        mapping(name="file", prefix="/q/", weight=80) + mapping(name="other", prefix="/o/")
    )
    world = Cluster(
        mapping_object("object", prefix="/q/", weight=30), mapping_object(), beside=files(path)
    )

    assert world.routes() == {"file", "other", "qotm"}
    assert world.status("object").state == ERROR
    assert {status.key.name for status in world.now.statuses} == {"object", "qotm"}


def test_resolver_resources_of_a_file_are_resolvers(tmp_path: Path) -> None:
    document = "---\napiVersion: getambassador.io/v2\nkind: KubernetesServiceResolver\nname: dns\n"
    path = Written(tmp_path).file(document + mapping(name="file", resolver="dns"))
    world = Cluster(mapping_object(resolver="dns"), beside=files(path))

    assert world.cluster("file").kube is None
    assert world.cluster("qotm").kube is None
    assert world.now.settings.warnings == ()


def test_module_of_a_file_wins(tmp_path: Path) -> None:
    module = "kind: Module\nname: ambassador\nconfig: {cluster_request_timeout_ms: 700}\n"
    path = Written(tmp_path).file(f"---\napiVersion: ambassador/v1\n{module}")
    spec = {"config": {"cluster_request_timeout_ms": 900}}
    world = Cluster(mapping_object(), resource("Module", "ambassador", spec), beside=files(path))

    assert world.route("qotm").targets[0].timeout == 0.7
    assert world.status("ambassador", "Module").state == INACTIVE


def test_flags_hold_for_the_clusters_mappings_too() -> None:
    beside = files(flags={"service": ["qotm=10.0.0.1:8001"]})
    world = Cluster(mapping_object(), beside=beside)

    assert world.cluster("qotm").targets == (("10.0.0.1", 8001),)
    assert world.now.settings.warnings == ()


# --- Module and resolvers -------------------------------------------------------------------------


def module(created: int = 0, generation: int = 1, **config: object) -> dict[str, Any]:
    return resource(
        "Module", "ambassador", {"config": config}, created=created, generation=generation
    )


def test_module_gives_defaults() -> None:
    world = Cluster(mapping_object(), module(load_balancer=MAGLEV, xff_num_trusted_hops=2))

    assert world.cluster("qotm").load_balancer == LoadBalancer(
        "maglev", HashPolicy("header", "x-user")
    )
    assert world.now.settings.edge.xff_num_trusted_hops == 2


def test_broken_module_keeps_its_last_good_version() -> None:
    world = Cluster(mapping_object(), module(load_balancer=MAGLEV))
    world.put(module(generation=2, load_balancer={"policy": "maglev"}))

    assert world.cluster("qotm").load_balancer.policy == "maglev"
    status = world.status("ambassador", "Module")
    assert (status.state, status.serves, status.served_generation) == (ERROR, LAST_GOOD, 1)
    assert world.status("qotm").state == RUNNING


def test_broken_module_without_a_past_leaves_mappings_with_the_defaults() -> None:
    world = Cluster(mapping_object(), module(load_balancer={"policy": "maglev"}))

    assert world.cluster("qotm").load_balancer == LoadBalancer()
    assert world.status("ambassador", "Module").serves == NOTHING
    assert world.status("qotm").state == RUNNING


def test_module_with_a_resolver_that_is_not_there_is_to_blame_and_not_the_mappings() -> None:
    world = Cluster(mapping_object(), module(load_balancer=MAGLEV))
    world.put(module(generation=2, load_balancer=MAGLEV, resolver="nobody"))

    assert world.status("qotm").state == RUNNING
    assert world.status("ambassador", "Module").serves == LAST_GOOD
    assert "resolver nobody is not there" in world.status("ambassador", "Module").reason


def test_of_two_modules_the_older_holds() -> None:
    young = module(created=5, cluster_request_timeout_ms=900)
    old = module(created=1, cluster_request_timeout_ms=700)
    young["metadata"]["namespace"] = "other"
    world = Cluster(mapping_object(), young, old)

    assert world.route("qotm").targets[0].timeout == 0.7
    assert [s.state for s in world.now.statuses if s.key.kind == "Module"] == [RUNNING, INACTIVE]


def test_resolver_resources_are_resolvers_by_name() -> None:
    world = Cluster(
        resource("KubernetesServiceResolver", "by-dns", {}),
        resource("KubernetesEndpointResolver", "by-pods", {}),
        mapping_object("a", resolver="by-dns"),
        mapping_object("b", resolver="by-pods"),
    )

    assert world.cluster("a").kube is None
    assert world.cluster("b").kube is not None
    assert world.now.problems == ()


def test_resolver_that_goes_breaks_its_mappings_which_stay_as_they_were() -> None:
    world = Cluster(
        resource("KubernetesServiceResolver", "by-dns", {}), mapping_object(resolver="by-dns")
    )
    world.delete("by-dns", kind="KubernetesServiceResolver")

    assert world.cluster("qotm").kube is None
    assert world.status("qotm").serves == LAST_GOOD


def test_consul_is_named_as_not_served() -> None:
    world = Cluster(
        resource("ConsulResolver", "dc1", {"address": "consul:8500", "datacenter": "dc1"}),
        mapping_object(resolver="dc1"),
    )

    assert "resolver dc1 is a ConsulResolver, which is not served" in world.status("qotm").reason
    assert any("ConsulResolver" in warning for warning in world.now.settings.warnings)


# --- the edge -------------------------------------------------------------------------------------


def host(name: str = "shop", action: str = "Route", generation: int = 1) -> dict[str, Any]:
    policy = {"insecure": {"action": action}}
    spec = {"hostname": f"{name}.example.com", "requestPolicy": policy}
    return resource("Host", name, spec, generation=generation)


def test_broken_host_keeps_its_last_good_version_and_harms_no_other() -> None:
    world = Cluster(host("a"), host("b"))
    world.put(host("a", action="Nope", generation=2))

    hosts = world.now.settings.front.hosts
    assert hosts is not None
    assert {(one.hostname, one.insecure) for one in hosts} == {
        ("a.example.com", "Route"),
        ("b.example.com", "Route"),
    }
    assert world.status("a", "Host").serves == LAST_GOOD
    assert world.status("b", "Host").state == RUNNING


def test_broken_host_without_a_past_opens_nothing() -> None:
    world = Cluster(host("a", action="Nope"), mapping_object())

    assert world.now.settings.front.hosts == ()
    status = world.status("a", "Host")
    assert (status.state, status.serves) == (ERROR, NOTHING)
    assert status.reason.count("must be one of") == 1


def test_broken_listener_and_context_harm_themselves() -> None:
    world = Cluster(
        resource("Listener", "l", {"port": "x"}),
        resource("TLSContext", "t", {"hosts": ["x"], "min_tls_version": "v9"}),
        host("a"),
        mapping_object(),
    )

    states = {status.key.kind: status.state for status in world.now.statuses}
    assert states == {"Listener": ERROR, "TLSContext": ERROR, "Host": RUNNING, "Mapping": RUNNING}


# --- whose they are -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "ours"),
    [(None, "default"), ("default", "default"), ("blue", "blue"), (["red", "blue"], "blue")],
)
def test_objects_with_our_id_are_ours(said: object, ours: str) -> None:
    beside = files(environ={"AMBASSADOR_ID": ours})
    world = Cluster(mapping_object(ambassador_id=said), beside=beside)

    assert world.routes() == {"qotm"}
    assert world.now.settings.warnings == ()


@pytest.mark.parametrize(
    ("said", "ours"), [(None, "blue"), ("blue", "default"), (["red", "green"], "blue")]
)
def test_objects_with_another_id_are_not_ours_not_even_when_broken(said: object, ours: str) -> None:
    beside = files(flags={"ambassador-id": [ours]})
    world = Cluster(
        mapping_object(ambassador_id=said),
        mapping_object("broken", ambassador_id=said, **BROKEN),
        annotated("web", mapping(name="noted") + (f"ambassador_id: {said}\n" if said else "")),
        beside=beside,
    )

    assert world.routes() == set()
    assert world.now.statuses == ()
    assert world.now.problems == ()


# --- annotations ----------------------------------------------------------------------------------


def test_annotation_of_the_article_is_a_mapping_of_its_services_namespace() -> None:
    text = (DATA / "service_annotation.yaml").read_text().partition("|\n")[2].partition("spec:")[0]
    world = Cluster(annotated("qotm", text, namespace="shop"))

    status = world.status("qotm_mapping")
    assert (status.key.namespace, status.state) == ("shop", RUNNING)
    assert world.cluster("qotm_mapping").kube is not None
    assert world.cluster("qotm_mapping").kube.namespace == "shop"  # type: ignore[union-attr]
    assert [w for w in status.warnings if "unknown_key: is unknown" in w]


def test_annotation_holds_several_documents_and_each_stands_alone() -> None:
    text = mapping(name="a", prefix="/a/") + mapping(name="b", prefix="/b/")
    world = Cluster(annotated("web", text))
    broken = mapping(name="a", prefix="/a/", weight=700) + mapping(name="b", prefix="/b2/")
    world.put(annotated("web", broken))

    assert world.status("a").serves == LAST_GOOD
    assert world.status("a").reason.startswith("7: weight: must be a number")
    assert world.route("b").match.path == "/b2/"


def test_annotation_that_is_no_yaml_keeps_all_that_it_said() -> None:
    text = mapping(name="a", prefix="/a/") + mapping(name="b", prefix="/b/")
    world = Cluster(annotated("web", text), mapping_object())
    world.put(annotated("web", "a: [\n"))

    assert world.routes() == {"a", "b", "qotm"}
    assert world.status("web", "Service").state == ERROR
    reason = world.status("web", "Service").reason
    assert reason.startswith("Service default/web annotation:2: is not YAML")
    assert world.status("qotm").state == RUNNING


def test_annotation_of_one_line_has_a_first_line() -> None:
    world = Cluster(annotated("web", "just text"))

    reason = world.status("web", "Service").reason
    assert reason.startswith("Service default/web annotation:1: a document must be a mapping")


def test_document_without_a_kind_is_told_of_at_its_service() -> None:
    world = Cluster(annotated("web", "prefix: /a/\n" + mapping(name="b", prefix="/b/")))

    assert world.routes() == {"b"}
    status = world.status("web", "Service")
    assert (status.state, status.serves) == (ERROR, NOTHING)
    assert status.reason.startswith("1: kind: is missing; right would be Mapping")
    assert status.origin == "Service default/web annotation:1"


def test_document_that_left_its_annotation_is_gone() -> None:
    world = Cluster(annotated("web", mapping(name="a") + mapping(name="b", prefix="/b/")))
    world.put(annotated("web", mapping(name="a")))

    assert world.routes() == {"a"}


def test_twins_in_one_annotation_leave_the_first() -> None:
    text = mapping(name="a", prefix="/a/") + mapping(name="a", prefix="/b/")
    world = Cluster(annotated("web", text))

    assert world.status("a").state == RUNNING
    assert world.status("a #2").state == ERROR
    assert not is_unserved(
        world.now, next(r for r in world.now.settings.routes if r.match.path == "/a/")
    )


def test_ingresses_have_annotations_too_and_a_missing_version_is_told() -> None:
    world = Cluster(
        annotated("web", "kind: Mapping\nname: a\nprefix: /a/\nservice: a\n", kind="Ingress")
    )

    assert world.routes() == {"a"}
    (warning,) = world.status("a").warnings
    assert warning == (
        "Ingress default/web annotation:1: apiVersion: is missing, getambassador.io/v3alpha1 is taken"
    )


def test_our_own_process_document_is_not_for_annotations() -> None:
    world = Cluster(annotated("web", "kind: StickyProxy\nworkers: 7\n"), mapping_object())

    assert world.now.settings.process.workers == 1
    assert any("kind StickyProxy is for files" in w for w in world.now.settings.warnings)


def test_service_without_an_annotation_says_nothing() -> None:
    found = annotated("web", "")
    del found["metadata"]["annotations"]
    world = Cluster(found, mapping_object())

    assert world.now.settings.warnings == ()
    assert [status.key.name for status in world.now.statuses] == ["qotm"]


# --- versions and spellings -----------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v2", "v3alpha1"])
def test_every_version_is_read(version: str) -> None:
    world = Cluster(mapping_object(version=version, host="a.example.com", headers={"x-a": True}))

    match = world.route("qotm").match
    assert match == RouteMatch(
        "/qotm/", hostname="a.example.com", headers=(HeaderMatch("x-a", None),)
    )
    assert world.now.settings.warnings == ()


def test_what_conversion_leaves_in_an_object_is_read_as_it_was_meant() -> None:
    world = Cluster(
        mapping_object(
            service="https://qotm",
            headers={"x-version": "2"},
            v2BoolHeaders=["x-there"],
            v2BoolQueryParameters=["debug"],
            v2ExplicitTLS={"tls": "bool:true", "serviceScheme": ""},
            add_request_headers={"x-one": {"value": "1", "v2Representation": "string"}},
        )
    )

    found = world.route("qotm")
    assert found.match.headers == (HeaderMatch("x-there", None), HeaderMatch("x-version", "2"))
    assert found.match.query_parameters == (HeaderMatch("debug", None),)
    assert [one.name for one in found.targets[0].add_request_headers] == ["x-one"]
    assert not [w for w in world.now.settings.warnings if "unknown" in w or "no effect" in w]


def test_v2_names_of_v3_fields_are_those_fields() -> None:
    world = Cluster(mapping_object(version="v2", v3StatsName="quotes"))

    assert world.cluster("qotm").name == "quotes"
    assert world.now.settings.warnings == ()


def test_unknown_fields_are_warned_about_by_name() -> None:
    world = Cluster(mapping_object(timeot_ms=5, dns_type="x"))

    assert world.status("qotm").state == RUNNING
    assert set(world.status("qotm").warnings) == {
        f"Mapping default/qotm: spec.{said}"
        for said in (
            "timeot_ms: is unknown and has no effect; did you mean timeout_ms?",
            "dns_type: is known and has no effect in this version",
        )
    }


def test_version_that_nobody_knows_is_an_error() -> None:
    world = Cluster(mapping_object(version="v9"))

    (reason,) = reasons(world.now)
    assert reason.startswith("apiVersion: getambassador.io/v9 is no version that we know; right")


# --- canaries -------------------------------------------------------------------------------------


def test_weighted_canary_shares_one_route_and_one_policy() -> None:
    world = Cluster(
        mapping_object("main", prefix="/q/", load_balancer=MAGLEV),
        mapping_object("canary", prefix="/q/", weight=20),
    )

    assert world.shares("main") == {"canary": 20.0, "main": 80.0}
    policies = {
        cluster_named(world.now, target.cluster).load_balancer.policy
        for target in world.route("canary").targets
    }
    assert policies == {"maglev"}
