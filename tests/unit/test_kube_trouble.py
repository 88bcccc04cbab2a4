"""A reflector and an API server in trouble: nothing is lost for good, nothing is asked in a hurry.

Everything runs on memory streams and trio's autojump clock: minutes of waiting cost nothing.
"""

# ruff: noqa: ARG001 - pytest-trio takes its clock from the arguments of a test

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from stickyproxy.control.discovery.kube_reflector import ABSENT_DELAY, LONGEST_DELAY
from support.fake_kube import Fault
from support.kube_mirror import World, mirrored


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with mirrored() as world:
        yield world


@pytest.mark.parametrize("kind", ["gone", "status"])
async def test_expired_version_is_cured_by_a_list_that_also_deletes(
    world: World, kind: str, autojump_clock: MockClock
) -> None:
    """410 as one line of a watch that was answered with 200, and as a status."""
    world.put("a")
    world.put("b")
    world.kube.faults.append(Fault("end"))
    world.kube.faults.append(Fault(kind, status=410))
    world.start()
    await world.knows("a", "b")
    world.delete("a")
    world.kube.store.compact()
    await world.knows("b")
    lists = world.kube.lists("endpointslices")
    assert "resourceVersion" not in lists[1].query, "never older than what we have seen"


async def test_endless_410_is_asked_with_pauses(world: World, autojump_clock: MockClock) -> None:
    world.kube.faults.append(Fault("gone", times=1000))
    world.start()
    await trio.sleep(60)
    assert 3 < len(world.kube.lists("endpointslices")) < 60


@pytest.mark.parametrize("kind", ["cut", "close", "end", "garbage"])
@pytest.mark.parametrize("after", [0, 1, 2])
async def test_broken_watch_goes_on_where_it_was(
    world: World, kind: str, after: int, autojump_clock: MockClock
) -> None:
    world.kube.faults.append(Fault(kind, after=after))
    world.start()
    await world.knows()
    for name in ("a", "b", "c"):
        world.put(name)
    await world.knows("a", "b", "c")
    assert world.mirror.replaced == 1, "nothing was listed anew for it"


async def test_lines_cut_anywhere_and_events_told_twice_are_the_same_events(
    world: World, autojump_clock: MockClock
) -> None:
    world.kube.faults += [Fault("drip"), Fault("twice")]
    world.start()
    await world.knows()
    world.put("a", "10.0.0.1")
    await world.knows("a")
    await world.kube.drop_connections()
    world.put("b")
    world.delete("a")
    await world.knows("b")


async def test_frozen_watch_is_given_up_and_what_was_missed_is_caught_up(
    world: World, autojump_clock: MockClock
) -> None:
    world.kube.faults.append(Fault("freeze"))
    world.put("a")
    world.start()
    await world.knows("a")
    world.put("b")
    began = trio.current_time()
    await world.knows("a", "b")
    assert trio.current_time() - began <= 580 + 15 + 2
    assert world.mirror.replaced == 1


async def test_server_that_is_away_takes_nothing_away_and_is_noticed_when_back(
    world: World, autojump_clock: MockClock
) -> None:
    world.put("a")
    world.start()
    await world.knows("a")
    world.kube.down = True
    await world.kube.drop_connections()
    await trio.sleep(600)
    assert set(world.mirror.known) == {"a"}
    assert world.reflector.state.synced.is_set()
    assert "refused" in world.reflector.state.problem
    tries = world.kube.dialled
    assert tries < 2 + 600 / LONGEST_DELAY * 1.5
    world.put("b")
    world.kube.down = False
    began = trio.current_time()
    await world.knows("a", "b")
    assert trio.current_time() - began <= LONGEST_DELAY * 1.5
    assert world.reflector.state.problem == ""


async def test_server_set_back_to_an_older_state_is_found_out(
    world: World, autojump_clock: MockClock
) -> None:
    """It says nothing to a version of its future, not even a bookmark; nor is that an error."""
    world.put("a")
    world.start()
    await world.knows("a")
    world.kube.store.revision = 5000
    world.put("b")
    await world.knows("a", "b")
    await world.kube.drop_connections()
    world.kube.store.set_back(50)
    world.kube.store._objects.clear()
    world.put("c")
    began = trio.current_time()
    await world.knows("c")
    assert trio.current_time() - began < 120


async def test_watches_that_never_say_anything_end_in_a_list(
    world: World, autojump_clock: MockClock
) -> None:
    """fabric8#7896: a server that closes a stale watch without a 410."""
    world.put("a")
    world.kube.faults.append(Fault("end", times=3))
    world.start()
    await world.mirror.until(lambda: world.mirror.replaced == 2)
    assert len(world.kube.watches("endpointslices")) == 3


