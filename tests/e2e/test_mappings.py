"""Ambassador's documents at work: which Mapping takes a request, and what it makes of it.

All Mappings live in one proxy; each feature has a prefix of its own.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from support.http_backends import EchoBackend, echo_backends
from support.http_clients import raw_client
from support.proxy_process import ProxyProcess, running_proxy

DOCUMENTS = """
---
{apiVersion: ambassador/v1, kind: Module, name: ambassador, config: {
  use_remote_address: true, xff_num_trusted_hops: 1, cluster_request_timeout_ms: 6000}}
---
{apiVersion: ambassador/v1, kind: Mapping, name: short, prefix: /m/, service: one}
---
{apiVersion: ambassador/v1, kind: Mapping, name: longer, prefix: /m/long/, service: two}
---
{apiVersion: ambassador/v1, kind: Mapping, name: exact, prefix: /m/long/exact,
 prefix_exact: true, service: three, rewrite: ""}
---
{apiVersion: ambassador/v1, kind: Mapping, name: urgent, prefix: /m/l, precedence: 5,
 method: DELETE, service: three}
---
{apiVersion: ambassador/v1, kind: Mapping, name: regex, prefix: "/v[0-9]+/[a-z]{2,}",
 prefix_regex: true, service: two}
---
{apiVersion: ambassador/v1, kind: Mapping, name: any-case, prefix: /Case/,
 case_sensitive: false, service: two}
---
{apiVersion: getambassador.io/v3alpha1, kind: Mapping, metadata: {name: host-exact},
 spec: {prefix: /h/, hostname: api.example.com, service: one}}
---
{apiVersion: getambassador.io/v3alpha1, kind: Mapping, metadata: {name: host-glob},
 spec: {prefix: /h/, hostname: "*.example.com", service: two}}
---
{apiVersion: ambassador/v1, kind: Mapping, name: host-regex, prefix: /h/,
 host: "[a-z]+[.]example[.]org", host_regex: true, service: three}
---
{apiVersion: ambassador/v1, kind: Mapping, name: plain, prefix: /cond/, service: one}
---
{apiVersion: ambassador/v1, kind: Mapping, name: by-method, prefix: /cond/, method: PUT, service: two}
---
{apiVersion: ambassador/v1, kind: Mapping, name: by-header, prefix: /cond/,
 headers: {x-version: "2", x-present: true}, service: two}
---
{apiVersion: ambassador/v1, kind: Mapping, name: by-regex, prefix: /cond/,
 regex_headers: {x-version: "3[.][0-9]"}, service: three}
---
{apiVersion: ambassador/v1, kind: Mapping, name: by-query, prefix: /cond/,
 query_parameters: {env: canary}, service: three}
---
{apiVersion: ambassador/v1, kind: Mapping, name: rewrite, prefix: /old/, rewrite: /new/, service: one}
---
{apiVersion: ambassador/v1, kind: Mapping, name: leave, prefix: /leave/, rewrite: "", service: one}
---
{apiVersion: ambassador/v1, kind: Mapping, name: pattern, prefix: /pattern/, service: one,
 regex_rewrite: {pattern: "/pattern/([^/]+)/x", substitution: '/got/\\1'}}
---
{apiVersion: ambassador/v1, kind: Mapping, name: host-rewrite, prefix: /inner/,
 host_rewrite: inner.test, service: one}
---
{apiVersion: ambassador/v1, kind: Mapping, name: edit, prefix: /edit/, service: one,
 add_request_headers: {x-added: plain, x-more: {value: again}, x-set: {value: ours, append: false}},
 remove_request_headers: [x-gone], remove_response_headers: server,
 add_response_headers: {x-out: "1", content-type: {value: text/plain, append: false}}}
---
{apiVersion: ambassador/v1, kind: Mapping, name: quick, prefix: /quick/, timeout_ms: 300, service: one}
---
{apiVersion: ambassador/v1, kind: Mapping, name: stable, prefix: /canary/, service: one,
 load_balancer: {policy: maglev, header: x-user}}
---
{apiVersion: ambassador/v1, kind: Mapping, name: canary, prefix: /canary/, service: two, weight: 30,
 load_balancer: {policy: maglev, header: x-user}}
---
{apiVersion: ambassador/v1, kind: Mapping, name: dice, prefix: /dice/, service: one}
---
{apiVersion: ambassador/v1, kind: Mapping, name: dice-canary, prefix: /dice/, service: two, weight: 50}
---
{apiVersion: ambassador/v1, kind: Mapping, name: by-ip, prefix: /ip/, service: all,
 load_balancer: {policy: ring_hash, source_ip: true}}
