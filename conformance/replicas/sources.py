"""Where replicas hear of pods: from a file, or from an API server."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from conformance.lab.api import Api
from conformance.lab.network import POD_PORT
from conformance.lab.pods import Pod
from support import kube_apiserver
from support.proxy_process import ProxyProcess, running_proxy

MAPPING = """\
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {name: echo}
spec:
  hostname: "*"
  prefix: /
  grpc: true
  service: echo.default:80
  load_balancer: {policy: maglev, header: x-user}
"""


class Source(ABC):
    """`pods` by address; `change` makes known which addresses are members from now on."""

    pods: dict[str, Pod]
    proxies: Sequence[ProxyProcess] = ()

    def stop_pods(self) -> None:
        for pod in self.pods.values():
            pod.stop()

    @abstractmethod
    def change(self, addresses: Sequence[str]) -> None: ...

    @abstractmethod
    def proxy(self) -> AbstractContextManager[ProxyProcess]: ...


class _Files(Source):
    def __init__(self, folder: Path, told_by: signal.Signals | None) -> None:
        self._path = folder / "process.yaml"
        self._told_by = told_by

    def change(self, addresses: Sequence[str]) -> None:
        fresh = self._path.with_suffix(".new")
        backends = ", ".join(f"'{address}'" for address in addresses)
        fresh.write_text(f"kind: StickyProxy\nsticky: header:x-user\nbackend: [{backends}]\n")
        fresh.rename(self._path)
        for proxy in self.proxies:
            if self._told_by is not None:
                proxy.signal(self._told_by)

    def proxy(self) -> AbstractContextManager[ProxyProcess]:
        return running_proxy(str(self._path))


class _Cluster(Source):
    """A slice for each pod."""

    def __init__(self, folder: Path, api: Api) -> None:
        self._folder = folder
        self._api = api
        self._members: set[str] = set()
        (folder / "echo.yaml").write_text(MAPPING)
        api.service("echo")

    def change(self, addresses: Sequence[str]) -> None:
        wanted = {address.partition(":")[0] for address in addresses}
        for ip in wanted - self._members:
            self._api.put_slice("echo", ip, [ip], POD_PORT)
        for ip in self._members - wanted:
            self._api.delete_slice("echo", ip)
        self._members = wanted

    def proxy(self) -> AbstractContextManager[ProxyProcess]:
        config = str(self._api.kubeconfig(self._folder))
        return running_proxy(
            str(self._folder / "echo.yaml"),
            *("--kubernetes", "on", "--kubeconfig", config, "--kube-namespace", "default"),
        )


@contextmanager
def file_source(folder: Path, told_by: signal.Signals | None) -> Iterator[Source]:
    yield _Files(folder, told_by)


@contextmanager
def cluster_source(folder: Path) -> Iterator[Source]:
    with kube_apiserver.running() as server:
        yield _Cluster(folder, Api(server))
