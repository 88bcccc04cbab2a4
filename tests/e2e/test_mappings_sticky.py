"""The seed's own case, and what Emissary's own test of its load balancers demands.

Three pods, fifty requests, each on a connection of its own.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.http_backends import echo_backends
from support.http_clients import raw_client
from support.proxy_process import ProxyProcess, running_proxy

REQUESTS = 50
PODS = {"pod-1", "pod-2", "pod-3"}

DATA = Path(__file__).parents[1] / "data"
MODULE = """\
---
apiVersion: ambassador/v1
kind:  Module
name:  ambassador
config:
  load_balancer:
    policy: ring_hash
    header: x-default
---
apiVersion: ambassador/v1
kind:  Mapping
name:  inherits
prefix: /inherits/
service: qotm
---
apiVersion: ambassador/v1
kind:  Mapping
name:  replaces
prefix: /replaces/
service: qotm
load_balancer:
  policy: ring_hash
  cookie:
    name: own-cookie
"""


@dataclass
class Answer:
    pod: str
    cookies: list[str]


def ask(proxy: ProxyProcess, path: str, *lines: str) -> Answer:
    with raw_client(proxy.port) as client:
        client.send("\r\n".join([f"GET {path} HTTP/1.1", "Host: a", *lines, "", ""]).encode())
        head = client.read_until(b"\r\n\r\n").decode().lower()
        assert " 200 " in head.partition("\r\n")[0]
        size = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        pod = json.loads(client.read_exactly(size))["backend"]
    lines_of = (line.partition(": ") for line in head.split("\r\n"))
    return Answer(pod, [value for name, _, value in lines_of if name == "set-cookie"])


def ask_often(proxy: ProxyProcess, path: str, *lines: str) -> list[Answer]:
    return [ask(proxy, path, *lines) for _ in range(REQUESTS)]


def pods(answers: list[Answer]) -> set[str]:
    return {answer.pod for answer in answers}


@contextmanager
def qotm(config: Path) -> Iterator[ProxyProcess]:
    with echo_backends(3) as backends:
        places = ",".join(backend.address for backend in backends)
        with running_proxy(str(config), "--service", f"qotm={places}") as proxy:
            yield proxy


def test_the_seeds_round_robin_spreads_evenly() -> None:
    with qotm(DATA / "qotm_round_robin.yaml") as proxy:
        counts = Counter(answer.pod for answer in ask_often(proxy, "/qotm/")[:48])
        assert counts == dict.fromkeys(PODS, 16)
        assert [e for e in proxy.events if e["level"] != "info"] == []


def test_the_seeds_ring_hash_gives_a_cookie_that_sticks() -> None:
    with qotm(DATA / "qotm_ring_hash.yaml") as proxy:
        first = ask(proxy, "/qotm/")
        [cookie] = first.cookies
        pair, *attributes = cookie.split("; ")
        assert pair.startswith("sticky-cookie=")
        assert "max-age=60" in attributes
        later = ask_often(proxy, "/qotm/", f"Cookie: other=1; {pair}")
        assert pods(later) == {first.pod}
        assert all(answer.cookies == [] for answer in later)
        assert [e for e in proxy.events if e["level"] != "info"] == []


def test_one_connection_is_given_one_cookie() -> None:
    with qotm(DATA / "qotm_ring_hash.yaml") as proxy, raw_client(proxy.port) as client:
        given = set()
        for _ in range(5):
            client.send(b"GET /qotm/ HTTP/1.1\r\nHost: a\r\n\r\n")
            given.add(client.read_response()[1]["set-cookie"])
    assert len(given) == 1


def test_the_modules_policy_is_inherited_and_replaced_whole(tmp_path: Path) -> None:
    config = tmp_path / "module.yaml"
    config.write_text(MODULE)
    with qotm(config) as proxy:
        assert len(pods(ask_often(proxy, "/inherits/", "X-Default: me"))) == 1
        assert pods(ask_often(proxy, "/inherits/")) == PODS
        assert pods(ask_often(proxy, "/replaces/", "X-Default: me")) == PODS
        assert len(pods(ask_often(proxy, "/replaces/", "Cookie: own-cookie=me"))) == 1


def policies(policy: str) -> str:
    kinds = {
        "header": "header: LB-HEADER",
        "ip": "source_ip: true",
        "made": "cookie: {name: lb-cookie, ttl: 125s, path: /foo}",
        "passive": "cookie: {name: lb-cookie}",
        "session": "cookie: {name: lb-cookie, ttl: 0s}",
    }
    return "".join(
        f"---\n{{apiVersion: ambassador/v1, kind: Mapping, name: {name}, prefix: /{name}/, "
        f"service: qotm, load_balancer: {{policy: {policy}, {key}}}}}\n"
        for name, key in kinds.items()
    )


@pytest.fixture(scope="module", params=["ring_hash", "maglev"])
def proxy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProxyProcess]:
    config = tmp_path_factory.mktemp("policies") / "all.yaml"
    config.write_text(policies(request.param))
    with qotm(config) as running:
        yield running


def test_without_the_header_all_pods_are_seen(proxy: ProxyProcess) -> None:
    assert pods(ask_often(proxy, "/header/")) == PODS


def test_a_header_value_has_one_pod(proxy: ProxyProcess) -> None:
    assert len(pods(ask_often(proxy, "/header/", "LB-HEADER: yes"))) == 1


def test_different_header_values_have_different_pods(proxy: ProxyProcess) -> None:
    asked = [ask(proxy, "/header/", f"LB-HEADER: {number}") for number in range(REQUESTS)]
    assert pods(asked) == PODS


def test_a_client_address_has_one_pod(proxy: ProxyProcess) -> None:
    assert len(pods(ask_often(proxy, "/ip/"))) == 1


def test_a_cookie_is_made_for_each_connection_without_one(proxy: ProxyProcess) -> None:
    answers = ask_often(proxy, "/made/")
    assert pods(answers) == PODS
    for answer in answers:
        [cookie] = answer.cookies
        assert cookie.split("; ")[1:] == ["max-age=125", "path=/foo", "httponly"]


def test_a_cookie_that_is_there_is_kept_and_has_one_pod(proxy: ProxyProcess) -> None:
    for path in ("/made/", "/passive/", "/session/"):
        answers = ask_often(proxy, path, "Cookie: lb-cookie=yes")
        assert len(pods(answers)) == 1
        assert all(answer.cookies == [] for answer in answers)


def test_a_passive_cookie_is_never_made(proxy: ProxyProcess) -> None:
    answers = ask_often(proxy, "/passive/")
    assert pods(answers) == PODS
    assert all(answer.cookies == [] for answer in answers)


def test_a_cookie_without_a_lifetime_has_no_max_age(proxy: ProxyProcess) -> None:
    [cookie] = ask(proxy, "/session/").cookies
    assert cookie.split("; ")[1:] == ["httponly"]


def test_the_cookie_made_leads_back_to_the_pod_that_made_it(proxy: ProxyProcess) -> None:
    for _ in range(10):
        first = ask(proxy, "/made/")
        pair = first.cookies[0].partition(";")[0]
        assert ask(proxy, "/made/", f"Cookie: {pair}").pod == first.pod
