"""A real browser, headless, for pages that only one can judge."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on PATH (Debian: apt-get install chromium)"
)
PATIENCE = 90
"""Seconds; a start takes one or two where nobody else is at work."""
TRIES = 8
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--disable-dev-shm-usage"),
)


def run(profile: Path, url: str, *flags: str, budget: float = 5.0) -> str:
    """What it prints, after `budget` seconds of the page's own (virtual) time."""
    time = f"--virtual-time-budget={int(budget * 1000)}"
    done = subprocess.run(
        [CHROMIUM or "chromium", *QUIET, f"--user-data-dir={profile}", time, *flags, url],
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    return done.stdout.decode()


def document(
    profile: Path, url: str, *, budget: float = 5.0, until: Callable[[str], bool] = bool
) -> str:
    """The document as it has become. The page's own time does not wait for a WebSocket: on a busy machine
    it can be over before the first message, so it is looked at again, some times, `until` it is as wanted.
    """
    for _ in range(TRIES):
        shown = run(profile, url, "--dump-dom", budget=budget)
        if until(shown):
            break
    return shown


def screenshot(profile: Path, url: str, to: Path, size: tuple[int, int]) -> None:
    width, height = size
    run(profile, url, f"--screenshot={to}", f"--window-size={width},{height}")
