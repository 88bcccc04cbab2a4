"""The same program in other processes."""

from __future__ import annotations

import os
import subprocess
import sys


def said_elsewhere(program: str) -> set[bytes]:
    """What `program` prints in processes whose `hash()` of text differs: one thing, if it uses none."""
    return {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }
