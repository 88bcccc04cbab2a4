"""Slices to members: the merge rules of kube-proxy, and what is odd in the wild."""

from __future__ import annotations

from typing import Any

import pytest

from stickyproxy.control.discovery.kube_members import (
    EndpointStore,
    Members,
    Resolved,
    ServiceStore,
    port_name,
    resolve,
)
from stickyproxy.control.discovery.kube_slices import (
    Object,
    ServiceKey,
    ServicePorts,
    parse_endpoints,
    parse_service,
    parse_slice,
)
from stickyproxy.model import ServiceRef
from support.kube_objects import endpoint, endpoints_of, service, slice_of

QOTM = ServiceKey("default", "qotm")
WANTED = ServiceRef("default", "qotm", 80)


def wanted(port: int | str | None) -> ServiceRef:
    return ServiceRef("default", "qotm", port)


def store_of(*objects: Object) -> EndpointStore:
    store = EndpointStore(parse_slice)
    store.replace(map(store.read, objects))
    return store


def resolved(
    store: EndpointStore, wanted: ServiceRef = WANTED, given: Object | None = None, **more: Any
) -> Resolved:
    ports = parse_service(given or service("qotm"))
    return resolve(wanted, ports, store.of(ServiceKey(wanted.namespace, wanted.service)), **more)


def pickable(store: EndpointStore, **more: Any) -> list[str]:
    return keys(resolved(store, **more).members)


def keys(members: Members) -> list[str]:
    return [one.key for one in members.pickable]


def test_slices_of_a_service_are_one_sorted_union() -> None:
    store = store_of(slice_of("qotm", "b", "10.0.0.3"), slice_of("qotm", "a", "10.0.0.2"))
    assert pickable(store) == ["10.0.0.2:8080", "10.0.0.3:8080"]
    (first, _) = resolved(store).members.pickable
    assert first.addresses == (("10.0.0.2", 8080),)
    assert first.host == "qotm.default"
    assert first.weight == 1


def test_pod_is_named_and_a_target_that_is_no_pod_is_not() -> None:
    other = endpoint("10.0.0.3") | {"targetRef": {"kind": "Node", "name": "n1"}}
    store = store_of(slice_of("qotm", "a", endpoint("10.0.0.2", pod="qotm-x"), other))
    assert [one.pod for one in resolved(store).members.pickable] == ["qotm-x", None]


def test_null_lists_are_empty_lists() -> None:
    empty = slice_of("qotm", "a", ports=())
    assert empty["endpoints"] is None
    assert empty["ports"] is None
    assert resolved(store_of(empty)) == Resolved(Members())
    bare: Object = {"metadata": {"name": "a", "namespace": "default", "labels": None}}
    assert resolved(store_of(bare)) == Resolved(Members())
    assert parse_endpoints({"metadata": {"name": "q"}, "subsets": None}) == ()
    assert parse_service({"metadata": {"name": "q"}, "spec": {"ports": None}}).ports == ()


@pytest.mark.parametrize(
    ("conditions", "where"),
    [
        ({}, "pickable"),
        ({"ready": None, "serving": None, "terminating": None}, "pickable"),
        ({"ready": True, "serving": True}, "pickable"),
        ({"ready": False}, "resting"),
        ({"ready": False, "serving": True}, "resting honoured"),
        ({"ready": False, "serving": True, "terminating": True}, "honoured"),
        ({"ready": True, "serving": True, "terminating": True}, "honoured"),
        ({"ready": False, "serving": False, "terminating": True}, ""),
    ],
)
def test_conditions_decide_between_new_sessions_and_existing_ones(
    conditions: dict[str, bool | None], where: str
) -> None:
    odd = {"addresses": ["10.0.0.9"], "conditions": conditions}
    members = resolved(store_of(slice_of("qotm", "a", "10.0.0.1", odd))).members
    key = "10.0.0.9:8080"
    assert (key in keys(members)) == (where == "pickable")
    assert (key in [one.key for one in members.resting]) == ("resting" in where)
    assert (key in members.honoured) == (where not in {"", "resting"})


