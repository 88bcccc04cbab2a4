"""Spreading load over backends, and what becomes of sessions when one of them stops and returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from support.exposed import Exposed
from support.grpc_backends import PATIENCE, Client, Fleet, connected, running_backends, wait_until
from support.plain_tables import endpoint_of
from support.proxy_process import running_proxy

USERS = [f"user-{n}" for n in range(60)]


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with running_backends("pod-1", "pod-2", "pod-3") as fleet:
        yield fleet


def whereabouts(client: Client, users: list[str]) -> dict[str, str]:
    return {user: client.backend_of([("x-user", user)]) for user in users}


def await_answer_of(client: Client, name: str, *metadata: tuple[str, str]) -> None:
    """A breaker lets a backend back in after a second or two."""
    wait_until(lambda: client.backend_of(metadata) == name, f"{name} answers")


def test_round_robin_is_exactly_even(fleet: Fleet) -> None:
    with (
        running_proxy(*fleet.flags, "--policy", "round_robin") as proxy,
        connected(proxy.target) as one,
        connected(proxy.target) as other,
    ):
        order = [client.backend_of() for _ in range(30) for client in (one, other)]

    assert order[:3] * 20 == order
    assert len(set(order)) == 3


def test_round_robin_is_even_for_calls_under_way_together(fleet: Fleet) -> None:
    with (
        running_proxy(*fleet.flags, "--policy", "round_robin") as proxy,
        connected(proxy.target) as client,
    ):
        calls = [client.hold.future(b"", timeout=PATIENCE) for _ in range(90)]
        seen = fleet.journal.wait_for(90)
        with fleet.open_gates():
            for call in calls:
                call.result()

    assert Counter(one.backend for one in seen) == dict.fromkeys(fleet.backends, 30)


def test_least_request_prefers_the_idle(fleet: Fleet) -> None:
    """Of two drawn at random the less busy one: 8 of 9 draws avoid the only busy one of three."""
    busy, *others = fleet.backends
    for name in others:
        fleet[name].stop()
    with (
        running_proxy(*fleet.flags, "--policy", "least_request") as proxy,
        connected(proxy.target) as client,
    ):
        held = [client.hold.future(b"", timeout=PATIENCE) for _ in range(20)]
        assert {one.backend for one in fleet.journal.wait_for(20)} == {busy}
        for name in others:
            fleet[name].start()
            await_answer_of(client, name)
        used = Counter(client.backend_of() for _ in range(300))
        with fleet.open_gates():
            for call in held:
                call.result()

    # 33 of 300 are to be expected, with a deviation of 5; a random choice would make it 100.
    assert used[busy] < 66
    assert all(used[name] > 66 for name in others)


def test_users_of_a_stopped_backend_move_and_come_back_and_nobody_else_does(
    fleet: Fleet,
) -> None:
    where = endpoint_of("maglev", sorted((backend.key, 1) for backend in fleet))
    home = {user: fleet.names[where(user)] for user in USERS}
    moving = [user for user in USERS if home[user] == "pod-2"]
    staying = [user for user in USERS if home[user] != "pod-2"]
    with (
        running_proxy(*fleet.flags, "--sticky", "header:x-user") as proxy,
        connected(proxy.target) as client,
    ):
        assert whereabouts(client, USERS) == home

        fleet["pod-2"].stop()
        key = fleet["pod-2"].key
        wait_until(
            lambda: key not in Exposed(proxy).by("endpoint", "stickyproxy_endpoint_cx_active"),
            "it was noticed",
        )
        for _ in range(2):
            there = whereabouts(client, USERS)
            assert {user: there[user] for user in staying} == {u: home[u] for u in staying}
            assert {there[user] for user in moving} == {"pod-1", "pod-3"}
        proxy.wait_for_event("connect_failed")
        down = [event for event in proxy.events if event["event"] == "connect_failed"]

        fleet["pod-2"].start()
        first, *others = moving
        await_answer_of(client, "pod-2", ("x-user", first))
        assert whereabouts(client, [*staying, *others]) == {u: home[u] for u in staying + others}
        back = proxy.wait_for_event("endpoint_reachable")
        repins = Exposed(proxy).by("reason", "stickyproxy_session_repins_total")

    assert repins.keys() == {"unreachable"}
    assert repins["unreachable"] >= 2 * len(moving)
    assert {event["reason"].partition(": ")[0] for event in down} == {f"backend {key}"}
    assert back["endpoint"] == fleet["pod-2"].key


def test_calls_under_way_elsewhere_outlive_a_backend(fleet: Fleet) -> None:
    with (
        running_proxy(*fleet.flags, "--policy", "round_robin") as proxy,
        connected(proxy.target) as client,
    ):
        calls = [client.hold.future(b"", timeout=PATIENCE) for _ in range(30)]
        seen = fleet.journal.wait_for(30)
        fleet["pod-1"].stop()
        ends = fleet.journal.calls
        with fleet.open_gates():
            codes = Counter(call.code().name for call in calls)
        lines = proxy.wait_for_access(30)

    assert len(ends) == len(seen), "a call that was under way was made again"
    assert codes["OK"] == 20
    assert sum(codes.values()) == 30
    lost = [line for line in lines if line["upstream_host"] == fleet["pod-1"].key]
    assert len(lost) == 10
    assert all(line["grpc_status"]["number"] for line in lost)
