"""Three real gRPC servers behind one proxy, in one command. The door: it opens without grpcio."""

from __future__ import annotations

import importlib.util
import sys

_EXTRA = ("grpc", "grpc_reflection", "grpc_health")


def main(once: bool) -> int:
    """Run the demo; the exit code. 0: as it should be, 1: it is not, 2: grpcio is missing.

    Without `once` it stays until Ctrl-C or SIGTERM, which is a good end (0). Interrupted before the
    table: 130, as a shell says it.
    """
    if any(importlib.util.find_spec(name) is None for name in _EXTRA):
        print("demo: grpcio is missing: pip install 'stickyproxy[demo]'", file=sys.stderr)
        return 2
    from stickyproxy.demo.play import play  # noqa: PLC0415  # it needs the extra

    return play(once=once)
