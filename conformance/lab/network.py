"""A network namespace of our own, where pods have addresses that an API server accepts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

INSIDE = "LAB_NETWORK"
NODE_IP = "10.244.0.100"
POD_PORT = 50051
PODS = 8
MANY = "10.245.0.0/16"
"""Every address of these is ours too: for pods that are counted in thousands."""


def missing() -> list[str]:
    """What keeps us from having one, in words."""
    found = absent(("unshare", "util-linux"), ("ip", "iproute2"))
    if not found and subprocess.run(_unshare("true"), check=False, capture_output=True).returncode:
        found = ["root, or user namespaces for everybody, for a network of its own"]
    return found


def absent(*tools: tuple[str, str]) -> list[str]:
    return [
        f"`{tool}` on PATH (Debian: apt-get install {package})"
        for tool, package in tools
        if shutil.which(tool) is None
    ]


def _unshare(*command: str) -> list[str]:
    mapped = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *mapped, "--net", *command]


def inside() -> bool:
    return INSIDE in os.environ


def enter() -> None:
    """Start this program anew within; there the addresses of node and pods are on `lo`.

    The namespace ends with its last process. The route makes cluster IPs reachable for the rules
    that rewrite them: output hooks run only for packets that have one.
    """
    if not inside():
        os.environ[INSIDE] = "1"
        os.execvp("unshare", _unshare(sys.executable, *sys.argv))  # noqa: S606
    run("ip", "link", "set", "lo", "up")
    for address in (NODE_IP, *(pod_ip(number) for number in range(1, PODS + 1))):
        run("ip", "addr", "add", f"{address}/32", "dev", "lo")
    run("ip", "route", "add", "10.0.0.0/16", "dev", "lo", "src", NODE_IP)
    run("ip", "route", "add", "local", MANY, "dev", "lo")


def pod_ip(number: int) -> str:
    """From 1. Outside of the namespace another address of the loopback net."""
    return f"10.244.0.{number}" if inside() else f"127.244.0.{number}"


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
