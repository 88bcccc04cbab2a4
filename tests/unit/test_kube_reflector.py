"""List and watch against the project's API server while all goes well, and the parts of it.

Everything runs on memory streams and trio's autojump clock: minutes of waiting cost nothing.
"""

# ruff: noqa: ARG001 - pytest-trio takes its clock from the arguments of a test

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
from trio.testing import MockClock

from stickyproxy.control.discovery.kube_client import Answer, ApiUnreachable
from stickyproxy.control.discovery.kube_reflector import PAGE, Backoff, Lines, collection
from support.fake_kube import Fault
from support.kube_mirror import PATH, World, mirrored


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with mirrored() as world:
        yield world


async def test_list_then_events_in_order(world: World, autojump_clock: MockClock) -> None:
    world.put("a", "10.0.0.1")
    world.start()
    await world.knows("a")
    world.put("b")
    world.delete("a")
    await world.knows("b")
    assert world.mirror.replaced == 1
    (listed,) = world.kube.lists("endpointslices")
    assert listed.query["resourceVersion"] == "0", "the first list may come from the cache"
    (watch,) = world.kube.watches("endpointslices")
    assert watch.query["allowWatchBookmarks"] == "true"
    assert 290 <= int(watch.query["timeoutSeconds"]) <= 580
    assert watch.query["resourceVersion"] == "101"


async def test_pages_make_one_replacement(world: World, autojump_clock: MockClock) -> None:
    names = [f"s{number:04}" for number in range(2 * PAGE + 1)]
    for name in names:
        world.put(name)
    world.reflector._version = ""  # from the cache a list has no pages
    world.start()
    await world.knows(*names)
    assert world.mirror.replaced == 1
    assert len(world.kube.lists("endpointslices")) == 3


async def test_page_that_comes_too_late_starts_the_list_again(
    world: World, autojump_clock: MockClock
) -> None:
    for number in range(PAGE + 1):
        world.put(f"s{number:04}")
    world.reflector._version = ""
    world.kube.faults.append(Fault("status", "continue=", 410))
    world.start()
    await world.mirror.until(lambda: len(world.mirror.known) == PAGE + 1)
    assert world.mirror.replaced == 1, "half a list takes nothing away"


async def test_watch_that_ends_in_time_goes_on_from_the_last_bookmark(
    world: World, autojump_clock: MockClock
) -> None:
    world.put("a")
    world.start()
    await world.knows("a")
    world.kube.store.revision += 40  # elsewhere in the cluster
    await world.watching(2)
    assert world.kube.watches("endpointslices")[1].query["resourceVersion"] == "141"
    assert world.mirror.replaced == 1
    world.put("b")
    await world.knows("a", "b")


async def test_delays_double_to_a_limit_with_jitter_and_start_again(
    autojump_clock: MockClock,
) -> None:
    backoff = Backoff(random.Random(3), 1.0, 10.0)
    delays = [backoff.delay() for _ in range(6)]
    for delay, bare in zip(delays, [1, 2, 4, 8, 10, 10], strict=True):
        assert bare <= delay <= bare * 1.5
    assert delays[4] != delays[5]
    assert backoff.delay(60) >= 60
    backoff.reset()
    assert backoff.delay() <= 1.5


class Pieces(Answer):
    """An answer whose body comes in the pieces given."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    async def receive(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
async def test_lines_are_the_same_however_they_are_cut(
    size: int, autojump_clock: MockClock
) -> None:
    text = b'{"a":1}\n\n{"b":"\xc3\xa4"}\n{"c":3}\n{"half'
    lines = Lines(Pieces(*(text[at : at + size] for at in range(0, len(text), size))))
    found = []
    while (line := await lines.next()) is not None:
        found.append(line)
    assert found == [b'{"a":1}', b'{"b":"\xc3\xa4"}', b'{"c":3}']


async def test_line_without_an_end_is_given_up(autojump_clock: MockClock) -> None:
    lines = Lines(Pieces(*[b"x" * (1 << 20)] * 17))
    with pytest.raises(ApiUnreachable, match="longer"):
        await lines.next()


def test_paths_of_collections() -> None:
    assert collection("v1", "services", "prod") == "/api/v1/namespaces/prod/services"
    assert collection("discovery.k8s.io/v1", "endpointslices", None) == PATH
