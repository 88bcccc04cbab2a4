"""A real API server with the hold on it that `kube_process` gives on the project's own.

There are no controllers: the tests write the slices, several pods to one as the controller does.
"""

from __future__ import annotations

import copy
import http.client
import json
import signal
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from support import kube_apiserver
from support.fake_kube_store import AMBASSADOR, SERVICES, SLICES, Kind, Object
from support.kube_apiserver import ADMIN, ApiServerProcess
from support.kube_objects import endpoint, service, slice_of
from support.kubectl import kubeconfig
from support.manifests import CRDS

PATIENCE = 60.0
IN_A_SLICE = 2
"""Pods. So few that a handful of them has several slices, and moves between them when one leaves."""
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
SERVERS = ("uid", "generation", "creationTimestamp", "resourceVersion")
"""Metadata that is the server's business."""


class Pod(NamedTuple):
    service: str
    port: int
    endpoint: Object


class RealKube:
    """`kubeconfig` is the administrator's."""

    def __init__(self, folder: Path, server: ApiServerProcess) -> None:
        self.server = server
        self._pods: dict[str, Pod] = {}
        self._written: dict[str, Object] = {}
        self._trust = ssl.create_default_context(cafile=str(server.ca))
        self.kubeconfig = kubeconfig(server, ADMIN, folder)

    # --- its life ---

    def start(self) -> None:
        self.server.start()

    def kill(self) -> None:
        self.server.kill()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if "apiserver" in self.server.processes:
            self.server.signal(number)

    def compact(self) -> None:
        """Etcd forgets, and a new server's cache begins with now."""
        newest = self.ask("GET", f"{SLICES.root}/{SLICES.plural}")["metadata"]["resourceVersion"]
        self.server.compact(int(newest))
        self.kill()
        self.start()

    @contextmanager
    def unseen(self) -> Iterator[None]:
        self.kill()
        known, self.server.port = self.server.port, 0
        self.start()
        yield
        self.kill()
        self.server.port = known
        self.start()

    def install(self, *versions: str) -> None:
        """Our definitions, with these versions served, and in effect."""
        found = [one for one in yaml.safe_load_all(CRDS.read_text()) if one]
        for one in found:
            for version in one["spec"]["versions"]:
                version["served"] = version["name"] in versions
            self.ask("POST", DEFINITIONS, one)
        for one in found:
            plural = one["spec"]["names"]["plural"]
            self._wait_for(Kind(f"{AMBASSADOR}/{versions[0]}", plural, "", custom=True))

    def _wait_for(self, kind: Kind) -> None:
        until = time.monotonic() + PATIENCE
        while self.talk("GET", f"{kind.root}/{kind.plural}")[0] != 200:
            if time.monotonic() > until:
                raise AssertionError(f"{kind.plural} are not served")
            time.sleep(0.05)

    # --- what it knows ---

    def put(self, kind: Kind, found: Object) -> float:
        """In a namespace that is made if it is not there."""
        body = _clean(kind, found)
        place = _place(kind, body["metadata"]["namespace"])
        while True:
            known = self.talk("GET", f"{place}/{body['metadata']['name']}")
            status, said = (
                self._create(place, body)
                if known[0] == 404
                else self._replace(known[1], body, place)
            )
            if status < 300:
                return time.perf_counter()
            if status != 409:  # somebody wrote its status meanwhile
                raise AssertionError(f"{place}: {said}")

    def _replace(self, known: Object, body: Object, place: str) -> tuple[int, Any]:
        metadata = {**body["metadata"], "resourceVersion": known["metadata"]["resourceVersion"]}
        return self.talk("PUT", f"{place}/{metadata['name']}", {**body, "metadata": metadata})

    def _create(self, place: str, body: Object) -> tuple[int, Any]:
        status, said = self.talk("POST", place, body)
        if status != 404:
            return status, said
        name = body["metadata"]["namespace"]
        self.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        return self.talk("POST", place, body)

    def delete(self, kind: Kind, name: str, namespace: str = "default") -> float:
        self.ask("DELETE", f"{_place(kind, namespace)}/{name}")
        return time.perf_counter()

    def get(self, kind: Kind, name: str, namespace: str = "default") -> Object:
        found: Object = self.ask("GET", f"{_place(kind, namespace)}/{name}")
        return found

    def service(self, name: str, *ports: tuple[str, int], namespace: str = "default") -> None:
        self.put(SERVICES, service(name, *ports, namespace=namespace))

    def pod(
        self, service_name: str, name: str, port: int, *, host: str, **conditions: bool | None
    ) -> float:
        self._pods[name] = Pod(service_name, port, endpoint(host, pod=name, **conditions))
        return self._write_slices(service_name, port)

    def gone(self, name: str) -> float:
        pod = self._pods.pop(name)
        return self._write_slices(pod.service, pod.port)

    def _write_slices(self, service_name: str, port: int) -> float:
        """Those that differ; when the last of them was there."""
        of_it = [one.endpoint for one in self._pods.values() if one[:2] == (service_name, port)]
        wanted: dict[str, Sequence[Object]] = {
            name: () for name in self._written if name.startswith(f"{service_name}-{port}-")
        }
        for first in range(0, len(of_it), IN_A_SLICE):
            wanted[f"{service_name}-{port}-{first}"] = of_it[first : first + IN_A_SLICE]
        for name, endpoints in wanted.items():
            made = slice_of(service_name, name, *endpoints, ports=(("", port),))
            if made != self._written.get(name):
                self.put(SLICES, made)
                self._written[name] = made
        return time.perf_counter()

    # --- many objects, or the same often: over a connection that stays ---

    @contextmanager
    def connection(self) -> Iterator[http.client.HTTPSConnection]:
        with closing(self._connect()) as connection:
            yield connection

    def create(self, kind: Kind, found: Object, over: http.client.HTTPSConnection) -> None:
        body = _clean(kind, found)
        place = _place(kind, body["metadata"]["namespace"])
        _taken(_exchange(over, "POST", place, body))

    def replace(self, kind: Kind, found: Object, over: http.client.HTTPSConnection) -> None:
        """Whatever is there, of the kinds that can be replaced unseen."""
        body = _clean(kind, found)
        place = _place(kind, body["metadata"]["namespace"])
        _taken(_exchange(over, "PUT", f"{place}/{body['metadata']['name']}", body))

    # --- talking ---

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """What it answers. Raises AssertionError for a no."""
        return _taken(self.talk(method, path, body))

    def talk(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[int, Any]:
        with closing(self._connect()) as connection:
            return _exchange(connection, method, path, body)

    def _connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            "127.0.0.1", self.server.port, timeout=PATIENCE, context=self._trust
        )


def _exchange(
    connection: http.client.HTTPSConnection,
    method: str,
    path: str,
    body: Mapping[str, Any] | None,
) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": "application/json"}
    connection.request(method, path, json.dumps(body) if body else None, headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read() or b"{}")


def _taken(answer: tuple[int, Any]) -> Any:
    status, said = answer
    if status >= 300:
        raise AssertionError(f"{status} {said.get('message', said)}")
    return said


def _place(kind: Kind, namespace: str) -> str:
    return f"{kind.root}/namespaces/{namespace}/{kind.plural}"


def _clean(kind: Kind, found: Object) -> Object:
    """As a person would write it."""
    metadata = {key: of for key, of in found["metadata"].items() if key not in SERVERS}
    about = {"apiVersion": kind.group, "kind": kind.name}
    return {**copy.deepcopy(found), **about, "metadata": metadata}


@contextmanager
def running_real_kube(folder: Path, *versions: str) -> Iterator[RealKube]:
    """Etcd and API server of its own, with these versions of Ambassador's resources installed."""
    with kube_apiserver.running() as server:
        kube = RealKube(folder, server)
        if versions:
            kube.install(*versions)
        yield kube
