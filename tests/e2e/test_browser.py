"""Real Chromium on a page of ours: gRPC-Web by fetch and WebSockets, over HTTP/1.1 and over HTTP/2.

The page comes from another origin than the proxy. One run of the browser does all of it; what it was told
is looked at here, claim by claim.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.browser import find, page_server, told_by_page
from support.grpc_backends import Fleet, running_backends
from support.http_lab import Authority
from support.proxy_process import ProxyProcess, running_proxy
from support.websocket_peers import WebSocketBackend, websocket_backends

PAGE = Path(__file__).parents[1] / "data" / "browser"
WAYS = ("clear", "secure")
FORMS = ("", "-text")
CHROMIUM = find()

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not on this machine")
ways = pytest.mark.parametrize("way", WAYS)
SOCKET_WAYS = ("sockets", "secureSockets", "socketsByH2", "secureSocketsByH2")
"""From HTTP/1.1 and HTTP/2, to HTTP/1.1 and to HTTP/2 (which is another proxy: it takes RFC 8441)."""
socket_ways = pytest.mark.parametrize("way", SOCKET_WAYS)
forms = pytest.mark.parametrize("form", FORMS)


@dataclass(frozen=True)
class Seen:
    """`told` is what the page found; `proxies` by way, `socket_proxies` too."""

    told: dict[str, Any]
    fleet: Fleet
    proxies: dict[str, ProxyProcess]
    socket_proxies: dict[str, ProxyProcess]
    socket_backend: WebSocketBackend

    def of(self, way: str, case: str) -> Any:
        return self.told[way][case]


def by_h2(behind: ProxyProcess) -> tuple[str, ...]:
    return "--backend", f"h2c://{behind.target}", "--allow-upgrade", "websocket"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    assert CHROMIUM is not None
    authority = Authority.make(tmp_path_factory.mktemp("authority"))
    tls = authority.proxy_flags
    with (
        page_server(PAGE) as pages,
        running_backends("one") as fleet,
        websocket_backends() as [socket_backend],
    ):
        web = (*fleet.flags, "--cors-origin", pages.origin)
        socket = ("--backend", f"http://{socket_backend.address}", "--allow-upgrade", "websocket")
        with (
            running_proxy(*web) as clear,
            running_proxy(*web, *tls) as secure,
            running_proxy(*fleet.flags) as closed,
            running_proxy(*socket) as sockets,
            running_proxy(*socket, *tls) as secure_sockets,
            running_proxy(*socket) as behind,
            running_proxy(*by_h2(behind)) as sockets_by_h2,
            running_proxy(*by_h2(behind), *tls) as secure_sockets_by_h2,
        ):
            asked = {
                "clear": f"http://{clear.target}",
                "secure": f"https://{secure.target}",
                "closed": f"http://{closed.target}",
                "sockets": f"http://{sockets.target}",
                "secureSockets": f"https://{secure_sockets.target}",
                "socketsByH2": f"http://{sockets_by_h2.target}",
                "secureSocketsByH2": f"https://{secure_sockets_by_h2.target}",
            }
            told = told_by_page(CHROMIUM, pages, asked, tmp_path_factory.mktemp("profile"))
            assert "error" not in told, told["error"]
            yield Seen(
                told,
                fleet,
                {"clear": clear, "secure": secure},
                {
                    "sockets": sockets,
                    "secureSockets": secure_sockets,
                    "socketsByH2": sockets_by_h2,
                    "secureSocketsByH2": secure_sockets_by_h2,
                },
                socket_backend,
            )


@ways
@forms
def test_a_unary_call_has_its_answer_and_its_trailers(seen: Seen, way: str, form: str) -> None:
    told = seen.of(way, f"unary{form}")
    assert (told["http"], told["status"], told["messages"]) == (200, "0", ["hello"])
    assert told["trailers"]["t-more"] == "yes"
    assert told["head"]["i-more"] == "no"
    assert told["type"] == f"application/grpc-web{form}"


@ways
@forms
def test_a_stream_has_all_its_messages(seen: Seen, way: str, form: str) -> None:
    told = seen.of(way, f"stream{form}")
    assert (told["status"], told["messages"]) == ("0", ["again"] * 3)


@ways
@forms
def test_empty_and_huge_messages_come_back(seen: Seen, way: str, form: str) -> None:
    assert seen.of(way, f"empty{form}")["messages"] == [""]
    assert seen.of(way, f"huge{form}")["messages"] == ["1048576 bytes"]


@ways
@forms
def test_failures_are_statuses(seen: Seen, way: str, form: str) -> None:
    told = seen.of(way, f"fail{form}")
    assert (told["status"], told["messages"]) == ("5", [])
    assert told["trailers"]["grpc-message"] == "not here"
    assert told["trailers"]["t-more"] == "yes"
    late = seen.of(way, f"late{form}")
    assert (late["status"], late["messages"]) == ("10", ["one", "two"])
    assert seen.of(way, "unknown")["status"] == "12"


@ways
def test_several_messages_and_a_half_close_reach_the_backend(seen: Seen, way: str) -> None:
    told = seen.of(way, "halfClose")
    assert told["messages"] == ["one", "", "two"]
    assert told["trailers"]["grpc-status"] == "0"


@ways
def test_compressed_messages_pass(seen: Seen, way: str) -> None:
    told = seen.of(way, "compressed")
    assert told["status"] == "0"
    assert len(told["messages"]) == 1


@ways
def test_a_deadline_is_kept(seen: Seen, way: str) -> None:
    assert seen.of(way, "deadline")["status"] == "4"


@ways
@pytest.mark.parametrize("case", ["cancel", "closed"])
def test_a_page_that_stops_or_closes_cancels_the_backend(seen: Seen, way: str, case: str) -> None:
    assert seen.of(way, case) == {"cancel": "AbortError", "closed": "removed"}[case]
    base = f"http{'s' * (way == 'secure')}://{seen.proxies[way].target}"
    [call] = [c for c in seen.fleet.journal.calls if c.values("x-case") == [f"{case}-{base}"]]
    assert call.ended.wait(30)


def test_the_ways_were_http1_and_http2(seen: Seen) -> None:
    assert {line["protocol"] for line in seen.proxies["clear"].access} == {"HTTP/1.1"}
    assert {line["protocol"] for line in seen.proxies["secure"].access} == {"HTTP/2"}


def test_an_origin_that_nobody_named_sees_nothing(seen: Seen) -> None:
    assert seen.told["stranger"] == "TypeError"


@socket_ways
def test_a_websocket_talks_and_closes_with_its_code(seen: Seen, way: str) -> None:
    talk = seen.of(way, "talk")
    assert talk["messages"] == ["hello", "200000 bytes", "bye"]
    assert talk["protocol"] == "chat"
    assert (talk["code"], talk["wasClean"]) == (4001, True)


@socket_ways
def test_a_page_hears_why_a_websocket_ended(seen: Seen, way: str) -> None:
    closed = seen.of(way, "closed")
    assert (closed["code"], closed["reason"], closed["wasClean"]) == (4002, "as you wish", True)
    assert seen.of(way, "vanished")["code"] == 1006


def test_chromium_takes_rfc_8441_where_there_is_an_http2_connection(seen: Seen) -> None:
    for way in SOCKET_WAYS:
        protocol = "HTTP/2" if way.startswith("secure") else "HTTP/1.1"
        lines = [line for line in seen.socket_proxies[way].access if "upgrade" in line]
        assert len(lines) == 3
        assert {line["protocol"] for line in lines} == {protocol}
