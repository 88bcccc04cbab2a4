"""From a cluster and a hash to endpoints in order of preference.

Whether an endpoint may be used now is asked through `admits`, how busy it is through `active`:
this room knows neither health nor pools. An endpoint that is not admitted, or is in
`Cluster.removed` or `inadmissible`, is walked past; its own keys move to others, nobody else's do.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from random import Random
from typing import NamedTuple

from stickyproxy.model import Cluster, Endpoint, Route, Target
from stickyproxy.policy.maglev import MaglevTable
from stickyproxy.policy.ring_hash import RingHash
from stickyproxy.policy.rotation import Rotation
from stickyproxy.policy.tables import candidates

Admits = Callable[[Endpoint], bool]
Active = Callable[[Endpoint], int]
Share = Callable[[Endpoint], float]
"""What a weight is multiplied by while an endpoint comes to its share."""

HASHING = frozenset({"ring_hash", "maglev"})

_DRAWS = 8  # with 9 of 10 endpoints out, 8 draws still find one more often than not

_GLANCES = 4  # with one of three endpoints out 4 % of its keys need the full, dearer walk

_FINE = 2**31 - 1  # a prime: what falls where modulo this tells nothing about the slot in a table


class Choice(NamedTuple):
    """What `explain` says. `slot` is the slot (maglev) or entry (ring hash) of the hash.

    `endpoint` None: not decided by the request alone, or nobody admits it; `reason` says which.
    `walked` holds the keys of the endpoints that were preferred but not admitted.
    """

    slot: int | None
    endpoint: Endpoint | None
    reason: str
    walked: tuple[str, ...]


class Balancer:
    """One per worker. Its only state is whose turn it is, per cluster name.

    Turns begin anywhere, or at `phase` (0 to below 1) of the way round: several workers begin apart,
    so that together they go round evenly.

    While a hashing cluster has no table yet (a moment after start), its picks are random by
    weight, as Envoy's are for a request without a hash: some endpoint beats an error.
    """

    def __init__(self, rng: Random, phase: float | None = None) -> None:
        self._rng = rng
        self._phase = phase
        self._rotations: dict[str, Rotation] = {}

    def home(self, cluster: Cluster, hash_: int | None) -> Endpoint | None:
        """Where the table alone sends a hash; None without either, or while anybody is out."""
        table = cluster.table
        if table is None or hash_ is None or cluster.removed or cluster.inadmissible:
            return None
        return cluster.endpoints[table.lookup(hash_)]

    def pick(
        self,
        cluster: Cluster,
        hash_: int | None,
        admits: Admits,
        active: Active,
        share: Share | None = None,
    ) -> Endpoint | None:
        """The most preferred endpoint, None if none is admitted. Same as the first candidate."""
        table = cluster.table
        if table is None:
            return self._first(cluster, _admission(cluster, admits), active, share)
        if hash_ is None:
            hash_ = self._rng.getrandbits(64)
        endpoints, removed, inadmissible = cluster.endpoints, cluster.removed, cluster.inadmissible
        for attempt in range(_GLANCES):
            endpoint = endpoints[table.lookup(hash_, attempt)]
            key = endpoint.key
            if key not in removed and key not in inadmissible and admits(endpoint):
                return endpoint
        return next(self.candidates(cluster, hash_, admits, active), None)

    def candidates(
        self,
        cluster: Cluster,
        hash_: int | None,
        admits: Admits,
        active: Active,
        share: Share | None = None,
    ) -> Iterator[Endpoint]:
        """Admitted endpoints, the most preferred first, each once.

        Admission is asked when an endpoint's turn comes: a walk that takes time sees the present.
        """
        admits = _admission(cluster, admits)
        if cluster.table is not None:
            if hash_ is None:
                hash_ = self._rng.getrandbits(64)
            endpoints = cluster.endpoints
            for index in candidates(cluster.table, hash_, len(endpoints)):
                if admits(endpoints[index]):
                    yield endpoints[index]
            return
        first = self._first(cluster, admits, active, share)
        if first is None:
            return
        yield first
        for endpoint in self._following(cluster, active):
            if endpoint is not first and admits(endpoint):
                yield endpoint

    def keep(self, clusters: Container[str]) -> None:
        """Forget the turns of all clusters but these; for a Snapshot that has lost some."""
        self._rotations = {n: turns for n, turns in self._rotations.items() if n in clusters}

    def _first(
        self, cluster: Cluster, admits: Admits, active: Active, share: Share | None
    ) -> Endpoint | None:
        if not cluster.endpoints:
            return None
        policy = cluster.spec.load_balancer.policy
        if policy in HASHING:
            return self._random(cluster, admits)
        rotation = self._rotation(cluster)
        if policy != "least_request":
            return rotation.take(admits, _weight if share is None else _shared(share))
        if rotation.even and share is None:
            return self._less_busy_of_two(cluster, admits, active)
        weight = _weight if share is None else _shared(share)
        return rotation.take(admits, lambda endpoint: weight(endpoint) / (active(endpoint) + 1))

    def _following(self, cluster: Cluster, active: Active) -> list[Endpoint]:
        policy = cluster.spec.load_balancer.policy
        if policy in HASHING:
            return self._rng.sample(cluster.endpoints, len(cluster.endpoints))
        if policy == "least_request":
            return sorted(cluster.endpoints, key=lambda e: (active(e) + 1) / e.weight)
        return self._rotation(cluster).waiting()

    def _rotation(self, cluster: Cluster) -> Rotation:
        rotation = self._rotations.get(cluster.name)
        if rotation is None or rotation.endpoints is not cluster.endpoints:
            if rotation is None or rotation.endpoints != cluster.endpoints:
                rotation = Rotation(cluster.endpoints, self._start(len(cluster.endpoints)))
            rotation.endpoints = cluster.endpoints
            self._rotations[cluster.name] = rotation
        return rotation

    def _start(self, count: int) -> int:
        return self._rng.randrange(count) if self._phase is None else int(self._phase * count)

    def _less_busy_of_two(
        self, cluster: Cluster, admits: Admits, active: Active
    ) -> Endpoint | None:
        one = self._draw(cluster.endpoints, admits)
        two = self._draw(cluster.endpoints, admits)
        if one is None or two is None:
            return one or two
        return two if active(two) < active(one) else one

    def _draw(self, endpoints: tuple[Endpoint, ...], admits: Admits) -> Endpoint | None:
        """An admitted endpoint, each as likely as the other."""
        for _ in range(_DRAWS):
            endpoint = endpoints[int(self._rng.random() * len(endpoints))]
            if admits(endpoint):
                return endpoint
        admitted = [endpoint for endpoint in endpoints if admits(endpoint)]
        return self._rng.choice(admitted) if admitted else None

    def _random(self, cluster: Cluster, admits: Admits) -> Endpoint | None:
        admitted = [endpoint for endpoint in cluster.endpoints if admits(endpoint)]
        if not admitted:
            return None
        return self._rng.choices(admitted, [endpoint.weight for endpoint in admitted])[0]


def choose_target(route: Route, hash_: int | None, rng: Random) -> Target:
    """One of a weighted group: by the hash, so that a session stays in its group, or at random.

    Weights are relative; where all are 0 the first target is taken. Whole weights choose by
    `hash mod total`, which is Envoy's `use_hash_policy`. That does not skew the tables behind it:
    Maglev looks at the hash modulo a prime that the total is no multiple of, a ring at its
    leading bits, and both tell nothing about the remainder by a small total.
    """
    targets = route.targets
    if len(targets) == 1:
        return targets[0]
    total = sum(target.weight for target in targets)
    point = rng.random() * total if hash_ is None else _point(hash_, targets, total)
    for target in targets:
        point -= target.weight
        if point < 0:
            return target
    # Rounding can leave a remainder of nothing after the last weight.
    return next((target for target in reversed(targets) if target.weight > 0), targets[0])


def _point(hash_: int, targets: tuple[Target, ...], total: float) -> float:
    if total and all(target.weight % 1 == 0 for target in targets):
        return hash_ % int(total)
    return hash_ % _FINE * total / _FINE


def explain(cluster: Cluster, hash_: int | None, admits: Admits) -> Choice:
    """Why a request goes where it goes. Draws nothing and takes nobody's turn."""
    policy = cluster.spec.load_balancer.policy
    if not cluster.endpoints:
        return Choice(None, None, f"{policy}: the cluster has no endpoints", ())
    if policy not in HASHING:
        return Choice(None, None, f"{policy}: {_NOT_HASHED[policy]}", ())
    if hash_ is None:
        return Choice(None, None, f"{policy}: no key in the request, so a random endpoint", ())
    if cluster.table is None:
        return Choice(None, None, f"{policy}: no table yet, so a random endpoint", ())
    return _explain_table(cluster, hash_, _admission(cluster, admits))


