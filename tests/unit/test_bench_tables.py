"""What the bench says of the two tables: counted as sampled, and written where it belongs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bench import tables
from bench.__main__ import documents
from bench.cases import Pace, Plan, Sample
from bench.pages import BEGIN
from bench.picking import Picker
from bench.report import as_json
from stickyproxy.health.book import HealthBook
from stickyproxy.policy.maglev import MaglevTable

_chance = Random(7)
HASHES = [_chance.getrandbits(64) for _ in range(20_000)]


@pytest.mark.parametrize("policy", tables.POLICIES)
def test_counted_shares_are_those_of_sampled_keys(policy: str) -> None:
    table = tables.build(policy, tables.names(5, 1))
    homes = [table.lookup(hash_) for hash_ in HASHES]

    shares = tables.shares(table)

    assert sum(shares) == pytest.approx(1.0)
    assert shares == pytest.approx([homes.count(n) / len(homes) for n in range(5)], abs=0.02)


@pytest.mark.parametrize("policy", tables.POLICIES)
@pytest.mark.parametrize("leaver", [0, 3, 9])
def test_counted_moves_are_those_of_sampled_keys(policy: str, leaver: int) -> None:
    keys = tables.names(10, 1)
    left = keys[:leaver] + keys[leaver + 1 :]
    before, after = tables.build(policy, keys), tables.build(policy, left)
    pairs = [(keys[before.lookup(hash_)], left[after.lookup(hash_)]) for hash_ in HASHES]
    others = [old != new for old, new in pairs if old != keys[leaver]]

    counted = tables.moved(before, after, leaver)

    assert counted == pytest.approx(sum(others) / len(others), abs=0.01)
    assert 0 < counted < 0.2


def test_tables_of_two_policies_have_no_common_parts() -> None:
    keys = tables.names(3, 1)
    with pytest.raises(TypeError):
        tables.moved(tables.build("maglev", keys), tables.build("ring_hash", keys[1:]), 0)


@pytest.mark.parametrize("policy", tables.POLICIES)
def test_a_host_that_is_walked_past_moves_nobody_else(policy: str) -> None:
    assert tables.walked(tables.cluster(policy, tables.names(10, 2)), 4) == 0


def test_a_table_that_knows_another_home_is_seen_as_moved_keys() -> None:
    made = tables.cluster("maglev", tables.names(10, 2))
    assert isinstance(made.table, MaglevTable)
    attempts = Shifting(made.table.slots, 10)

    assert tables.walked(replace(made, table=attempts), 4) > 0.5


class Shifting(MaglevTable):
    """Answers each question with the next host, so that whoever is asked twice has moved."""

    asked = 0

    def lookup(self, hash_: int, attempt: int = 0) -> int:
        self.asked += 1
        return (super().lookup(hash_, attempt) + self.asked) % 10


def test_a_suspected_home_is_walked_past_and_no_other() -> None:
    made = tables.cluster("maglev", tables.names(3, 1))
    well, health = Picker(made, HealthBook()), HealthBook()
    heads = [{b"x-user-id": b"user-%d" % number} for number in range(100)]
    homes = [well.pick(list(head.items()), head, 1.0) for head in heads]
    health.connect_failed("c", made.endpoints[0], 1.0)
    wary = Picker(made, health)

    now = [wary.pick(list(head.items()), head, 1.0) for head in heads]

    assert set(homes) == set(made.endpoints)
    assert made.endpoints[0] not in now
    moved = {old for old, new in zip(homes, now, strict=True) if old != new}
    assert moved == {made.endpoints[0]}


# --- where it is written --------------------------------------------------------------------------


def measured() -> dict[str, Any]:
    keys = [figure.key for figure in tables.TABLES.figures]
    samples = [
        Sample(
            "tables", setting.title, log=True, round=number, figures=dict.fromkeys(keys, 1.0 + at)
        )
        for at, setting in enumerate(tables.SETTINGS)
        for number in range(3)
    ]
    return {
        "when": "2026-01-02T00:00:00Z",
        "cases": [as_json(tables.TABLES, samples, [])],
        "versions": {},
    }


def test_tables_alone_replace_their_own_section_only(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("# Performance\n\nfirst\n")
    page.write_text(documents(measured(), tmp_path)[page] + "\nlast\n")

    files = documents(measured(), tmp_path)

    assert set(files) == {page, tmp_path / "images" / "tables.svg"}
    text = files[page]
    assert text.startswith("# Performance\n\nfirst\n")
    assert text.endswith("last\n")
    assert text.count("## Ring hash or Maglev") == 1
    assert BEGIN not in text
    assert "| 1,000 | `ring_hash` | 8.0 | 8 | 8.00 |" in text


def test_the_picture_has_a_bar_for_each_figure_of_each_table(tmp_path: Path) -> None:
    drawn = documents(measured(), tmp_path)[tmp_path / "images" / "tables.svg"]

    panels, legend = 6, len(tables.POLICIES)
    assert drawn.count("<rect") == panels * len(tables.SETTINGS) + legend


def test_a_round_measures_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "SETTINGS", tables.SETTINGS[:4])
    said: list[str] = []
    plan = Plan([], Pace(rounds=1), [True], (Path(), Path()), said.append)

    samples = tables.rounds(plan)

    assert [s.name for s in samples] == [setting.title for setting in tables.SETTINGS]
    assert len(said) == 4
    for sample in samples:
        assert set(sample.figures) == {figure.key for figure in tables.TABLES.figures}
        assert sample.figures["walked"] == 0
        assert sample.figures["least"] <= 1 <= sample.figures["most"]
