"""The case `pick`: from a request's head to an endpoint, as an exchange does it, without any I/O.

The hash of `x-user-id`, the table, the word of the book of health: while nobody is suspected, which
is nearly always; while the breaker of another endpoint is shut, so that each choice is asked about;
and while it is the key's own, so that it walks on to the next.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from itertools import cycle, islice
from random import Random

from bench.cases import Case, Figure, Plan, Sample
from bench.heads import calls, unary_fields
from bench.tables import POLICIES, cluster, names
from bench.timing import per_item
from stickyproxy.health.book import HealthBook
from stickyproxy.model import Client, Cluster, Connection, Endpoint, HashPolicy, Headers
from stickyproxy.policy.balance import Balancer
from stickyproxy.policy.hashing import hash_of

HOSTS = (3, 1000)
HEADS = 2000  # a block of some milliseconds
LIMIT = 2.0  # microseconds, of the forty to fifty that a call may have

USER = HashPolicy("header", "x-user-id")
CLIENT = Client("127.0.0.1", Connection("127.0.0.1", 1), behind_trusted_hop=False)


class Picker:
    """What `proxy.exchange` asks of its context, and nothing else of it."""

    def __init__(self, chosen: Cluster, health: HealthBook) -> None:
        self.cluster = chosen
        self.health = health
        self._balancer = Balancer(Random(1))

    def pick(self, head: Headers, fields: dict[bytes, bytes], now: float) -> Endpoint | None:
        hash_ = hash_of(USER, head, CLIENT, _never_asked, fields).hash
        if not self.health.suspected:
            return self._balancer.home(self.cluster, hash_)
        health, name = self.health, self.cluster.name

        def admits(endpoint: Endpoint) -> bool:
            return health.admits(name, endpoint, now)

        return self._balancer.pick(self.cluster, hash_, admits, _idle)

    def cost(self, heads: Iterable[Headers]) -> float:
        """Microseconds of CPU a pick. The codec hands over a head's fields by name too."""
        requests = [(head, dict(head)) for head in islice(cycle(heads), HEADS)]
        now = time.monotonic()

        def pick_all() -> None:
            for head, fields in requests:
                self.pick(head, fields, now)

        return per_item(pick_all, HEADS)


def figures(chosen: Cluster, heads: list[Headers]) -> dict[str, float]:
    well = Picker(chosen, HealthBook())
    homes = [well.pick(head, dict(head), 0.0) for head in heads]
    busiest = max(chosen.endpoints, key=Counter(homes).__getitem__)
    suspicious = Picker(chosen, HealthBook())
    suspicious.health.connect_failed(chosen.name, busiest, time.monotonic())
    return {
        "well_us": well.cost(heads),
        "other_us": suspicious.cost(
            h for h, home in zip(heads, homes, strict=True) if home != busiest
        ),
        "own_us": suspicious.cost(
            h for h, home in zip(heads, homes, strict=True) if home == busiest
        ),
    }


def rounds(plan: Plan) -> list[Sample]:
    constant = unary_fields(b"/bench.Echo/Call", b"127.0.0.1")
    heads: list[Headers] = list(islice(calls(constant, 1000, "pick"), HEADS))
    samples = []
    for number in range(plan.pace.rounds):
        for hosts in HOSTS:
            for policy in POLICIES:
                plan.say(f"round {number + 1}, {policy} over {hosts:,}")
                found = figures(cluster(policy, names(hosts, number)), heads)
                row = f"{policy}, {hosts:,} endpoints"
                samples.append(Sample(PICK.name, row, log=True, round=number, figures=found))
    return samples


def _never_asked() -> int:
    return 0  # chance is for cookies


def _idle(_: Endpoint) -> int:
    return 0


PICK = Case(
    "pick",
    "picking a backend: hash of a header, table, admission; in memory",
    (
        Figure("well_us", "us/pick, nobody suspected", 2, limit=LIMIT),
        Figure("other_us", "us/pick, another suspected", 2, limit=LIMIT),
        Figure("own_us", "us/pick, its own suspected", 2),
    ),
    pure=rounds,
)