_NOT_HASHED = {
    "round_robin": "endpoints take turns by weight",
    "least_request": "the less busy of two endpoints, by weight where weights differ",
}


def _explain_table(cluster: Cluster, hash_: int, admits: Admits) -> Choice:
    table, endpoints = cluster.table, cluster.endpoints
    slot, where = None, "the table"
    if isinstance(table, MaglevTable):
        slot = table.slot(hash_)
        where = f"slot {slot} of {table.size}"
    elif isinstance(table, RingHash):
        slot = table.slot(hash_)
        where = f"entry {slot} of {len(table.hashes)}"
    reason = f"{cluster.spec.load_balancer.policy}: {where}"
    walked: list[str] = []
    for index in candidates(table, hash_, len(endpoints)) if table is not None else ():
        if admits(endpoints[index]):
            past = f", past {len(walked)} not admitted" if walked else ""
            return Choice(slot, endpoints[index], reason + past, tuple(walked))
        walked.append(endpoints[index].key)
    return Choice(slot, None, f"{reason}, but no endpoint is admitted", tuple(walked))


def _weight(endpoint: Endpoint) -> float:
    return endpoint.weight


def _shared(share: Share) -> Callable[[Endpoint], float]:
    return lambda endpoint: endpoint.weight * share(endpoint)


def _admission(cluster: Cluster, admits: Admits) -> Admits:
    if not (cluster.removed or cluster.inadmissible):
        return admits
    shut = cluster.removed | cluster.inadmissible
    return lambda endpoint: endpoint.key not in shut and admits(endpoint)
