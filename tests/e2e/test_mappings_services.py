"""What Mappings say of their services: names, headers, connections of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.asking import Site, running_site
from support.exposed import Exposed
from support.grpc_calls import access_line
from support.http_backends import echo_backends
from support.http_clients import raw_client
from support.proxy_process import running_proxy

DOCUMENTS = """
---
{apiVersion: ambassador/v1, kind: Mapping, name: linkerd, prefix: /linkerd/, service: "one:8080",
 add_linkerd_headers: true}
---
{apiVersion: ambassador/v1, kind: Mapping, name: named, prefix: /named/, service: one,
 stats_name: shop}
---
{apiVersion: ambassador/v1, kind: Mapping, name: tagged, prefix: /tagged/, service: one,
 cluster_tag: apart}
---
{apiVersion: ambassador/v1, kind: Mapping, name: plain, prefix: /plain/, service: one}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("services"), DOCUMENTS) as running:
        yield running


def test_linkerd_is_told_the_service(site: Site) -> None:
    assert site.ask("/linkerd/", "l5d-dst-override: forged").asked("l5d-dst-override") == [
        "one:8080"
    ]


def test_the_stats_name_is_in_log_and_metrics(site: Site) -> None:
    site.ask("/named/", "X-Request-Id: by-name")

    assert access_line(site.proxy, "by-name")["cluster"] == "shop"
    assert Exposed(site.proxy).total("upstream_rq_total", cluster="shop") == 1


def test_a_tagged_mapping_has_connections_of_its_own(site: Site) -> None:
    plain, tagged, again = (site.ask(path).seen for path in ("/plain/", "/tagged/", "/plain/"))

    assert plain is not None
    assert tagged is not None
    assert again is not None
    assert plain["connection"] != tagged["connection"]
    assert plain["connection"] == again["connection"]


def test_auto_host_rewrite_gives_the_service_its_own_name(tmp_path: Path) -> None:
    config = tmp_path / "auto.yaml"
    with echo_backends(1) as [backend]:
        config.write_text(
            "{apiVersion: ambassador/v1, kind: Mapping, name: auto, prefix: /, "
            f'service: "localhost:{backend.port}", auto_host_rewrite: true}}'
        )
        with running_proxy(str(config)) as proxy:
            told = Site(proxy, [backend]).ask("/x", host="public.example")

    assert told.asked("host") == ["localhost"]


def test_an_idle_client_is_sent_away(tmp_path: Path) -> None:
    rules = (
        "{apiVersion: ambassador/v1, kind: Module, name: ambassador, "
        "config: {listener_idle_timeout_ms: 500}}\n---\n"
        "{apiVersion: ambassador/v1, kind: Mapping, name: all, prefix: /, service: one}\n"
    )
    with running_site(tmp_path, rules) as site, raw_client(site.proxy.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.read_response()[0] == 200
        assert client.read_to_end() == b""
