"""A Snapshot that travels is the same Snapshot, and what did not change is the same object."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stickyproxy.control.workers.bus import Unpacker, packed
from stickyproxy.control.workers.publication import SAME, Publication, Publisher, apply, difference
from stickyproxy.edge import Front, HostRule, Pem, ServerTls
from stickyproxy.model import (
    Cluster,
    ClusterSpec,
    Endpoint,
    HashPolicy,
    LoadBalancer,
    Route,
    RouteMatch,
    Snapshot,
    Target,
    UpstreamProtocol,
)
from stickyproxy.policy.hosts import hosts_of
from stickyproxy.policy.maglev import MaglevTable
from stickyproxy.policy.ring_hash import RingHash
from stickyproxy.policy.routes import Routes
from stickyproxy.rules import EdgePolicy

ENDPOINTS = tuple(Endpoint(f"10.0.0.{n}:80", ((f"10.0.0.{n}", 80),)) for n in range(1, 8))
WEIGHTED = [(endpoint.key, 1.0) for endpoint in ENDPOINTS]
HEAD = [(b":method", b"GET"), (b":path", b"/shop/cart"), (b":authority", b"shop.test")]


def cluster(name: str, policy: str = "round_robin") -> Cluster:
    keyed = HashPolicy("header", "x-user") if policy in ("maglev", "ring_hash") else None
    spec = ClusterSpec(
        name, name, UpstreamProtocol.H2C, (), load_balancer=LoadBalancer(policy, keyed)
    )
    return Cluster(spec, ENDPOINTS)


def snapshot() -> Snapshot:
    routes = Routes(
        [
            Route("all", RouteMatch("/"), (Target("all", "plain"),)),
            Route("shop", RouteMatch("/sh.p/.*", "regex"), (Target("shop", "maglev"),)),
        ]
    )
    clusters = {
        "plain": cluster("plain"),
        "maglev": replace(cluster("maglev", "maglev"), table=MaglevTable.build(WEIGHTED, 251)),
        "ring": replace(cluster("ring", "ring_hash"), table=RingHash.build(WEIGHTED)),
        "least": cluster("least", "least_request"),
    }
    edge = EdgePolicy()
    front = Front(
        tls=(ServerTls("shop", ("*",), Pem(b"chain"), Pem(b"key")),),
        hosts=(HostRule("shop", "shop.test", "Route"),),
    )
    return Snapshot(3, routes, clusters, edge, hosts_of(front, routes, edge))


def sent(publication: Publication) -> Publication:
    (arrived,) = Unpacker().feed(packed(publication))
    assert isinstance(arrived, Publication)
    return arrived


def arrived(one: Snapshot) -> Snapshot:
    return apply(None, sent(difference(None, one)))


def test_a_whole_snapshot_arrives_whole() -> None:
    here, there = snapshot(), arrived(snapshot())
    assert there.version == 3
    assert there.clusters.keys() == here.clusters.keys()
    assert [(r.name, r.match) for r in there.routes.routes] == [
        (r.name, r.match) for r in here.routes.routes
    ]
    route = there.routes.match(HEAD)
    assert route is not None
    assert route.name == "shop"
    assert there.edge == here.edge


def test_tables_answer_there_as_they_do_here() -> None:
    here, there = snapshot(), arrived(snapshot())
    for name in ("maglev", "ring"):
        one, other = here.clusters[name].table, there.clusters[name].table
        assert one is not None
        assert other is not None
        hashes = range(0, 2**64, 2**56 + 12345)
        assert [one.lookup(h) for h in hashes] == [other.lookup(h) for h in hashes]


def test_hosts_are_compiled_of_the_routes_that_are_there() -> None:
    there = arrived(snapshot())
    hosts = there.hosts
    assert hosts is not None
    found = hosts._binds._site(b"shop.test")  # type: ignore[attr-defined]
    assert found.routes is there.routes


def test_no_key_travels_with_a_snapshot() -> None:
    assert b"chain" not in packed(difference(None, snapshot()))


def test_what_did_not_change_stays_the_same_object_there() -> None:
    """Plans and pools are known by it."""
    before = snapshot()
    resting = replace(before.clusters["maglev"], inadmissible=frozenset({"10.0.0.1:80"}))
    now = replace(before, version=4, clusters={**before.clusters, "maglev": resting})
    old = arrived(before)
    publication = sent(difference(before, now))
    fresh = apply(old, publication)
    assert (publication.routes, publication.edge, publication.hosts) == (SAME, SAME, SAME)
    assert fresh.routes is old.routes
    assert fresh.hosts is old.hosts
    assert fresh.clusters["plain"] is old.clusters["plain"]
    assert fresh.clusters["maglev"].inadmissible == {"10.0.0.1:80"}
    assert fresh.clusters["maglev"].table is old.clusters["maglev"].table
    assert fresh.clusters["maglev"].endpoints is old.clusters["maglev"].endpoints
    assert old.clusters["maglev"].inadmissible == frozenset()  # it is a value


def test_a_pod_that_rests_is_a_small_message() -> None:
    before = snapshot()
    resting = replace(before.clusters["maglev"], inadmissible=frozenset({"10.0.0.1:80"}))
    now = replace(before, version=4, clusters={**before.clusters, "maglev": resting})
    assert len(packed(difference(before, now))) < len(packed(difference(None, now))) / 3


def test_clusters_come_and_go_and_change_kind() -> None:
    before = snapshot()
    kept = {name: one for name, one in before.clusters.items() if name != "ring"}
    now = replace(
        before,
        version=4,
        clusters={**kept, "new": cluster("new"), "maglev": cluster("maglev")},
        hosts=None,
    )
    fresh = apply(arrived(before), sent(difference(before, now)))
    assert fresh.clusters.keys() == now.clusters.keys()
    assert fresh.clusters["maglev"].table is None
    assert fresh.hosts is None


def test_other_routes_are_other_routes_there() -> None:
    before = snapshot()
    now = replace(before, version=4, routes=Routes([]))
    fresh = apply(arrived(before), sent(difference(before, now)))
    assert list(fresh.routes.routes) == []


# --- rows of shared memory ------------------------------------------------------------------------


def test_only_endpoints_under_least_request_have_rows() -> None:
    publication = Publisher().publish(snapshot())
    assert publication.rows.keys() == {"least"}
    rows = publication.rows["least"]
    assert rows.keys() == {endpoint.key for endpoint in ENDPOINTS}
    assert len(set(rows.values())) == len(ENDPOINTS)


def test_who_begins_later_has_the_same_rows() -> None:
    publisher, before = Publisher(), snapshot()
    first = publisher.publish(before)
    less = replace(before.clusters["least"], endpoints=ENDPOINTS[1:])
    now = replace(before, version=4, clusters={**before.clusters, "least": less})
    second = publisher.publish(now)
    assert second.rows == {
        "least": {key: row for key, row in first.rows["least"].items() if key != "10.0.0.1:80"}
    }
    assert publisher.whole().rows == second.rows
    assert publisher.publish(replace(now, version=5)).rows == {}


def test_a_cluster_that_is_no_more_under_least_request_gives_its_rows_back() -> None:
    publisher, before = Publisher(), snapshot()
    publisher.publish(before)
    now = replace(before, clusters={**before.clusters, "least": cluster("least")})
    assert publisher.publish(now).rows == {"least": {}}
    gone = {name: one for name, one in now.clusters.items() if name != "least"}
    assert publisher.publish(replace(now, clusters=gone)).rows == {}


def test_nothing_is_whole_before_the_first_snapshot() -> None:
    with pytest.raises(RuntimeError):
        Publisher().whole()
