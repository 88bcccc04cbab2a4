"""What the lab needs of a machine, and what of it is missing here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.peers import find

TOOLS = {"ip": "iproute2", "ss": "iproute2", "nft": "nftables", "ethtool": "ethtool"}
"""Programs, and Debian's packages that have them."""

TABLE = "table ip chaos {\n chain pre {\n type filter hook prerouting priority -300;\n }\n}\n"
"""Where faults are: what the receiver of a packet sees first."""


def tool(name: str) -> str:
    """Its path, or its name if it is not here."""
    return find(name) or name


def run(argv: Sequence[str], given: str | None = None) -> str:
    """What a command says. Raises RuntimeError with its complaint."""
    words = [tool(argv[0]), *argv[1:]]
    done = subprocess.run(words, input=given, text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def missing(*, delay: bool, icmp: bool = False) -> list[str]:
    """In words. `delay`: links with a delay are wanted too; `icmp`: the faults are to be tried."""
    if sys.platform != "linux":
        return [f"Linux: there are no network namespaces on {sys.platform}"]
    wanted = TOOLS | ({"ping": "iputils-ping"} if icmp else {})
    found = [
        f"`{name}` (Debian: apt-get install {package})"
        for name, package in wanted.items()
        if not find(name)
    ]
    if os.geteuid():
        return [*found, "root: network namespaces, their links and rules are made"]
    if not found:
        found += _trial()
    if delay and not Path("/dev/net/tun").exists():
        found.append("/dev/net/tun, for links with a delay")
    return found


def _trial() -> list[str]:
    """A namespace with a rule in it, made and taken away."""
    name = f"chaos-{os.getpid()}-trial"
    try:
        run(["ip", "netns", "add", name])
    except RuntimeError as error:
        return [f"network namespaces ({error})"]
    try:
        run(["ip", "netns", "exec", name, tool("nft"), "-f", "-"], TABLE)
    except RuntimeError as error:
        return [f"nftables in a network namespace ({error})"]
    finally:
        run(["ip", "netns", "del", name])
    return []
