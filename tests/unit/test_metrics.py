"""Counting, adding up over processes, and the text that Prometheus reads."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from stickyproxy import exposition
from stickyproxy.counters import ClusterStats, WatchStats
from stickyproxy.metrics import CODE_NAMES, METHOD_CAP, NO_ROUTE, OTHER, Metrics

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What a scraper sees; a series that comes twice fails, as it would there."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in text_string_to_metric_families(exposition.render(metrics).decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, frozenset(labels.items())))


def busy() -> Metrics:
    metrics = Metrics()
    call = metrics.method("greeter", b"/helloworld.Greeter/SayHello", True)
    call.started()
    call.finished(0, 200, 0.004, 1, 1, 0.002)
    stream = metrics.method("greeter", b"/helloworld.Greeter/Watch", True)
    stream.started()
    stream.finished(14, 200, 1.5, 1, 7)
    metrics.method("web", b"/index.html", False).finished(None, 503, 0.2)
    metrics.route("greeter").looked_up(("header", "hit"))
    metrics.cluster("greeters").upstream_rq_total += 2
    metrics.cluster("greeters").responded(200)
    metrics.endpoint("greeters", "10.0.0.1:80").rq_active += 1
    metrics.goaway("upstream_rx", 11)
    metrics.rst_stream("downstream_rx", 8)
    metrics.retried("refused")
    metrics.repinned("unhealthy")
    metrics.process.downstream_connections += 3
    metrics.process.config_loaded(True, 1_700_000_000.0)
    return metrics


def test_a_call_is_counted_under_the_names_of_the_grpc_libraries() -> None:
    metrics = busy()
    labels = {"grpc_service": "helloworld.Greeter", "grpc_method": "SayHello", "grpc_type": "unary"}

    assert value(metrics, "grpc_server_started_total", **labels) == 1
    assert value(metrics, "grpc_server_handled_total", **labels, grpc_code="OK") == 1
    assert value(metrics, "grpc_server_msg_received_total", **labels) == 1
    assert value(metrics, "grpc_server_handling_seconds_count", **labels) == 1
    assert value(metrics, "grpc_server_handling_seconds_sum", **labels) == 0.004


def test_a_method_is_of_the_widest_type_it_ever_showed() -> None:
    metrics = Metrics()
    method = metrics.method("r", b"/a.B/C", True)
    kinds = [method.grpc_type]
    for received, sent in [(1, 1), (1, 2), (1, 1), (2, 1), (1, 1)]:
        method.finished(0, 200, 0.0, received, sent)
        kinds.append(method.grpc_type)

    assert kinds == ["unary"] * 2 + ["server_stream"] * 2 + ["bidi_stream"] * 2


def test_every_grpc_status_has_the_name_that_panels_ask_for() -> None:
    assert [CODE_NAMES[n] for n in (0, 1, 4, 9, 11, 14, 16)] == [
        "OK",
        "Canceled",
        "DeadlineExceeded",
        "FailedPrecondition",
        "OutOfRange",
        "Unavailable",
        "Unauthenticated",
    ]
    assert len(CODE_NAMES) == 17


def test_statuses_that_no_table_knows_add_no_series() -> None:
    metrics = Metrics()
    method = metrics.method("r", b"/a.B/C", True)
    for status in (17, -1, 2**40, 255):
        method.finished(status, 200, 0.0)
    for http in (-5, 1000, 2**40):
        method.finished(0, http, 0.0)

    assert len(method.answers) == 2
    assert value(metrics, "response_total", route="r", classification="failure", status_code="200",
                 grpc_status="2") == 4  # fmt: skip


def test_a_servers_fault_is_a_failure_and_a_callers_is_none() -> None:
    told = {
        (status, http): exposition.classification(http, status)
        for status, http in [(0, 200), (1, 200), (5, 200), (14, 200), (None, 404), (None, 503)]
    }

    assert told == {
        (0, 200): "success",
        (1, 200): "success",
        (5, 200): "success",
        (14, 200): "failure",
        (None, 404): "success",
        (None, 503): "failure",
    }
    assert exposition.classification(0, None) == "failure"


def test_latency_is_time_to_the_first_byte_where_there_was_one() -> None:
    metrics = Metrics()
    method = metrics.method("r", b"", False)
    method.finished(None, 200, 9.0, 0, 0, 0.004)
    method.finished(None, 204, 0.030)

    assert value(metrics, "response_latency_ms_sum", route="r") == 34
    assert value(metrics, "response_latency_ms_bucket", route="r", le="4") == 1
    assert value(metrics, "response_latency_ms_bucket", route="r", le="30") == 2
    assert value(metrics, "response_latency_ms_bucket", route="r", le="+Inf") == 2


def test_a_flood_of_method_names_stays_within_the_cap() -> None:
    metrics = Metrics()
    for n in range(METHOD_CAP + 500):
        metrics.method(f"r{n % 3}", b"/a.B/M%d" % n, True).started()

    slots = [slot for route in metrics.routes.values() for slot in route.methods.values()]
    assert len(slots) == METHOD_CAP + 3
    assert sum(slot.requests for slot in slots if slot.service == OTHER) == 500
    labels = {"grpc_service": OTHER, "grpc_method": OTHER, "grpc_type": "unary"}
    assert value(metrics, "grpc_server_started_total", **labels) == 500


def test_a_requests_path_becomes_no_label_without_a_route() -> None:
    metrics = Metrics()
    metrics.method(NO_ROUTE, b"/a.B/C", True).started()

    assert b"a.B" not in exposition.render(metrics)


@given(st.binary(max_size=300), st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_no_path_and_no_name_breaks_the_text(path: bytes, name: str) -> None:
    metrics = Metrics()
    metrics.method(name, path, True).started()
    metrics.method("other", b"/_OTHER/_OTHER", True).started()
    metrics.cluster(name).upstream_rq_total += 1

    assert value(metrics, "upstream_rq_total", cluster=name) == 1


def test_an_overlong_method_is_no_label() -> None:
    metrics = Metrics()

    assert metrics.method("r", b"/" + b"a" * 60_000 + b"/b", True).service == OTHER
    assert metrics.method("r", b"/a/b?token=x", True).service == OTHER


def test_the_same_method_on_two_routes_is_one_series() -> None:
    metrics = Metrics()
    for route in ("stable", "canary"):
        metrics.method(route, b"/a.B/C", True).started()

    labels = {"grpc_service": "a.B", "grpc_method": "C", "grpc_type": "unary"}
    assert value(metrics, "grpc_server_started_total", **labels) == 2


def test_processes_add_up_through_json() -> None:
    one, two = busy(), busy()
    part = json.loads(json.dumps(one.as_dict()))
    whole = Metrics.from_dicts(part, two.as_dict())

    before, after = samples(one), samples(whole)
    assert before.keys() == after.keys()
    levels = ("stickyproxy_config_last", "stickyproxy_build_info")
    for key, n in before.items():
        assert after[key] == (n if key[0].startswith(levels) else 2 * n), key


def test_levels_are_not_added_up() -> None:
    parts = []
    for successful, draining, members in [(True, 0, 3), (False, 1, 2)]:
        metrics = Metrics()
        metrics.process.config_loaded(successful, 5.0)
        metrics.process.drain_state = draining
        metrics.cluster("c").membership_total = members
        parts.append(metrics.as_dict())
    whole = Metrics.from_dicts(*parts)

    assert whole.process.config_last_reload_successful == 0
    assert whole.process.drain_state == 1
    assert whole.cluster("c").membership_total == 3


def test_the_cap_on_methods_holds_for_the_sum() -> None:
    parts = []
    for worker in range(3):
        metrics = Metrics()
        for n in range(METHOD_CAP):
            metrics.method("r", b"/w%d.B/M%d" % (worker, n), True).started()
        parts.append(metrics.as_dict())
    whole = Metrics.from_dicts(*parts)

    assert len(whole.routes["r"].methods) == METHOD_CAP + 1
    assert sum(slot.requests for slot in whole.routes["r"].methods.values()) == 3 * METHOD_CAP


def test_values_of_a_newer_version_are_left_out() -> None:
    metrics = Metrics()
    metrics.process.add({"downstream_connections": 2, "from_the_future": 7})

    assert metrics.process.downstream_connections == 2


def test_an_endpoint_is_forgotten_only_when_it_is_gone_and_unused() -> None:
    metrics = Metrics()
    for key in ("kept:1", "gone:1", "busy:1"):
        metrics.endpoint("c", key)
    metrics.endpoint("c", "busy:1").rq_active = 1
    metrics.endpoint("removed cluster", "x:1")
    metrics.prune({"c": {"kept:1"}})

    assert {key for _, key in metrics.endpoints} == {"kept:1", "busy:1"}


def test_only_the_endpoints_of_the_clusters_that_changed_are_looked_at() -> None:
    metrics = Metrics()
    metrics.endpoint("changed", "gone:1")
    metrics.endpoint("as it was", "x:1")
    metrics.prune({}, {"changed"})

    assert list(metrics.endpoints) == [("as it was", "x:1")]


def test_each_watch_of_the_api_server_has_its_numbers() -> None:
    metrics = Metrics()
    metrics.watches["endpointslices", "prod"] = WatchStats(1, 2.5, 30, 4, 5)
    whole = Metrics.from_dicts(metrics.as_dict(), Metrics().as_dict())
    labels = {"resource": "endpointslices", "namespace": "prod"}

    assert value(whole, "stickyproxy_kube_synced", **labels) == 1
    assert value(whole, "stickyproxy_kube_watch_last_event_age_seconds", **labels) == 2.5
    assert value(whole, "stickyproxy_kube_watch_events_total", **labels) == 30
    assert value(whole, "stickyproxy_kube_watch_errors_total", **labels) == 4
    assert value(whole, "stickyproxy_kube_relists_total", **labels) == 5


def test_what_is_measured_is_measured_before_it_is_read() -> None:
    metrics = Metrics()
    metrics.before_reading.append(metrics.process.measure)

    seen = value(metrics, "process_resident_memory_bytes")
    assert seen is not None
    assert seen > 1_000_000
    assert metrics.as_dict()["process"]["process_cpu_seconds_total"] > 0


def test_unknown_reset_codes_share_one_series() -> None:
    metrics = Metrics()
    for code in (99, 2**32 - 1, 14):
        metrics.rst_stream("downstream_rx", code)

    labels = {"dir": "downstream_rx", "code": "OTHER"}
    assert value(metrics, "stickyproxy_rst_stream_total", **labels) == 3


def test_responses_are_classed_by_their_first_digit() -> None:
    stats = ClusterStats()
    for status in (100, 199, 200, 299, 300, 399, 400, 499, 500, 599):
        stats.responded(status)

    assert [getattr(stats, f"upstream_rq_{n}xx") for n in range(1, 6)] == [2] * 5


def test_every_metric_is_in_the_documentation_and_nothing_else() -> None:
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("| `")]

    assert rows == [row(family) for family in exposition.reference()]


def row(family: exposition.Family) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels) or "none"
    return f"| `{family.name}` | {family.kind} | {labels} | {family.help} |"


def test_every_rendered_name_is_in_the_reference() -> None:
    known = {family.name: family for family in exposition.reference()}
    for family in text_string_to_metric_families(exposition.render(busy()).decode()):
        for sample in family.samples:
            name = sample.name
            if family.type == "histogram":
                name = name.rpartition("_")[0]
            assert set(sample.labels) - {"le"} == set(known[name].labels), name


def test_every_cluster_counter_is_rendered() -> None:
    seen = {name for name, _ in samples(busy())}

    assert {declared.name for declared in fields(ClusterStats)} <= seen


def test_what_a_dead_process_counted_stays_and_what_it_had_under_way_is_gone() -> None:
    dead = Metrics()
    dead.process.downstream_connections = 3
    dead.process.downstream_connections_total = 5
    dead.endpoint("c", "a").rq_active = 2
    dead.endpoint("c", "a").rq_total = 7
    dead.cluster("c").membership_total = 4
    whole = Metrics.from_dicts(Metrics().as_dict(), Metrics.counted(dead.as_dict()))
    assert whole.process.downstream_connections == 0
    assert whole.process.downstream_connections_total == 5
    assert (whole.endpoint("c", "a").rq_active, whole.endpoint("c", "a").rq_total) == (0, 7)
    assert whole.cluster("c").membership_total == 0
    assert whole.process.config_last_reload_successful == 1
