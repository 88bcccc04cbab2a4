"""Against real peers: `run.py [SUITE...]` (without one: all), `run.py kube [PYTEST-ARGUMENTS]`,
`run.py fidelity-peers|kube-proxy|kube-start|replicas|spread [OUTPUT-FOLDER]`.

All traffic stays on loopback or in a network namespace of this program's own. What a measurement
needs and does not find it names, and exits with 3.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]  # conformance, support

MISSING = 3


def kube(arguments: list[str]) -> int:
    """The tests that have an API server, on a real one; then, if all were asked for, its figures."""
    from conformance.kube import real  # noqa: PLC0415 - only what was asked for

    if missing := real.missing():
        print("there is no real API server here; it needs")
        print("\n".join(f"  {one}" for one in missing))
        return MISSING
    real.build()
    return real.main(arguments)


def kube_proxy(output: Path) -> int:
    from conformance.kube_proxy import cluster, compare  # noqa: PLC0415 - only what was asked for
    from conformance.lab import network  # noqa: PLC0415

    if missing := cluster.missing():
        print("kube-proxy cannot be measured here; it needs")
        print("\n".join(f"  {one}" for one in missing))
        return MISSING
    if not cluster.binary().exists():
        print("building kube-proxy from Go modules: some minutes, once")
        cluster.build()
    network.enter()
    compare.main(output)
    return 0


def replicas(output: Path) -> int:
    from conformance.lab import network  # noqa: PLC0415
    from conformance.replicas import agreement  # noqa: PLC0415

    if not network.missing():
        network.enter()
    agreement.main(output)
    return 0


def spread(output: Path) -> int:
    from conformance.replicas import spread as measured  # noqa: PLC0415

    measured.main(output)
    return 0


def fidelity_peers(output: Path) -> int:
    from conformance.fidelity import peers  # noqa: PLC0415

    peers.main(output)
    return 0


def kube_start(_: Path) -> int:
    return subprocess.call([sys.executable, str(HERE / "kube" / "start.py")])


def suites(asked: list[str]) -> int:
    """The protocols' suites: one table."""
    from conformance.board import play  # noqa: PLC0415 - only what was asked for
    from conformance.board.results import Suite  # noqa: PLC0415

    found: dict[str, Suite] = {
        name: import_module(f"conformance.{folder}.suite").SUITE for name, folder in SUITES.items()
    }
    return play.main(found, asked, Path(tempfile.mkdtemp(prefix="stickyproxy-conformance-")))


SUITES = {
    "attacks": "attacks",
    "h2spec": "h2spec",
    "interop": "grpc_interop",
    "negative": "negative",
    "connect": "connect",
    "fidelity": "fidelity",
    "autobahn": "autobahn",
}
"""Their folders."""

KNOWN = {
    "fidelity-peers": fidelity_peers,
    "kube-proxy": kube_proxy,
    "kube-start": kube_start,
    "replicas": replicas,
    "spread": spread,
}


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["kube"]:
        return kube(arguments[1:])
    if all(one in SUITES for one in arguments):
        return suites(arguments)
    if arguments[0] not in KNOWN:
        print(__doc__)
        return 2
    output = Path(
        arguments[1] if len(arguments) > 1 else tempfile.mkdtemp(prefix="stickyproxy-figures-")
    )
    output.mkdir(parents=True, exist_ok=True)
    status = KNOWN[arguments[0]](output)
    if not status:
        print(f"\nfigures and pictures: {output}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
