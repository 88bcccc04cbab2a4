"""Two proxies that know nothing of each other send every session to the same backend."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.grpc_backends import Client, Fleet, connected, running_backends, wait_until
from support.proxy_process import running_proxy

USERS = [f"user-{number}" for number in range(150)]
STICKY = ("--sticky", "header:x-user")


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with running_backends("pod-1", "pod-2", "pod-3") as fleet:
        yield fleet


@pytest.fixture
def replicas(fleet: Fleet) -> Iterator[list[Client]]:
    """Told of the same backends, in another order."""
    turned = [flag for backend in reversed(list(fleet)) for flag in ("--backend", backend.key)]
    with (
        running_proxy(*fleet.flags, *STICKY) as one,
        running_proxy(*turned, *STICKY) as other,
        connected(one.target) as first,
        connected(other.target) as second,
    ):
        yield [first, second]


def owners(client: Client) -> dict[str, str]:
    """Whom each user is sent to; a failed call fails the test."""
    return {user: client.backend_of([("x-user", user)]) for user in USERS}


def test_replicas_agree_on_every_key_before_amid_and_after_a_rolling_restart(
    fleet: Fleet, replicas: list[Client]
) -> None:
    one, other = replicas
    before = owners(one)
    assert set(before.values()) == {"pod-1", "pod-2", "pod-3"}
    assert owners(other) == before
    for backend in fleet:
        backend.stop()
        # Both meet the refusal on their own; from then on both walk past it to the same endpoints.
        amid = owners(one)
        assert owners(other) == amid
        assert {user for user in USERS if amid[user] != before[user]} == {
            user for user in USERS if before[user] == backend.name
        }
        backend.start()
        for client in replicas:
            wait_until(lambda c=client: owners(c) == before, f"{backend.name} has its own back")  # type: ignore[misc]
    assert owners(one) == owners(other) == before
