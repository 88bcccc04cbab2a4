"""The cluster that tests of the whole proxy live in: the project's API server, or a real one.

Which, says `CONFORMANCE`: `./dev conformance kube` runs the very tests that the suite runs every day, on
a real kube-apiserver with etcd. A real one takes no loopback address for a pod, so it needs the network
namespace that this command makes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from conformance.lab import network
from support import grpc_backends, kube_apiserver
from support.fake_kube_store import Kind, Object
from support.kube_process import running_kube
from support.real_kube import running_real_kube

REAL = "kube" in os.environ.get("CONFORMANCE", "")
POD_HOST = network.pod_ip(1) if REAL else "127.0.0.1"
"""Where a backend is to listen that is a pod."""


class Reachable(Protocol):
    kubeconfig: Path


class Cluster(Protocol):
    """A test's hold on either."""

    kubeconfig: Path

    def start(self) -> None:
        """On the port that it had before, too."""

    def kill(self) -> None: ...

    def freeze(self) -> None:
        """It keeps its connections and answers nothing."""

    def thaw(self) -> None: ...

    def compact(self) -> None:
        """Nobody can go on from an old version, and every watch has to begin again."""

    def unseen(self) -> AbstractContextManager[None]:
        """Within it the server is to be found by the test alone, as if it were away."""

    def put(self, kind: Kind, found: Object) -> float:
        """Create or replace; the time (`perf_counter`) at which the server had it."""

    def delete(self, kind: Kind, name: str, namespace: str = "default") -> float: ...

    def get(self, kind: Kind, name: str, namespace: str = "default") -> Object:
        """An object as it is now."""

    def service(self, name: str, *ports: tuple[str, int], namespace: str = "default") -> None: ...

    def pod(
        self, service_name: str, name: str, port: int, *, host: str, **conditions: bool | None
    ) -> float:
        """A pod as its slice has it now; when the server had it."""

    def gone(self, name: str) -> float: ...


@contextmanager
def running_cluster(folder: Path, *versions: str) -> Iterator[Cluster]:
    """`versions` of Ambassador's resources are installed."""
    if not REAL:
        with running_kube(folder, *versions) as kube:
            yield kube
        return
    if not network.inside():
        pytest.fail("not in a network namespace of its own: ./dev conformance kube")
    if reason := kube_apiserver.missing():
        pytest.fail(reason)
    with running_real_kube(folder, *versions) as real:
        yield real


def pod_kind(count: int) -> grpc_backends.Kind:
    """Servers for so many pods: in a real cluster, each with an address of its own and one port."""
    if not REAL:
        return grpc_backends.Kind()
    hosts = [network.pod_ip(number + 1) for number in range(count)]
    return grpc_backends.Kind(port=network.POD_PORT, hosts=hosts)


def kube_flags(kube: Reachable, *more: str) -> Sequence[str]:
    """What a proxy needs to find it."""
    return ("--kubernetes", "on", "--kubeconfig", str(kube.kubeconfig), *more)
