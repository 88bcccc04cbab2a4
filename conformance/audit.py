"""Known holes in what we depend on: in the versions that are pinned, and in the oldest that we allow.

Ends with 0 if there is none, 1 if there is, 3 where nobody could be asked.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
MISSING = 3
OUT_OF_REACH = (
    "ConnectionError",
    "ServiceError",
    "ConnectTimeout",
    "Max retries",
    "NameResolution",
)
"""What pip-audit says when it could not ask."""
SKIPPED = "could not be audited"
"""And where an index has packages and knows nothing of their holes; then it ends with 0 all the same."""


def floors() -> list[str]:
    """`name==version` of each dependency at run time, as old as pyproject allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = []
    for text in project["dependencies"]:
        wanted = Requirement(text)
        [least] = [s.version for s in wanted.specifier if s.operator == ">="]
        found.append(f"{wanted.name}=={least}")
    return found


def ask(requirements: str) -> tuple[int, str]:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirements)
        file.flush()
        command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "-r", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def main() -> int:
    if importlib.util.find_spec("pip_audit") is None:
        print("nothing was audited: it needs pip-audit (pip install -e '.[security]')")
        return MISSING
    worst = 0
    for what, requirements in (
        ("pinned", (ROOT / "constraints.txt").read_text()),
        ("oldest allowed", "\n".join(floors())),
    ):
        code, said = ask(requirements)
        asked = sum(1 for line in requirements.splitlines() if "==" in line)
        skipped = said.count(SKIPPED)
        if skipped >= asked or (code and any(word in said for word in OUT_OF_REACH)):
            print(f"{what}: nothing was audited: the database is not reachable from here")
            return MISSING
        if skipped:
            print(f"{what}: {skipped} of {asked} could not be audited")
        print(f"{what}:\n{said}")
        worst = max(worst, code)
    return worst


if __name__ == "__main__":
    sys.exit(main())
