"""grpcurl: a client in Go that knows services only by reflection.

`STICKYPROXY_GRPCURL`, else the one on PATH, else it is built once, where Go is there, into a cache
outside the repository.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGE = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3"
BUILD_TIMEOUT = 300.0
"""Seconds; a cold build downloads and compiles some hundred packages."""


def find_grpcurl() -> str:
    """The way to a binary; skips the test, with the reason, where there can be none."""
    given = os.environ.get("STICKYPROXY_GRPCURL") or shutil.which("grpcurl")
    if given:
        return given
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    binary = cache / "stickyproxy" / "bin" / "grpcurl"
    if not binary.exists():
        _build(binary.parent)
    return str(binary)


def _build(folder: Path) -> None:
    go = shutil.which("go")
    if go is None:
        pytest.skip(
            "no grpcurl: set STICKYPROXY_GRPCURL, put it on PATH, or install Go to build it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(
            [go, "install", PACKAGE],
            env={**os.environ, "GOBIN": str(folder), "CGO_ENABLED": "0"},
            check=True,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = str(error.stderr or error).strip()
        pytest.skip(f"no grpcurl: go install {PACKAGE} failed: {said[-300:]}")
