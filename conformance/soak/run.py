"""Nothing lost: `run.py [MINUTES] [OUTPUT-FOLDER] [SEED]`, ten minutes unless said.

Two workers before four backends, at 60 % of what this very setup does on this machine, while clients are
cut off and read slowly, backends and workers are killed, and the configuration changes. Afterwards every
call is looked up: in the log exactly once, and not failed unless it was itself at fault or somebody that
it ran through was killed at that moment. What is left of tasks, sockets, memory must be what was there.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "tests")]  # conformance, support

MINUTES = 10


def main(arguments: list[str]) -> int:
    from conformance.soak.soak import Soak  # noqa: PLC0415 - once it can be found

    minutes = float(arguments[0]) if arguments else MINUTES
    made = arguments[1] if len(arguments) > 1 else tempfile.mkdtemp(prefix="stickyproxy-soak-")
    folder = Path(made)
    folder.mkdir(parents=True, exist_ok=True)
    seed = int(arguments[2]) if len(arguments) > 2 else 7
    return Soak(folder, minutes, seed).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
