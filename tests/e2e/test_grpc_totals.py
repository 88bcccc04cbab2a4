"""Every stream ends in one line of the access log, and log, metrics and clients agree in numbers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from stickyproxy.metrics import CODE_NAMES
from stickyproxy.wire.codecs import HTTP2_ENGINES
from support.exposed import Exposed
from support.grpc_backends import PATIENCE, SERVICE, Fleet, connected, running_backends, wait_until
from support.grpc_calls import answer_of, grpc_message, request_id, told
from support.proxy_process import ProxyProcess, running_proxy

H2LOAD = shutil.which("h2load")
REQUESTS = 1000

USERS = [f"user-{n}" for n in range(20)]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with running_backends("pod-1", "pod-2", "pod-3") as fleet:
        yield fleet


@pytest.fixture(params=sorted(HTTP2_ENGINES))
def proxy(fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[ProxyProcess]:
    fleet.journal.clear()
    flags = (*fleet.flags, "--sticky", "header:x-user", "--codec", request.param)
    with running_proxy(*flags) as proxy:
        yield proxy


def all_kinds_of_endings(proxy: ProxyProcess, fleet: Fleet) -> Counter[tuple[str, int]]:
    """Calls that end well, with an error, by cancel and by deadline: method and what its client saw."""
    ended: Counter[tuple[str, int]] = Counter()
    with connected(proxy.target) as client:
        for number, user in enumerate(USERS):
            here = ("x-user", user)
            client.echo(b"12345", metadata=(here, request_id(f"{user}-echo")), timeout=PATIENCE)
            ended["Echo", 0] += 1
            chat = (here, request_id(f"{user}-chat"))
            list(client.chat(iter([b"1", b"2", b"3"]), metadata=chat, timeout=PATIENCE))
            ended["Chat", 0] += 1
            failing = client.fail.future(
                b"%d x" % (1 + number % 16), metadata=(request_id(f"{user}-fail"),)
            )
            ended["Fail", answer_of(failing)[0].value[0]] += 1
            seven = (here, request_id(f"{user}-repeat"), ("x-times", "7"))
            list(client.repeat(b"r", metadata=seven, timeout=PATIENCE))
            ended["Repeat", 0] += 1
        before = len(fleet.journal.calls)
        held = [
            client.hold.future(b"", metadata=(("x-user", user), request_id(f"{user}-hold")))
            for user in USERS
        ]
        fleet.journal.wait_for(before + len(USERS))
        for call in held:
            call.cancel()
        assert {answer_of(call)[0] for call in held} == {grpc.StatusCode.CANCELLED}
        ended["Hold", 1] += len(USERS)
    return ended


def test_log_metrics_and_clients_agree(proxy: ProxyProcess, fleet: Fleet) -> None:
    seen = all_kinds_of_endings(proxy, fleet)
    lines = proxy.wait_for_access(seen.total())
    exposed = Exposed(proxy)

    logged = Counter((line["path"].rpartition("/")[2], told(line)[1]) for line in lines)
    assert logged == seen
    assert set(Counter(line["request_id"] for line in lines).values()) == {1}
    assert {told(line)[2] for line in lines if line["path"].endswith("Hold")} == {"DC"}
    assert {told(line)[2] for line in lines if not line["path"].endswith("Hold")} == {"-"}

    for method in ("Echo", "Chat", "Fail", "Repeat", "Hold"):
        codes = {CODE_NAMES[code]: n for (name, code), n in seen.items() if name == method}
        labels = {"grpc_service": SERVICE, "grpc_method": method}
        assert exposed.by("grpc_code", "grpc_server_handled_total", **labels) == codes
        assert exposed.total("grpc_server_started_total", **labels) == sum(codes.values())
        for name, field in (("received", "messages_in"), ("sent", "messages_out")):
            messages = sum(line[field] for line in lines if line["path"].endswith(method))
            assert exposed.total(f"grpc_server_msg_{name}_total", **labels) == messages
    kinds = exposed.by("grpc_type", "grpc_server_handled_total", grpc_service=SERVICE)
    assert kinds.keys() == {"unary", "bidi_stream", "server_stream"}
    assert exposed.total("request_total") == exposed.total("response_total") == seen.total()
    lookups = exposed.by("result", "stickyproxy_session_lookups_total", source="header")
    assert lookups == {"hit": 4.0 * len(USERS), "miss": 1.0 * len(USERS)}
    hosts = Counter(line["upstream_host"] for line in lines)
    assert exposed.by("endpoint", "stickyproxy_endpoint_rq_total") == hosts
    assert hosts.keys() == fleet.names.keys()


def test_the_log_knows_a_call_by_the_id_that_its_backend_got(
    proxy: ProxyProcess, fleet: Fleet
) -> None:
    with connected(proxy.target) as client:
        client.echo(b"", metadata=(request_id("mine"),), timeout=PATIENCE)
        client.echo(b"", timeout=PATIENCE)
        lines = proxy.wait_for_access(2)

    own, made = [seen.values("x-request-id") for seen in fleet.journal.wait_for(2)]
    assert own == ["mine"]
    assert len(made) == 1
    assert [line["request_id"] for line in lines] == own + made


def test_what_is_over_is_no_longer_counted_as_under_way(proxy: ProxyProcess, fleet: Fleet) -> None:
    with connected(proxy.target) as client:
        calls = [client.hold.future(b"", metadata=(("x-user", user),)) for user in USERS]
        fleet.journal.wait_for(len(USERS))
        during = Exposed(proxy)
        with fleet.open_gates():
            for call in calls:
                call.result()
        proxy.wait_for_access(len(USERS))
        after = Exposed(proxy)
    wait_until(
        lambda: not Exposed(proxy).total("stickyproxy_downstream_connections"),
        "the client is gone",
    )

    gauges = ("stickyproxy_downstream_streams", "stickyproxy_upstream_streams")
    assert [during.total(name) for name in gauges] == [len(USERS)] * 2
    assert during.total("upstream_rq_active") == len(USERS)
    assert during.total("stickyproxy_endpoint_rq_active") == len(USERS)
    assert [after.total(name) for name in gauges] == [0, 0]
    for exposed in (during, after):
        assert exposed.total("stickyproxy_downstream_connections") == 1
        links = exposed.total("stickyproxy_upstream_connections")
        assert 3 <= links <= 6, "one to each backend, and perhaps its spare"
        assert exposed.total("upstream_cx_active") == links
        assert exposed.total("upstream_cx_http2_total") == links


@pytest.mark.skipif(H2LOAD is None, reason="h2load is not on this machine (nghttp2-client)")
def test_h2load_is_answered_and_counted_to_the_last_request(
    proxy: ProxyProcess, tmp_path: Path
) -> None:
    body = tmp_path / "message"
    body.write_bytes(grpc_message(b"x" * 100))
    done = subprocess.run(
        [
            *("h2load", "--requests", str(REQUESTS), "--clients", "4"),
            *("--max-concurrent-streams", "50", "--data", str(body)),
            *("--header", "content-type: application/grpc", "--header", "te: trailers"),
            f"http://{proxy.target}/{SERVICE}/Echo",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE * 2,
        env={**os.environ, "LC_ALL": "C"},
    )
    lines = proxy.wait_for_access(REQUESTS)
    exposed = Exposed(proxy)

    assert re.search(rf"{REQUESTS} succeeded, 0 failed, 0 errored", done.stdout), done.stdout
    assert re.search(rf"status codes: {REQUESTS} 2xx, 0 3xx", done.stdout), done.stdout
    assert Counter(map(told, lines)) == {(200, 0, "-"): REQUESTS}
    assert {(line["messages_in"], line["messages_out"]) for line in lines} == {(1, 1)}
    assert exposed.by("grpc_code", "grpc_server_handled_total") == {"OK": REQUESTS}
    assert exposed.total("stickyproxy_access_log_lines_total") == REQUESTS
    assert exposed.total("stickyproxy_downstream_connections_total") == 4
    assert exposed.total("upstream_rq_total") == exposed.total("upstream_rq_2xx") == REQUESTS
