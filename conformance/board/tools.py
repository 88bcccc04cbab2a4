"""Programs that suites ask, built or installed once into a cache outside the checkout.

A folder a version, so that another version is another binary and nobody measures with an old one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from bench.peers import find, version
from support.toolbox import CACHE

BUILD_TIMEOUT = 900.0
"""Seconds; gRPC's client takes two minutes on a busy machine with an empty cache."""


class Tool(Protocol):
    def missing(self) -> str:
        """What keeps it from being here, in words; "" if nothing does."""
        ...

    def build(self) -> None:
        """Unless it is there. Raises RuntimeError with what was said."""
        ...


class GoTool(NamedTuple):
    """`package` is what `go install` takes, `version` a version of its module."""

    package: str
    version: str

    @property
    def name(self) -> str:
        return self.package.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.package} {self.version}"

    @property
    def binary(self) -> Path:
        family = self.package.removesuffix(f"/{self.name}").replace("/", "_")
        return CACHE / "conformance" / f"{family}-{self.version}" / self.name

    def missing(self) -> str:
        if self.binary.exists() or shutil.which("go"):
            return ""
        return f"`go` on PATH, to build {self.package}@{self.version} (https://go.dev/dl)"

    def build(self) -> None:
        if self.binary.exists():
            return
        self.binary.parent.mkdir(parents=True, exist_ok=True)
        _run(
            ["go", "install", f"{self.package}@{self.version}"],
            {"GOBIN": str(self.binary.parent), "CGO_ENABLED": "0"},
        )


class PipTool(NamedTuple):
    """A program of a package on PyPI, in an environment of its own."""

    package: str
    version: str

    def __str__(self) -> str:
        return f"{self.package} {self.version}"

    @property
    def _folder(self) -> Path:
        return CACHE / "conformance" / f"{self.package}-{self.version}"

    @property
    def binary(self) -> Path:
        return self._folder / "bin" / self.package

    def missing(self) -> str:
        return ""  # whoever runs this has Python; that PyPI is away is an error of its own

    def build(self) -> None:
        if self.binary.exists():
            return
        venv.create(self._folder, with_pip=True)
        pip = str(self._folder / "bin" / "pip")
        _run([pip, "install", "--quiet", f"{self.package}=={self.version}"], {})


class Installed(NamedTuple):
    """A program that the machine has or has not; `wish` says how to get it."""

    name: str
    wish: str

    def __str__(self) -> str:
        return f"{self.name} {version(self.name, '-v')}"

    def missing(self) -> str:
        return "" if find(self.name) else f"`{self.name}` on PATH ({self.wish})"

    def build(self) -> None:
        """Not ours to build."""


def _run(command: Sequence[str], settings: Mapping[str, str]) -> None:
    print(" ".join(command), flush=True)
    done = subprocess.run(
        command,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
