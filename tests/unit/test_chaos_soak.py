"""Random faults that all end, and what counts as left behind."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.counted import collect_if_wanted, collecting
from chaos.job import CHAT, Setup
from chaos.soak import Rest, complaints, faults

HEALING = {"heal", "thaw", "well"}


@pytest.mark.parametrize("seed", range(20))
def test_every_fault_is_healed_at_the_same_backend_before_the_next(seed: int) -> None:
    steps = list(faults(50.0, Setup(), seed))
    broken = None

    for step in steps:
        if step.what in HEALING:
            assert broken == step.backend
            broken = None
        else:
            assert broken is None
            broken = None if step.what in ("rst", "goaway") else step.backend
    assert broken is None
    assert [step.at for step in steps] == sorted(step.at for step in steps)
    assert steps[-1].at < 50


def test_all_backends_and_all_faults_have_their_turn() -> None:
    steps = [step for seed in range(10) for step in faults(50.0, Setup(), seed)]

    assert {step.backend for step in steps} == {1, 2, 3}
    assert len({step.what for step in steps} - HEALING) == 8


def test_streams_that_stay_open_are_never_sent_to_the_deaf() -> None:
    steps = [step for seed in range(10) for step in faults(50.0, Setup(kind=CHAT), seed)]

    assert "deaf" not in {step.what for step in steps}


GOOD = Rest(
    tasks=20, files=15, memory=60 << 20, under_way=0, pending=0, calls=10, failed=1, unanswered=0
)


def test_what_stays_as_it_was_is_no_leak() -> None:
    assert complaints([GOOD, GOOD, replace(GOOD, memory=62 << 20, files=18, tasks=30)]) == []


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (replace(GOOD, tasks=100), "tasks"),
        (replace(GOOD, files=40), "files"),
        (replace(GOOD, memory=90 << 20), "memory"),
        (replace(GOOD, under_way=1), "under way"),
        (replace(GOOD, pending=2), "pending"),
        (replace(GOOD, unanswered=1), "never answered"),
    ],
)
def test_a_leak_is_told(last: Rest, words: str) -> None:
    (said,) = complaints([GOOD, GOOD, GOOD, last])

    assert words in said


def test_what_only_a_cycle_holds_is_gone_before_memory_is_looked_at(tmp_path: Path) -> None:
    class Thing: ...

    thing = Thing()
    thing.itself = thing  # type: ignore[attr-defined]
    seen = weakref.ref(thing)
    gc.disable()
    try:
        del thing
        collect_if_wanted(tmp_path / "tasks")
        assert seen() is not None
        collecting(tmp_path / "tasks").touch()
        collect_if_wanted(tmp_path / "tasks")
        assert seen() is None
    finally:
        gc.enable()
    assert not collecting(tmp_path / "tasks").exists()
