"""Every case that a fuzzer began with or found, through its target: no law is broken (`./dev fuzz`)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.fuzzing import TARGETS

CORPUS = Path(__file__).parents[1] / "data" / "fuzz"
CASES = sorted(path for path in CORPUS.glob("*/*"))


def test_each_target_has_a_corpus_and_each_corpus_a_target() -> None:
    assert {path.parent.name for path in CASES} == set(TARGETS)


@pytest.mark.parametrize("case", CASES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_case_of_the_corpus_breaks_no_law(case: Path) -> None:
    TARGETS[case.parent.name](case.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_a_case_with_a_piece_changed_breaks_none_either(name: str, data: st.DataObject) -> None:
    """Cut off anywhere, or with some octets replaced: what atheris does, blindly, in every run."""
    seeds = [path.read_bytes() for path in CASES if path.parent.name == name]
    case = bytearray(data.draw(st.sampled_from(seeds)))
    at = data.draw(st.integers(0, len(case)))
    case[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    TARGETS[name](bytes(case[: data.draw(st.integers(0, len(case)))]))
