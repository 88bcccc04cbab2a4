"""Hostile backends on the whole proxy: their link ends, or only the stream; nobody else feels it.

Their client keeps its connection, and a neighbour with another backend is served all the while.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import rawframes as raw
from support.attacks_upstream import TRICKS, TrickyBackend, tricky_backend
from support.h2_backend import h2_backend
from support.http_backends import Conversation, scripted_backend
from support.http_clients import h2_request, raw_h2_client
from support.http_lab import mappings
from support.leftovers import wait_for_nothing_left
from support.neighbours import Neighbour
from support.proxy_process import ProxyProcess, running_proxy

WIDE_OPEN = raw.settings({raw.INITIAL_WINDOW_SIZE: 2**31 - 1}) + raw.window_update(0, 2**30)


@dataclass(frozen=True)
class Lab:
    """One proxy; `/NUMBER/` leads to the backend with that trick, `/good/` to one that has none."""

    proxy: ProxyProcess
    backends: Sequence[TrickyBackend]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    config = tmp_path_factory.mktemp("tricks") / "mappings.yaml"
    with ExitStack() as stack:
        good = stack.enter_context(h2_backend())
        backends = [stack.enter_context(tricky_backend(trick, trick.few)) for trick in TRICKS]
        services = {str(number): backend.address for number, backend in enumerate(backends)}
        services["good"] = good.address
        config.write_text(mappings({name: f"h2c://{at}" for name, at in services.items()}))
        proxy = stack.enter_context(running_proxy(str(config), "--access-log", "off"))
        yield Lab(proxy, backends)
        assert [line for line in proxy.events if str(line["event"]).startswith("bug")] == []


def test_an_http1_backend_that_only_announces_loses_its_connection(tmp_path: Path) -> None:
    """Informational heads have no end of their own, no credit, and go to the client one by one."""

    def script(talk: Conversation) -> None:
        talk.read_head()
        for _ in range(2000):
            talk.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 100)

    config = tmp_path / "mappings.yaml"
    with scripted_backend(script) as backend, h2_backend() as good:
        services = {"bad": f"http://{backend.address}", "good": f"h2c://{good.address}"}
        config.write_text(mappings(services))
        with (
            running_proxy(str(config), "--access-log", "off") as proxy,
            Neighbour(proxy.port, b"/good/") as neighbour,
            raw_h2_client(proxy.port) as client,
        ):
            client.request(1, h2_request(b"/bad/"))
            told = 0
            while 1 not in client.heads:
                assert client.frame() is not None
                told += 1
            assert dict(client.heads[1])[b":status"] == b"503"
        assert told < 10_000, "of 200,000 that the backend says"
        assert neighbour.failures == []


@pytest.mark.parametrize("number", range(len(TRICKS)), ids=[trick.name for trick in TRICKS])
def test_a_hostile_backend_costs_its_own_calls_only(lab: Lab, number: int) -> None:
    proxy, tricky, trick = lab.proxy, lab.backends[number], TRICKS[number]
    with Neighbour(proxy.port, b"/good/") as neighbour, raw_h2_client(proxy.port) as client:
        client.send(WIDE_OPEN)
        client.request(1, h2_request(b"/%d/" % number))
        found = client.ending(1)
        assert found is not None, "the client's connection ended"
        assert found.kind != raw.GOAWAY, "it was blamed for its backend"
        client.request(3, h2_request(b"/good/"))
        assert client.response(3)[0][b":status"] == b"200"
        if "A" not in trick.ends:
            with tricky.changed:
                tricky.changed.wait_for(lambda: tricky.codes, timeout=30)
    assert tricky.outcome() in trick.ends
    assert tricky.requests <= 3, "tried again without end"
    assert neighbour.failures == []
    wait_for_nothing_left(proxy)
