"""The unit is the stream: one connection carries many users, each on the endpoint of its own.

Where a user belongs is computed by tables that share no code with the proxy (`support.plain_tables`).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import rawframes as raw
from support.grpc_backends import PATIENCE, SERVICE, Client, Fleet, connected, running_backends
from support.grpc_calls import access_line, grpc_message, grpc_request, request_id
from support.http_clients import RawH2Client
from support.plain_tables import endpoint_of, hash_of
from support.proxy_process import ProxyProcess, running_proxy

USERS = [f"user-{n}" for n in range(60)]
POLICIES = ["maglev", "ring_hash"]

WEIGHTED = """\
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata:
  name: backend
spec:
  hostname: "*"
  prefix: /test.Backend/
  service: pods
  grpc: true
  endpoints: [{endpoints}]
  load_balancer:
    policy: {policy}
    header: x-user
"""


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with running_backends(*(f"pod-{n}" for n in range(5))) as fleet:
        yield fleet


@pytest.fixture(scope="module", params=POLICIES)
def hashing(fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[tuple[str, ProxyProcess]]:
    """A policy, and a proxy that follows it by the header `x-user`."""
    flags = (*fleet.flags, "--policy", request.param, "--sticky", "header:x-user")
    with running_proxy(*flags) as proxy:
        yield request.param, proxy


def expected(policy: str, fleet: Fleet, values: list[str], *weights: int) -> dict[str, str]:
    """From each value to the name of its backend; `weights` in the order of the backends."""
    every = zip(fleet, weights or (1,) * 5, strict=True)
    where = endpoint_of(policy, sorted((backend.key, weight) for backend, weight in every))
    return {value: fleet.names[where(value)] for value in values}


def held_open(client: Client, fleet: Fleet, rounds: int) -> dict[str, set[str]]:
    """Which backends hold a call of each user, with all users' calls open at the same time."""
    fleet.journal.clear()
    calls = [
        client.hold.future(user.encode(), metadata=(("x-user", user),), timeout=PATIENCE)
        for _ in range(rounds)
        for user in USERS
    ]
    seen = fleet.journal.wait_for(len(calls))
    with fleet.open_gates():
        assert [call.result().decode() for call in calls] == USERS * rounds
    where: dict[str, set[str]] = {user: set() for user in USERS}
    for one in seen:
        where[str(one.values("x-user")[0])].add(one.backend)
    return where


def alone(where: dict[str, str]) -> dict[str, set[str]]:
    return {user: {backend} for user, backend in where.items()}


def test_60_users_on_one_connection_are_each_where_an_independent_table_says(
    fleet: Fleet, hashing: tuple[str, ProxyProcess]
) -> None:
    policy, proxy = hashing
    logged = len(proxy.access)
    with connected(proxy.target) as client:
        where = held_open(client, fleet, rounds=3)
        lines = proxy.wait_for_access(logged + 3 * len(USERS))[logged:]

    assert where == alone(expected(policy, fleet, USERS))
    assert len(set.union(*where.values())) == 5
    assert len({line["peer"] for line in lines}) == 1, "that was more than one connection"


@pytest.mark.parametrize("policy", POLICIES)
def test_the_order_of_backends_moves_nobody(fleet: Fleet, policy: str) -> None:
    keys = [backend.key for backend in fleet]
    shuffled = [flag for key in keys[3:] + keys[2::-1] for flag in ("--backend", key)]
    flags = (*shuffled, "--policy", policy, "--sticky", "header:x-user")
    with running_proxy(*flags) as proxy, connected(proxy.target) as client:
        where = held_open(client, fleet, rounds=1)

    assert where == alone(expected(policy, fleet, USERS))


@pytest.mark.parametrize("policy", POLICIES)
def test_weights_move_users_as_the_table_says(fleet: Fleet, policy: str, tmp_path: Path) -> None:
    weights = (1, 10, 1, 3, 1)
    config = tmp_path / "weighted.yaml"
    places = (
        f'{{address: "{backend.key}", weight: {weight}}}'
        for backend, weight in zip(fleet, weights, strict=True)
    )
    config.write_text(WEIGHTED.format(policy=policy, endpoints=", ".join(places)))
    with running_proxy(str(config)) as proxy, connected(proxy.target) as client:
        where = held_open(client, fleet, rounds=1)

    assert where == alone(expected(policy, fleet, USERS, *weights))
    assert sum(user == {"pod-1"} for user in where.values()) > len(USERS) // 3


