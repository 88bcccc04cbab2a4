"""Known holes in what we depend on: in the versions that are pinned, and in the oldest that we allow.

Ends with 0 if there is none, 1 if there is, 3 where nobody could be asked. With `--check`, as CI asks, the
last is no failure: one line says it, for a database that is away says nothing about us.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
MISSING = 3
TIME = 60.0
"""Seconds for all questions; they take 5 to 10, and a check must not hang on somebody else's service."""


class NotAuditedError(Exception):
    """Nobody could be asked, and why."""


def floors() -> list[str]:
    """`name==version` of each dependency at run time, as old as pyproject allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = []
    for text in project["dependencies"]:
        wanted = Requirement(text)
        [least] = [s.version for s in wanted.specifier if s.operator == ">="]
        found.append(f"{wanted.name}=={least}")
    return found


def ask(requirements: str, until: float) -> list[dict[str, Any]]:
    """What is known of each. Raises `NotAuditedError`."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirements)
        file.flush()
        plain = ("--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json")
        command = [sys.executable, "-m", "pip_audit", *plain, "-r", file.name]
        left = max(1.0, until - time.monotonic())
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=left
            )
        except subprocess.TimeoutExpired:
            raise NotAuditedError(f"the database did not answer within {TIME:g} s") from None
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise NotAuditedError(
            f"the database is not reachable from here ({said[-1][:120]})"
        ) from None
    return found


def judge(what: str, found: list[dict[str, Any]]) -> int:
    """How many holes; each is a line. Raises `NotAuditedError` where nothing is known of any of them."""
    unknown = sum(1 for each in found if "skip_reason" in each)
    if unknown == len(found):
        raise NotAuditedError(
            "the database is not reachable from here (it knows none of our packages)"
        )
    if unknown:
        print(f"{what}: {unknown} of {len(found)} could not be audited")
    holes = 0
    for each in found:
        for hole in each.get("vulns", ()):
            holes += 1
            fixed = ", ".join(hole.get("fix_versions", ())) or "nowhere yet"
            print(f"{what}: {each['name']} {each['version']}: {hole['id']}, fixed in {fixed}")
    if not holes:
        print(f"{what}: no known hole in {len(found) - unknown} packages")
    return holes


def main() -> int:
    """Asks about both lists; the time is for both together."""
    away = 0 if sys.argv[1:] == ["--check"] else MISSING
    if importlib.util.find_spec("pip_audit") is None:
        print("nothing was audited: it needs pip-audit (pip install -e '.[test]')")
        return away
    until = time.monotonic() + TIME
    wanted = {
        "pinned": (ROOT / "constraints.txt").read_text(),
        "oldest allowed": "\n".join(floors()),
    }
    holes = unasked = 0
    for what, requirements in wanted.items():
        try:
            holes += judge(what, ask(requirements, until))
        except NotAuditedError as reason:
            print(f"{what}: nothing was audited: {reason}")
            unasked = away
            break
    return 1 if holes else unasked


if __name__ == "__main__":
    sys.exit(main())
