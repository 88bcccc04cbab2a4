"""Figures that tests come by: printed, and kept for who runs them to get figures."""

from __future__ import annotations

import os
import sys
from pathlib import Path

FILE = "CONFORMANCE_FIGURES"  # the variable that names it


def note(text: str) -> None:
    test = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[2].partition(" ")[0]
    sys.stdout.write(f"{text}\n")
    if FILE in os.environ:
        with Path(os.environ[FILE]).open("a") as file:
            file.write(f"{test}: {text}\n")
