"""Coverage-guided fuzzing by atheris: `run.py [TARGET|all] [SECONDS]`, 60 seconds a target unless said.

The corpus in `tests/data/fuzz` is where it begins; what it finds worth keeping stays in a cache folder
outside of the checkout, and the next run begins there too. A case that breaks a law is written where
its last lines say; it becomes a file in the corpus, which the test suite goes through, when it is fixed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
TESTS = HERE.parents[1] / "tests"
sys.path.insert(0, str(TESTS))

SEEDS = TESTS / "data" / "fuzz"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "stickyproxy" / "fuzz"
LONGEST = 20_000
"""Bytes of a case: more than the largest frame."""
SLOW = 10
"""Seconds that one case may take."""
MISSING = 3


def one(name: str, seconds: int) -> None:
    """In a process of its own: libFuzzer ends the one that it runs in."""
    atheris = importlib.import_module("atheris")  # an extra, without types
    with atheris.instrument_imports(include=["stickyproxy"]):
        from support.fuzzing import TARGETS  # noqa: PLC0415 - to be instrumented

    corpus = CACHE / name
    found = CACHE / "found"
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        f"-timeout={SLOW}",
        f"-artifact_prefix={found}/{name}-",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
    ]
    atheris.Setup([name, *options, str(corpus), str(SEEDS / name)], TARGETS[name])
    atheris.Fuzz()


def main(arguments: list[str]) -> int:
    if importlib.util.find_spec("atheris") is None:
        print("fuzzing needs atheris: pip install -e '.[fuzz]' (CPython up to 3.13)")
        return MISSING
    if arguments[:1] == ["--in-here"]:
        one(arguments[1], int(arguments[2]))
        return 0
    from support.fuzzing import TARGETS  # noqa: PLC0415 - after the message above

    wanted = arguments[0] if arguments else "all"
    seconds = arguments[1] if len(arguments) > 1 else "60"
    if wanted not in ("all", *TARGETS):
        print(f"no target {wanted}; there are {', '.join(TARGETS)}")
        return 2
    return max(_played(name, seconds) for name in (TARGETS if wanted == "all" else [wanted]))


def _played(name: str, seconds: str) -> int:
    (CACHE / name).mkdir(parents=True, exist_ok=True)
    log = CACHE / f"{name}.log"
    began = time.monotonic()
    with log.open("wb") as out:
        command = [sys.executable, __file__, "--in-here", name, seconds]
        code = subprocess.call(command, stdout=out, stderr=subprocess.STDOUT)
    took = time.monotonic() - began
    lines = log.read_text(errors="replace").splitlines()
    runs = next((line.split()[-1] for line in lines if "number_of_executed_units" in line), "?")
    print(f"{name}: {runs} cases in {took:.0f} s: {'a law was broken' if code else 'nothing'}")
    if code:
        print("\n".join(lines[-40:]))
    return 1 if code else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