def test_the_log_names_session_and_endpoint_of_each_stream(
    fleet: Fleet, hashing: tuple[str, ProxyProcess]
) -> None:
    policy, proxy = hashing
    where = expected(policy, fleet, USERS)
    with connected(proxy.target) as client:
        for user in USERS:
            client.echo(b"", metadata=(("x-user", user), request_id(user)), timeout=PATIENCE)
        lines = {user: access_line(proxy, user) for user in USERS}

    for user, line in lines.items():
        token = f"{hash_of(user) >> 32:08x}"
        assert line["session"] == {"source": "header", "result": "hit", "token_hash": token}
        assert line["upstream_host"] == fleet[where[user]].key
        assert (line["path"], line["attempts"]) == (f"/{SERVICE}/Echo", 1)


def cookie_of(client: Client, *sent: tuple[str, str]) -> tuple[str, list[str]]:
    """The backend that answered, and every Set-Cookie of its answer."""
    _, call = client.echo.with_call(b"", metadata=sent, timeout=PATIENCE)
    initial = call.initial_metadata()
    names = [value for key, value in initial if key == "x-backend"]
    return names[0], [value for key, value in initial if key == "set-cookie"]


@pytest.mark.parametrize("policy", POLICIES)
def test_the_first_answer_sets_the_cookie_that_later_calls_stay_by(
    fleet: Fleet, policy: str
) -> None:
    flags = (*fleet.flags, "--policy", policy, "--sticky", "cookie:session:60s")
    with running_proxy(*flags) as proxy:
        seen = set()
        for _ in range(12):
            with connected(proxy.target) as client:
                first, cookies = cookie_of(client)
            [made] = [
                re.fullmatch(r'session="([0-9a-f]{16})"; Max-Age=60; HttpOnly', c) for c in cookies
            ]
            assert made is not None
            value = made[1]
            with connected(proxy.target) as client:
                later = [
                    cookie_of(client, ("cookie", f"a=b; session={value}"), request_id(value))
                    for _ in range(3)
                ]
            assert first == expected(policy, fleet, [value])[value]
            assert later == [(first, [])] * 3
            seen.add(value)
        proxy.wait_for_access(12 * 4)
        results = [line["session"]["result"] for line in proxy.access]

    assert len(seen) == 12, "connections share a cookie"
    assert results == ["generated", "hit", "hit", "hit"] * 12


def test_a_client_without_the_header_is_spread(
    fleet: Fleet, hashing: tuple[str, ProxyProcess]
) -> None:
    _, proxy = hashing
    logged = len(proxy.access)
    with connected(proxy.target) as client:
        used = {client.backend_of() for _ in range(100)}
    lines = proxy.wait_for_access(logged + 100)[logged:]

    assert used == set(fleet.backends)
    assert {line["session"]["result"] for line in lines} == {"miss"}


def asked_from(address: str, proxy: ProxyProcess) -> str:
    """The backend that answers a client with this address."""
    source = (address, 0)
    with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE, source) as sock:
        client = RawH2Client(sock)
        client.request(1, grpc_request(f"/{SERVICE}/Echo"), end=False)
        client.send(raw.data(1, grpc_message(b""), end=True))
        head, _, trailers = client.response(1)
    assert dict(trailers)[b"grpc-status"] == b"0"
    return head[b"x-backend"].decode()


def test_a_source_address_is_a_session(fleet: Fleet) -> None:
    addresses = [f"127.0.0.{n}" for n in range(1, 31)]
    with running_proxy(*fleet.flags, "--sticky", "source-ip") as proxy:
        where = {address: asked_from(address, proxy) for address in addresses}
        again = {address: asked_from(address, proxy) for address in addresses}

    assert where == again == expected("maglev", fleet, addresses)
    assert len(set(where.values())) > 1