def test_with_none_ready_those_that_serve_while_leaving_are_picked_and_no_others() -> None:
    leaving = endpoint("10.0.0.1", ready=False, serving=True, terminating=True)
    gone = endpoint("10.0.0.2", ready=False, serving=False, terminating=True)
    starting = endpoint("10.0.0.3", ready=False)
    assert pickable(store_of(slice_of("qotm", "a", leaving, gone, starting))) == ["10.0.0.1:8080"]
    store = store_of(slice_of("qotm", "a", leaving, gone, "10.0.0.4"))
    assert pickable(store) == ["10.0.0.4:8080"]


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_endpoint_in_two_slices_counts_once_and_its_best_state_holds(
    names: tuple[str, str],
) -> None:
    tired = endpoint("10.0.0.1", ready=False, serving=True, terminating=True, pod="old")
    fresh = endpoint("10.0.0.1", pod="new")
    store = store_of(slice_of("qotm", names[0], tired), slice_of("qotm", names[1], fresh))
    members = resolved(store).members
    assert [(one.key, one.pod) for one in members.pickable] == [("10.0.0.1:8080", "new")]


def test_deleted_slice_takes_only_what_no_other_says() -> None:
    """linkerd2#10370: the endpoint that had moved was lost with the slice it had left."""
    old = slice_of("qotm", "a", "10.0.0.1", "10.0.0.2")
    store = store_of(old)
    assert store.put(store.read(slice_of("qotm", "b", "10.0.0.2"))) == {QOTM}
    assert store.delete(store.read(old)) == {QOTM}
    assert pickable(store) == ["10.0.0.2:8080"]


def test_endpoint_that_moves_through_neither_slice_comes_back() -> None:
    store = store_of(slice_of("qotm", "a", "10.0.0.1", "10.0.0.2"), slice_of("qotm", "b"))
    store.put(store.read(slice_of("qotm", "a", "10.0.0.1")))
    assert pickable(store) == ["10.0.0.1:8080"]
    store.put(store.read(slice_of("qotm", "b", "10.0.0.2")))
    assert pickable(store) == ["10.0.0.1:8080", "10.0.0.2:8080"]


def test_slice_that_changes_its_service_leaves_the_old_one() -> None:
    store = store_of(slice_of("qotm", "a", "10.0.0.1"))
    assert store.put(store.read(slice_of("other", "a", "10.0.0.1"))) == {
        QOTM,
        ServiceKey("default", "other"),
    }
    assert pickable(store) == []
    assert keys(resolved(store, ServiceRef("default", "other", 80)).members) == ["10.0.0.1:8080"]


def test_slice_without_a_service_is_nobodys() -> None:
    orphan = slice_of("qotm", "a", "10.0.0.1")
    orphan["metadata"]["labels"] = {}
    assert store_of(orphan).of(QOTM) == []


def test_same_object_again_touches_nothing() -> None:
    one = slice_of("qotm", "a", "10.0.0.1")
    store = store_of(one)
    assert store.put(store.read(one)) == set()
    assert store.replace(map(store.read, [one])) == set()
    services = ServiceStore()
    assert services.put(services.read(service("qotm"))) == {QOTM}
    assert services.put(services.read(service("qotm"))) == set()


def test_complete_list_takes_away_what_is_not_in_it() -> None:
    store = store_of(slice_of("qotm", "a", "10.0.0.1"), slice_of("other", "b", "10.0.0.2"))
    listed = [slice_of("other", "b", "10.0.0.2"), slice_of("third", "c", "10.0.0.3")]
    touched = store.replace(map(store.read, listed))
    assert touched == {QOTM, ServiceKey("default", "third")}
    assert pickable(store) == []


def test_same_names_in_two_namespaces_are_two_services() -> None:
    store = store_of(
        slice_of("qotm", "a", "10.0.0.1"), slice_of("qotm", "a", "10.0.0.2", namespace="prod")
    )
    assert pickable(store) == ["10.0.0.1:8080"]
    assert keys(resolved(store, ServiceRef("prod", "qotm", 80)).members) == ["10.0.0.2:8080"]


# --- ports ---


def test_port_is_found_by_number_name_or_being_the_only_one() -> None:
    two = ServicePorts((("grpc", 50051), ("http", 80)))
    assert port_name(wanted(50051), two) == "grpc"
    assert port_name(wanted("http"), two) == "http"
    assert port_name(wanted(81), two) is None


def test_without_a_port_the_only_one_is_meant_and_of_several_the_protocols_own() -> None:
    web = ServicePorts((("http", 80), ("https", 443)))
    assert port_name(wanted(None), ServicePorts((("", 8080),))) == ""
    assert port_name(wanted(None), web) == "http"
    assert port_name(ServiceRef("default", "qotm", None, 443), web) == "https"
    assert port_name(wanted(None), ServicePorts((("a", 1), ("b", 2)))) is None