async def test_watches_that_end_at_once_are_asked_with_pauses_even_if_each_says_something(
    world: World, autojump_clock: MockClock
) -> None:
    world.kube.faults.append(Fault("end", after=1, times=1000))
    world.start()
    with trio.move_on_after(20):
        while True:
            await world.kube.arrived.wait()
            world.put("a", f"10.0.0.{len(world.kube.asked)}")
    assert 5 < len(world.kube.watches("endpointslices")) < 20 / 0.8 + 2
    assert world.mirror.replaced == 1


async def test_resource_where_nothing_happens_is_seldom_listed(
    world: World, autojump_clock: MockClock
) -> None:
    """No bookmark comes to it. Trouble makes one list more, soon, and no habit."""
    world.put("a")
    world.start()
    await world.knows("a")
    await trio.sleep(4 * 3600)
    quiet = len(world.kube.lists("endpointslices"))
    assert quiet <= 1 + 4 * 3600 / (3 * 290)
    await world.kube.drop_connections()
    await trio.sleep(120)
    assert len(world.kube.lists("endpointslices")) == quiet + 1
    await trio.sleep(3 * 290 - 60)
    assert len(world.kube.lists("endpointslices")) == quiet + 1


async def test_watch_that_is_cut_before_its_answer_does_not_count_as_empty(
    world: World, autojump_clock: MockClock
) -> None:
    world.kube.faults.append(Fault("close", times=8))
    world.start()
    await world.watching(9)
    assert world.mirror.replaced == 1


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_server_that_refuses_is_asked_again_no_sooner_than_it_says(
    world: World, status: int, autojump_clock: MockClock
) -> None:
    world.kube.faults.append(Fault("status", "endpointslices", status, retry_after=25))
    world.put("a")
    world.start()
    await world.knows("a")
    assert 25 <= trio.current_time() <= 25 * 1.5


async def test_version_that_is_too_large_is_listed_anew(
    world: World, autojump_clock: MockClock
) -> None:
    world.put("a")
    world.start()
    await world.knows("a")
    world.kube.faults.append(Fault("error", status=504))
    await world.kube.drop_connections()
    world.put("b")
    await world.knows("a", "b")
    assert world.mirror.replaced == 1, "a 504 that is another trouble keeps the version"


async def test_list_of_a_version_of_the_future_falls_back_to_the_newest(
    world: World, autojump_clock: MockClock
) -> None:
    world.put("a")
    world.reflector._version = "0"
    listing = Fault("status", "limit=", 504)
    world.kube.faults.append(listing)
    world.start()
    await world.knows("a")
    assert len(world.kube.lists("endpointslices")) == 2


async def test_rotated_token_is_taken_once_and_at_once(
    world: World, autojump_clock: MockClock
) -> None:
    world.access.tokens = ["old", "new"]
    world.kube.tokens = {"new"}
    world.put("a")
    world.start()
    await world.knows("a")
    assert trio.current_time() == 0, "without a pause"
    assert [one.authorization for one in world.kube.asked[:2]] == ["Bearer old", "Bearer new"]


async def test_token_that_is_never_right_is_tried_with_pauses(
    world: World, autojump_clock: MockClock
) -> None:
    world.access.tokens = ["wrong"]
    world.kube.tokens = {"right"}
    world.start()
    await trio.sleep(100)
    assert 10 < len(world.kube.asked) < 60
    assert "401" in world.reflector.state.problem
    assert not world.reflector.state.synced.is_set()


async def test_missing_right_is_told_with_verb_and_resource(
    world: World, capfd: pytest.CaptureFixture[str], autojump_clock: MockClock
) -> None:
    world.kube.forbidden = {"endpointslices"}
    world.start()
    await trio.sleep(100)
    assert 'cannot list resource "endpointslices"' in world.reflector.state.problem
    assert capfd.readouterr().err.count("cannot list") == 1, "told once"
    world.kube.forbidden.clear()
    world.put("a")
    await world.knows("a")


async def test_resource_that_is_not_installed_is_asked_for_again(
    world: World, autojump_clock: MockClock
) -> None:
    told: list[None] = []
    world.reflector._on_absent = lambda: told.append(None)
    world.kube.absent = {"endpointslices"}
    world.start()
    await trio.sleep(10 * ABSENT_DELAY)
    assert world.reflector.state.absent
    assert 6 <= len(told) <= 10
    world.kube.absent.clear()
    world.put("a")
    await world.knows("a")
    assert not world.reflector.state.absent
