"""Pods as processes of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PROGRAM = Path(__file__).with_name("pod.py")


class Pod:
    """`stop` is SIGTERM and waiting: the calls that run come to their end."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM), name, address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def wait_ready(self) -> None:
        out = self._process.stdout
        if out is None or out.readline() != b"ready\n":
            raise RuntimeError(f"pod {self.name} did not start on {self.address}")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def start(names: Sequence[str], addresses: Sequence[str]) -> list[Pod]:
    pods = [Pod(name, address) for name, address in zip(names, addresses, strict=True)]
    for pod in pods:
        pod.wait_ready()
    return pods
