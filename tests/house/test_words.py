"""The house's words and sizes, and that every exception and dependency carries its reason."""

from __future__ import annotations

import ast
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"
TESTS = ROOT / "tests"
LARGEST = 500  # lines; a room near it is two rooms

SHAPELESS = {"base", "common", "core", "helper", "helpers", "manager", "misc", "util", "utils"}
"""Module names that say nothing about what is inside."""

FOREIGN = {"frontend": "downstream", "blacklist": "ejected", "whitelist": "allowed"}
"""Words the house has another word for."""

LATER = ("TO" + "DO", "FIX" + "ME", "XX" + "X")  # split, or this file would break its own rule


def complaints(path: Path, source: str) -> list[str]:
    """What in a source file breaks the house's words, one line each."""
    found = []
    if path.stem in SHAPELESS:
        found.append(f"{path}: a module named {path.stem} could hold anything")
    if (length := source.count("\n")) > LARGEST:
        found.append(f"{path}: {length} lines are two rooms")
    found += [
        f"{path}:{line}: {name}; the house says {FOREIGN[word]}"
        for name, line in names(source)
        for word in FOREIGN
        if word in name.lower()
    ]
    return found + postponed(path, source)


def postponed(path: Path, source: str) -> list[str]:
    return [
        f"{path}:{token.start[0]}: {token.string.strip()}; do it or drop it"
        for token in tokenize.generate_tokens(StringIO(source).readline)
        if token.type == tokenize.COMMENT and any(word in token.string for word in LATER)
    ]


def names(source: str) -> Iterator[tuple[str, int]]:
    """Everything that a source file gives a name to."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno


def sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def test_source_keeps_the_words_and_sizes_of_the_house() -> None:
    assert len(sources(SRC)) > len(("errors", "model"))  # it did look somewhere
    assert [c for path in sources(SRC) for c in complaints(path, path.read_text())] == []


def test_tests_postpone_nothing() -> None:
    assert [c for path in sources(TESTS) for c in postponed(path, path.read_text())] == []


def test_no_two_test_files_share_a_name() -> None:
    counts = Counter(path.name for path in sources(TESTS) if path.name.startswith("test_"))

    assert [name for name, count in counts.items() if count > 1] == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("utils.py", ""),
        ("link.py", "\n" * (LARGEST + 1)),
        ("link.py", f"x = 1  # {LATER[0]}: later"),
        ("link.py", "frontend_link = 1"),
        ("link.py", "def accept(frontend): ..."),
        ("link.py", "class FrontendLink: ..."),
    ],
)
def test_a_broken_word_is_found(name: str, source: str) -> None:
    assert len(complaints(Path(name), source)) == 1


def test_good_source_is_not_complained_of() -> None:
    good = "def accept(downstream: int) -> str:\n    return 'frontend'  # their word, not ours\n"

    assert complaints(Path("link.py"), good) == []


def without_reason(toml: str) -> list[str]:
    """Entries of lists, one a line, that have no comment beside them."""
    return [line.strip() for line in toml.splitlines() if re.match(r'\s+"[^"]*",?\s*$', line)]


def test_every_dependency_and_switched_off_lint_has_its_reason_beside_it() -> None:
    assert without_reason((ROOT / "pyproject.toml").read_text()) == []


def test_an_entry_without_reason_is_found() -> None:
    assert without_reason('x = [\n    "a>=1", # why\n    "b>=2",\n]\n') == ['"b>=2",']
