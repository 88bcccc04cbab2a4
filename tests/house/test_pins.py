"""constraints.txt pins everything and names nobody's registry."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    split = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in split}


def demanded(name: str, extra: str) -> Iterator[Requirement]:
    """What the installed distribution asks for here, with one of its extras."""
    environment = {"extra": extra}  # the rest is as it is here
    for text in importlib.metadata.requires(name) or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            yield requirement


def closure(name: str, extra: str = "", seen: set[tuple[str, str]] | None = None) -> set[str]:
    """Names of all distributions that come along, `name` itself included."""
    seen = set() if seen is None else seen
    if (name, extra) not in seen:
        seen.add((name, extra))
        for requirement in demanded(name, extra):
            for wanted in ("", *requirement.extras):
                closure(canonicalize_name(requirement.name), wanted, seen)
    return {each for each, _ in seen}


def test_everything_that_the_test_extra_pulls_is_pinned() -> None:
    pulled = closure("stickyproxy", "test") - {"stickyproxy", "pip"}  # pip is the environment's own

    assert "trio" in pulled
    assert pulled - pins().keys() == set()


def test_no_pin_names_a_host_or_a_hash() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()

    assert [x for x in lines if not re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[0-9A-Za-z.!+]+", x)] == []


def test_no_pin_is_below_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    asked = [Requirement(x) for x in [*project["dependencies"], *(y for z in extras for y in z)]]
    pinned = pins()

    outside = [
        str(requirement)
        for requirement in asked
        if requirement.name != "stickyproxy"
        and not requirement.specifier.contains(pinned[canonicalize_name(requirement.name)])
    ]

    assert outside == []
