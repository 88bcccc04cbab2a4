"""Everything that we hold to a real kube-apiserver and etcd, in a network namespace of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from conformance.lab import network
from support import kube_apiserver, toolbox
from support.figures import FILE

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def missing() -> list[str]:
    """What keeps it from running here, in words; nothing if it can."""
    found = network.missing() + network.absent(("openssl", "openssl"))
    found += [one for one in toolbox.missing("etcd", "kubectl").split("; ") if one]
    if not kube_apiserver.binary().exists() and shutil.which("go") is None:
        found.append(f"`go`, to build kube-apiserver, or the binary as {kube_apiserver.binary()}")
    return found


def build() -> None:
    if not kube_apiserver.binary().exists():
        print("building kube-apiserver from Go modules: some minutes, once", flush=True)
        kube_apiserver.build()


def main(arguments: list[str]) -> int:
    """Pytest's status, with its arguments; without any, the figures as well."""
    network.enter()
    tests = ["tests/conformance", *map(str, sorted(ROOT.glob("tests/e2e/test_kube_*.py")))]
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures"
        status = subprocess.call(
            [sys.executable, "-m", "pytest", *tests, *arguments],
            cwd=ROOT,
            env={**os.environ, "CONFORMANCE": "kube", FILE: str(figures)},
        )
        if figures.exists():
            print(f"\nfigures:\n{figures.read_text()}", flush=True)
    if status or arguments:
        return status
    return subprocess.call([sys.executable, str(HERE / "start.py"), "--real"])
