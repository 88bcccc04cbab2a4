"""How many workers `auto` is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stickyproxy.control.cores import cores

ALL = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("said", "most"),
    [("max 100000\n", ALL), ("100000 100000\n", 1), ("50000 100000\n", 1), ("nonsense", ALL)],
)
def test_a_containers_limit_counts(tmp_path: Path, said: str, most: int) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(said)
    assert cores(file, tmp_path / "none") == most


def test_part_of_a_core_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    file = tmp_path / "cpu.max"
    file.write_text("250000 100000\n")
    assert cores(file, tmp_path) == 3
    file.write_text("max 100000\n")
    assert cores(file, tmp_path) == 64


@pytest.mark.parametrize(("quota", "most"), [("150000", 2), ("-1", 64)])
def test_the_older_cgroups_limit_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str, most: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    (tmp_path / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu.cfs_period_us").write_text("100000")
    assert cores(tmp_path / "none", tmp_path) == most
