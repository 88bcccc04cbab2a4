"""DNS fails, goes away and comes back, as the system's own resolver has it: what was known stays served."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.dns_server import Dns, dns_server, missing, resolved_by
from support.exposed import Exposed
from support.http_backends import EchoBackend, echo_backends
from support.http_clients import raw_client
from support.proxy_process import ProxyProcess, running_proxy

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

OLD, NEW = "127.0.0.31", "127.0.0.32"
GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture
def dns() -> Iterator[Dns]:
    with dns_server(web_test=OLD) as server:
        yield server


@pytest.fixture
def web() -> Iterator[EchoBackend]:
    """On every address of the loopback."""
    with echo_backends(host="0.0.0.0") as [backend]:
        yield backend


def asked(proxy: ProxyProcess) -> str:
    """The address that served one request."""
    before = len(proxy.access)
    with raw_client(proxy.port) as client:
        client.send(GET)
        assert client.read_response()[0] == 200
    line = proxy.wait_for_access(before + 1)[-1]
    return str(line["upstream_host"]).rpartition(":")[0]


def failing(proxy: ProxyProcess) -> float:
    return Exposed(proxy).total("stickyproxy_dns_names_failed")


@pytest.mark.parametrize(
    ("how", "workers"), [("away", "1"), ("away", "2"), ("broken", "1"), ("forgets", "1")]
)
def test_what_was_resolved_stays_served_and_it_says_so_until_dns_is_back(
    dns: Dns, web: EchoBackend, tmp_path: Path, how: str, workers: str
) -> None:
    port = web.address.rpartition(":")[2]
    flags = ("--backend", f"http://web.test:{port}", "--dns-refresh", "0.3", "--workers", workers)
    with running_proxy(*flags, within=resolved_by(tmp_path)) as proxy:
        assert asked(proxy) == OLD
        assert failing(proxy) == 0

        if how == "forgets":
            dns.known.clear()
        else:
            setattr(dns, how, True)
        told = proxy.wait_for_event("dns_failed")
        assert (told["name"], told["kept"]) == ("web.test", [OLD])
        assert [asked(proxy) for _ in range(5)] == [OLD] * 5
        assert failing(proxy) == 1
        before = dns.asked
        proxy.wait_until(lambda: dns.asked > before + 2)
        assert len([line for line in proxy.events if line["event"] == "dns_failed"]) == 1
        assert Exposed(proxy).total("stickyproxy_dns_failures_total") >= 2

        dns.known["web.test"] = NEW
        dns.away = dns.broken = False
        told = proxy.wait_for_event("dns_answered")
        assert (told["name"], told["addresses"]) == ("web.test", [NEW])
        proxy.wait_until(lambda: asked(proxy) == NEW)
        assert failing(proxy) == 0


def test_a_start_without_dns_serves_what_needs_none_and_the_rest_as_soon_as_it_answers(
    dns: Dns, web: EchoBackend, tmp_path: Path
) -> None:
    dns.away = True
    port = web.address.rpartition(":")[2]
    flags = ("--backend", f"http://web.test:{port}", "--dns-refresh", "0.3")
    with running_proxy(*flags, within=resolved_by(tmp_path)) as proxy:
        with raw_client(proxy.port) as client:
            client.send(GET)
            assert client.read_response()[0] == 503
        assert proxy.wait_for_event("dns_failed")["kept"] == []

        dns.away = False
        proxy.wait_for_event("dns_answered")
        with raw_client(proxy.port) as client:
            client.send(GET)
            assert client.read_response()[0] == 200


@pytest.mark.usefixtures("dns")
def test_a_cluster_whose_name_nobody_knows_says_so_where_people_look(tmp_path: Path) -> None:
    flags = ("--backend", "http://nobody.test:80", "--dns-refresh", "0.3")
    with running_proxy(*flags, within=resolved_by(tmp_path)) as proxy:
        url = f"http://127.0.0.1:{proxy.admin_port}/live"
        with urllib.request.urlopen(url, timeout=30) as page:
            shown = page.read().decode()
    assert "backends</a>: DNS: nobody.test: " in shown
