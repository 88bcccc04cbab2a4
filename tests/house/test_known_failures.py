"""The list of known failures of the conformance suites: dated, reasoned, and only ever shorter."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from conformance.board.known import Known, read

MOST = 5
"""How long the list may be: lowered with it, never raised."""


def complaints(known: list[Known]) -> list[str]:
    found = [f"{len(known)} known failures; {MOST} is the most"] if len(known) > MOST else []
    found += [f"{one.case}: without a reason" for one in known if len(one.reason.split()) < 5]
    return found + [f"{one.case}: twice" for one in known if known.count(one) > 1]


def test_the_list_of_known_failures_is_dated_and_reasoned_and_does_not_grow() -> None:
    assert complaints(read()) == []


def test_a_longer_list_and_a_missing_reason_are_found() -> None:
    entry = Known("h2spec", "http2/1/1", dt.date(2026, 1, 1), "because")

    assert len(complaints([entry] * (MOST + 1))) == 1 + 2 * (MOST + 1)


def test_an_entry_without_a_day_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "known.yaml"
    file.write_text("- {row: h2spec, case: http2/1/1, since: long ago, reason: it is so}")

    with pytest.raises(TypeError, match="since which day"):
        read(file)
