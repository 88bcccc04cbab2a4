"""Shadows at work: the second backend sees what the first is asked, and nobody else notices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.asking import Site, running_site
from support.exposed import Exposed
from support.http_backends import body_of, digest
from support.http_clients import curl

DOCUMENTS = """
---
{apiVersion: ambassador/v1, kind: Mapping, name: main, prefix: /s/, service: one}
---
{apiVersion: ambassador/v1, kind: Mapping, name: copies, prefix: /s/, service: two, shadow: true}
---
{apiVersion: ambassador/v1, kind: Mapping, name: lone, prefix: /lone/, service: one}
---
{apiVersion: ambassador/v1, kind: Mapping, name: lone-copies, prefix: /lone/,
 service: "127.0.0.1:1", shadow: true, weight: 100}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("shadow"), DOCUMENTS, count=2) as running:
        yield running


def copy_of(site: Site, target: str) -> dict[str, object]:
    """What the shadow was asked, once it was."""

    def found() -> list[dict[str, object]]:
        return [seen for seen in list(site.backends[1].requests) if seen["target"] == target]

    site.proxy.wait_until(lambda: bool(found()))
    [seen] = found()
    return seen


def test_the_shadow_gets_the_request_that_the_service_got(site: Site) -> None:
    told = site.ask("/s/copied?q=1", "X-Own: 7")
    copy = copy_of(site, "/copied?q=1")

    assert (told.pod, told.asked("host"), told.asked("x-own")) == ("pod-1", ["a.test"], ["7"])
    headers = dict(copy["headers"])  # type: ignore[call-overload]
    assert headers["host"] == "a.test-shadow"
    assert headers["x-request-id"] == told.asked("x-request-id")[0]
    assert headers["x-own"] == "7"


def test_bodies_are_copied_whole(site: Site, tmp_path: Path) -> None:
    body = body_of(900_000)
    file = tmp_path / "body"
    file.write_bytes(body)
    answer = curl(f"http://127.0.0.1:{site.proxy.port}/s/upload", "--data-binary", f"@{file}")

    assert answer.json()["digest"] == digest(body)
    assert copy_of(site, "/upload")["digest"] == digest(body)


def test_a_shadow_that_waits_holds_nobody_up(site: Site) -> None:
    """The shadow answers `/wait` only when it is released, which it is when all is over."""
    site.backends[0].release.set()
    told = site.ask("/s/wait")

    assert told.status == 200
    assert copy_of(site, "/wait")
    site.backends[1].release.set()


def test_a_dead_shadow_is_counted_and_not_felt(site: Site) -> None:
    for number in range(5):
        assert site.ask(f"/lone/{number}").pod == "pod-1"

    def dropped() -> float:
        return Exposed(site.proxy).total("upstream_rq_shadow_dropped", cluster="127.0.0.1:1")

    site.proxy.wait_until(lambda: dropped() == 5)
    exposed = Exposed(site.proxy)
    assert exposed.total("upstream_rq_shadow_total", cluster="127.0.0.1:1") == 5
    assert [e for e in site.proxy.events if str(e.get("event", "")).startswith("bug")] == []


def test_copies_write_no_line_of_their_own(site: Site) -> None:
    site.ask("/s/once", "X-Request-Id: only-line")
    copy_of(site, "/once")
    site.ask("/s/last", "X-Request-Id: last-line")
    site.proxy.wait_until(
        lambda: any(line["request_id"] == "last-line" for line in list(site.proxy.access))
    )

    assert sum(line["request_id"] == "only-line" for line in site.proxy.access) == 1