def test_named_port_may_be_another_number_on_each_pod() -> None:
    given = service("qotm", ("grpc", 50051), ("http", 80))
    store = store_of(
        slice_of("qotm", "a", "10.0.0.1", ports=(("grpc", 9000), ("http", 8080))),
        slice_of("qotm", "b", "10.0.0.2", ports=(("grpc", 9001),)),
        slice_of("qotm", "c", "10.0.0.3", ports=(("http", 8080),)),
    )
    wanted = ServiceRef("default", "qotm", 50051)
    assert keys(resolved(store, wanted, given).members) == ["10.0.0.1:9000", "10.0.0.2:9001"]


def test_port_of_another_protocol_or_without_a_number_is_none() -> None:
    odd = slice_of("qotm", "a", "10.0.0.1", ports=(("", None),))
    found = resolved(store_of(odd))
    assert found.members == Members()
    assert "without a number" in found.problem
    udp = slice_of("qotm", "a", "10.0.0.1")
    udp["ports"][0]["protocol"] = "UDP"
    assert resolved(store_of(udp)) == Resolved(Members())


def test_what_cannot_be_resolved_says_why() -> None:
    slices = store_of(slice_of("qotm", "a", "10.0.0.1")).of(QOTM)
    assert "no Service qotm" in resolve(WANTED, None, slices).problem
    two = parse_service(service("qotm", ("a", 1), ("b", 2)))
    assert resolve(WANTED, two, slices).problem.endswith("no port 80; its TCP ports: 1 a, 2 b")
    either = ServiceRef("default", "qotm")
    assert "has no port 80" in resolve(either, two, slices).problem
    external = parse_service(service("qotm", type="ExternalName"))
    assert "ExternalName" in resolve(WANTED, external, slices).problem
    fqdn = slice_of("qotm", "a", "db.example.com", family="FQDN")
    assert "FQDN" in resolved(store_of(fqdn)).problem


# --- families ---


def test_of_two_families_one_is_taken_so_that_no_pod_counts_twice() -> None:
    store = store_of(
        slice_of("qotm", "a", "10.0.0.1"), slice_of("qotm", "b", "fd00::1", family="IPv6")
    )
    assert pickable(store) == ["10.0.0.1:8080"]
    six_first = service("qotm", ipFamilies=["IPv6", "IPv4"])
    assert keys(resolved(store, given=six_first).members) == ["[fd00::1]:8080"]
    assert keys(resolved(store, family="IPv6").members) == ["[fd00::1]:8080"]


def test_the_other_family_serves_where_the_wished_one_has_nobody() -> None:
    store = store_of(slice_of("qotm", "a"), slice_of("qotm", "b", "fd00::1", family="IPv6"))
    assert pickable(store) == ["[fd00::1]:8080"]


# --- old clusters, broken objects ---


def test_endpoints_of_an_old_cluster_say_ready_and_not_ready() -> None:
    store = EndpointStore(parse_endpoints)
    mixed = endpoints_of("qotm", "10.0.0.1", "fd00::1", notReadyAddresses=[{"ip": "10.0.0.2"}])
    store.replace(map(store.read, [mixed]))
    members = resolved(store).members
    assert keys(members) == ["10.0.0.1:8080"]
    assert [one.key for one in members.resting] == ["10.0.0.2:8080"]
    assert members.honoured == {"10.0.0.1:8080"}


@pytest.mark.parametrize(
    "broken",
    [{"endpoints": 7}, {"ports": [{"port": "x"}]}, {"endpoints": ["10.0.0.9"]}, {"ports": 1}],
)
def test_object_that_makes_no_sense_keeps_what_it_last_said(
    broken: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    store = store_of(slice_of("qotm", "a", "10.0.0.1"), slice_of("qotm", "b", "10.0.0.2"))
    assert store.put(store.read(slice_of("qotm", "a", "10.0.0.1") | broken)) == set()
    store.replace(
        map(store.read, [slice_of("qotm", "a") | broken, slice_of("qotm", "b", "10.0.0.3")])
    )
    assert pickable(store) == ["10.0.0.1:8080", "10.0.0.3:8080"]
    assert "default.a" in capfd.readouterr().err
    services = ServiceStore()
    services.put(services.read(service("qotm")))
    services.replace(map(services.read, [service("qotm") | {"spec": []} | {"spec": {"ports": 3}}]))
    assert services.get(QOTM) == ServicePorts((("", 80),))


def test_address_that_is_none_is_passed_over() -> None:
    odd = slice_of("qotm", "a", "10.0.0.1", "nonsense", {"addresses": []}, {"addresses": None})
    assert pickable(store_of(odd)) == ["10.0.0.1:8080"]
