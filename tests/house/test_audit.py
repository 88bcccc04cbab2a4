"""`./dev check` and known holes: one fails it, a database that is away does not.

The database itself is out of reach of a test that must hold anywhere; a script in pip-audit's place says
what it says in each case. That the real one is asked is shown without a network.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AUDIT = ROOT / "conformance" / "audit.py"

PLAY = """
import json, pathlib, sys, time
if {sleeps!r}:
    time.sleep(600)
wanted = pathlib.Path(sys.argv[-1]).read_text().split()
found = [{{"name": w.split("==")[0], "version": w.split("==")[1], "vulns": []}} for w in wanted if "==" in w]
if {unknown!r}:
    found = [{{"name": one["name"], "skip_reason": "not found"}} for one in found]
if {hole!r} in [one.get("name") for one in found]:
    holed = next(one for one in found if one["name"] == {hole!r})
    holed["vulns"] = [{{"id": "PYSEC-1", "fix_versions": ["99.1"]}}]
print(json.dumps({{"dependencies": found}}))
"""


def audit(folder: Path, *arguments: str, limit: float = 60.0, **play: object) -> tuple[int, str]:
    """The exit code, and what was said by a play of pip-audit (hole, unknown, sleeps)."""
    said = {"hole": "", "unknown": False, "sleeps": False, **play}
    (folder / "pip_audit.py").write_text(PLAY.format(**said))
    script = f"import sys; sys.path.insert(0, {str(AUDIT.parent)!r}); import audit; "
    script += f"audit.TIME = {limit}; sys.exit(audit.main())"
    command = [sys.executable, "-c", script, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=50, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("flags", [(), ("--check",)])
def test_a_known_hole_fails_and_names_what_would_be_right(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    code, said = audit(tmp_path, *flags, hole="h2")

    assert code == 1
    assert "h2 " in said
    assert "PYSEC-1, fixed in 99.1" in said


def test_no_known_hole_passes_and_says_of_how_many(tmp_path: Path) -> None:
    code, said = audit(tmp_path, "--check")

    assert code == 0
    assert [line.partition(":")[0] for line in said.splitlines()] == ["pinned", "oldest allowed"]


@pytest.mark.parametrize("away", [{"unknown": True}, {"sleeps": True, "limit": 1.0}])
@pytest.mark.parametrize(("flags", "wanted"), [(("--check",), 0), ((), 3)])
def test_a_database_that_is_away_is_one_line_and_fails_no_check(
    tmp_path: Path, flags: tuple[str, ...], wanted: int, away: dict[str, object]
) -> None:
    code, said = audit(tmp_path, *flags, **away)  # type: ignore[arg-type]

    assert code == wanted
    assert len(said.splitlines()) == 1
    assert "nothing was audited" in said


@pytest.mark.skipif(
    importlib.util.find_spec("pip_audit") is None, reason="pip-audit is not installed"
)
def test_the_real_one_without_a_network_is_one_line_too() -> None:
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, str(AUDIT), "--check"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **nowhere}, check=False
    )

    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 1, "")


def test_ci_asks() -> None:
    assert "check: format-check lint types audit-check test\n" in (ROOT / "Justfile").read_text()
    assert "exec ./dev check" in (ROOT / ".ci" / "run").read_text()