"""


@dataclass
class House:
    proxy: ProxyProcess
    backends: list[EchoBackend]

    def ask(
        self, path: str, *lines: str, method: str = "GET", host: str = "a"
    ) -> tuple[int, dict[str, str], Any]:
        """Status, response fields and what the backend saw (None when it was not asked)."""
        head = "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *lines, "", ""])
        with raw_client(self.proxy.port) as client:
            client.send(head.encode())
            status, fields, body = client.read_response()
        return status, fields, json.loads(body) if body.startswith(b"{") else None

    def pod(self, path: str, *lines: str, method: str = "GET", host: str = "a") -> str:
        _, _, seen = self.ask(path, *lines, method=method, host=host)
        return "" if seen is None else str(seen["backend"])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    config = tmp_path_factory.mktemp("mappings") / "all.yaml"
    config.write_text(DOCUMENTS)
    with echo_backends(3) as backends:
        one, two, three = (backend.address for backend in backends)
        services = (f"one={one}", f"two={two}", f"three={three}", f"all={one},{two},{three}")
        flags = [flag for service in services for flag in ("--service", service)]
        with running_proxy(str(config), *flags) as proxy:
            yield House(proxy, backends)


@pytest.mark.parametrize(
    ("path", "method", "pod", "target"),
    [
        ("/m/x", "GET", "pod-1", "/x"),
        ("/m/long/x", "GET", "pod-2", "/x"),
        ("/m/longx", "GET", "pod-1", "/longx"),
        ("/m/long/exact", "GET", "pod-3", "/m/long/exact"),
        ("/m/long/exact?q", "GET", "pod-3", "/m/long/exact?q"),
        ("/m/long/exactly", "GET", "pod-2", "/exactly"),
        ("/m/long/x", "DELETE", "pod-3", "/ong/x"),
        ("/v12/users", "GET", "pod-2", "/v12/users"),
        ("/cASE/x", "GET", "pod-2", "/x"),
    ],
)
def test_the_path_chooses(house: House, path: str, method: str, pod: str, target: str) -> None:
    _, _, seen = house.ask(path, method=method)
    assert (seen["backend"], seen["target"]) == (pod, target)


@pytest.mark.parametrize("path", ["/", "/m", "/M/x", "/v12/u", "/v12/users/more", "/v/users"])
def test_what_no_mapping_claims_is_404(house: House, path: str) -> None:
    assert house.ask(path)[0] == 404


@pytest.mark.parametrize(
    ("host", "pod"),
    [
        ("api.example.com", "pod-1"),
        ("API.Example.Com:8080", "pod-1"),
        ("www.example.com", "pod-2"),
        ("a.b.example.com", "pod-2"),
        ("www.example.org", "pod-3"),
        ("example.com", ""),
        ("www.example.org.evil.test", ""),
    ],
)
def test_the_host_chooses(house: House, host: str, pod: str) -> None:
    assert house.pod("/h/", host=host) == pod


@pytest.mark.parametrize(
    ("path", "lines", "method", "pod"),
    [
        ("/cond/", [], "GET", "pod-1"),
        ("/cond/", [], "PUT", "pod-2"),
        ("/cond/", ["X-Version: 2", "X-Present: whatever"], "GET", "pod-2"),
        ("/cond/", ["X-Version: 2"], "GET", "pod-1"),
        ("/cond/", ["X-Version: 3.5"], "GET", "pod-3"),
        ("/cond/", ["X-Version: 3.55"], "GET", "pod-1"),
        ("/cond/?env=canary", [], "GET", "pod-3"),
        ("/cond/?a=1&env=canary&env=x", [], "GET", "pod-3"),
        ("/cond/?env=canary2", [], "GET", "pod-1"),
        ("/cond/?xenv=canary", [], "GET", "pod-1"),
    ],
)
def test_method_headers_and_query_choose(
    house: House, path: str, lines: list[str], method: str, pod: str
) -> None:
    assert house.pod(path, *lines, method=method) == pod


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/old/x?y=/old/", "/new/x?y=/old/"),
        ("/leave/x", "/leave/x"),
        ("/pattern/thing/x?q=/pattern/a/x", "/got/thing?q=/pattern/a/x"),
        ("/inner/%2F", "/%2F"),
    ],
)
def test_the_path_is_rewritten(house: House, path: str, target: str) -> None:
    assert house.ask(path)[2]["target"] == target


def test_the_host_is_rewritten(house: House) -> None:
    seen = dict(house.ask("/inner/", host="outer.test")[2]["headers"])
    assert seen["host"] == "inner.test"


def test_headers_are_added_and_removed(house: House) -> None:
    _, out, seen = house.ask("/edit/", "X-Gone: 1", "X-More: first", "X-Set: theirs")
    fields = seen["headers"]
    assert [value for name, value in fields if name == "x-more"] == ["first", "again"]
    assert [value for name, value in fields if name == "x-set"] == ["ours"]
    assert dict(fields)["x-added"] == "plain"
    assert "x-gone" not in dict(fields)
    assert out["x-out"] == "1"
    assert out["content-type"] == "text/plain"
    assert "server" not in out


def test_the_timeout_of_a_mapping_holds(house: House) -> None:
    status, fields, _ = house.ask("/quick/wait")
    house.backends[0].release.set()
    assert (status, fields["x-stickyproxy-error"]) == (504, "UT")


def test_a_canary_keeps_its_users(house: House) -> None:
    users = [f"X-User: {number}" for number in range(60)]
    first = [house.pod("/canary/", user) for user in users]
    again = [house.pod("/canary/", user) for user in reversed(users)]
    assert first == again[::-1]
    # 30 % of 60 are 18; the hash decides, so the count is the same on every run.
    assert 9 <= Counter(first)["pod-2"] <= 27


def test_without_a_session_a_weight_is_a_matter_of_chance(house: House) -> None:
    # 60 draws at 50 %: all alike once in 2**59.
    assert {house.pod("/dice/") for _ in range(60)} == {"pod-1", "pod-2"}


def test_the_client_behind_a_trusted_hop_is_the_key(house: House) -> None:
    """One trusted hop: the last address in X-Forwarded-For is the client's."""
    clients = [f"10.1.0.{number}" for number in range(50)]
    pods = {ip: house.pod("/ip/", f"X-Forwarded-For: 6.6.6.6, {ip}") for ip in clients}
    assert set(pods.values()) == {"pod-1", "pod-2", "pod-3"}
    for ip in clients[:10]:
        assert house.pod("/ip/", f"X-Forwarded-For: 7.7.7.7,{ip}") == pods[ip]
