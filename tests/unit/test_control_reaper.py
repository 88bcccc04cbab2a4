"""Who nobody waits for is waited for, and nobody else."""

# ruff: noqa: ARG001 (autojump_clock is asked for, for what it does)

from __future__ import annotations

import os
import sys

import trio
import trio.testing

from stickyproxy.control.reaper import EVERY, reap_orphans, zombies
from support.grpc_backends import wait_until


def orphan() -> int:
    """A child that ended and was not waited for."""
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], os.environ)
    wait_until(lambda: pid in zombies(), "it has ended")
    return pid


async def test_what_is_dead_at_two_looks_is_reaped(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    pid = orphan()
    nursery.start_soon(reap_orphans)
    await trio.sleep(EVERY * 1.5)
    assert pid in zombies()
    await trio.sleep(EVERY)
    assert pid not in zombies()


def waiting() -> tuple[int, int]:
    """A child that runs until something is written to the descriptor."""
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    argv = [sys.executable, "-c", f"import os; os.read({reading}, 1)"]
    pid = os.posix_spawn(sys.executable, argv, os.environ)
    os.close(reading)
    return pid, writing


def ended_well(pid: int, writing: int) -> bool:
    os.write(writing, b"x")
    os.close(writing)
    return os.waitpid(pid, 0) == (pid, 0)


async def test_a_child_that_runs_is_left_alone(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    pid, writing = waiting()
    nursery.start_soon(reap_orphans)
    await trio.sleep(EVERY * 5)
    assert pid not in zombies()
    assert ended_well(pid, writing)
