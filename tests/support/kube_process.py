"""The fake API server as a process of its own: to be killed, frozen, restarted and compacted.

Every write is kept in a file, as etcd keeps it for a real one, so that a new process goes on where
the old one stopped. `python -m support.kube_process FILE PORT` runs one.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import trio

from support.fake_kube import FakeKube
from support.fake_kube_store import KINDS, SERVICES, SLICES, Kind, KubeStore, Object
from support.kube_objects import endpoint, service, slice_of

TESTS = Path(__file__).parents[1]
PATIENCE = 30.0
_BY_PLURAL = {kind.plural: kind for kind in KINDS}


# --- the server -----------------------------------------------------------------------------------


class KeptStore(KubeStore):
    """A store whose writes are lines of a file, and come from there at the start."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file: IO[str] | None = None
        for line in file.read_text().splitlines() if file.exists() else ():
            self._again(*json.loads(line))
        self._file = file.open("a")

    def _again(self, what: str, plural: str, found: Any) -> None:
        if what == "put":
            super().put(_BY_PLURAL[plural], found)
        elif what == "delete":
            super().delete(_BY_PLURAL[plural], *found)
        elif what == "status":
            metadata = self.get(_BY_PLURAL[plural], *found["of"])["metadata"]
            given = {"metadata": metadata, "status": found["status"]}
            super().replace_status(_BY_PLURAL[plural], given)
        else:
            super().compact()

    def _keep(self, *line: Any) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def put(self, kind: Kind, given: Mapping[str, Any]) -> Object:
        found = super().put(kind, given)
        self._keep("put", kind.plural, dict(given))
        return found

    def delete(self, kind: Kind, namespace: str, name: str) -> Object:
        found = super().delete(kind, namespace, name)
        self._keep("delete", kind.plural, [namespace, name])
        return found

    def replace_status(self, kind: Kind, given: Mapping[str, Any]) -> Object:
        found = super().replace_status(kind, given)
        of = [found["metadata"]["namespace"], found["metadata"]["name"]]
        self._keep("status", kind.plural, {"of": of, "status": found["status"]})
        return found

    def compact(self) -> None:
        super().compact()
        self._keep("compact", "", None)


async def serve(file: Path, port: int, versions: Sequence[str] = ()) -> None:
    """Until killed; SIGUSR1 compacts and ends every watch, so that each must begin again.

    `versions` are those of Ambassador's resources that are installed.
    """
    kube = FakeKube()
    if versions:
        kube.install(versions=tuple(versions))
    kube.store = KeptStore(file)
    async with kube.running():
        with trio.open_signal_receiver(signal.SIGUSR1) as signals:
            port = await kube.listen(port=port)
            sys.stdout.write(f"{port}\n")
            sys.stdout.flush()
            async for _ in signals:
                kube.store.compact()
                await kube.drop_connections()


# --- and a test's hold on it ----------------------------------------------------------------------


class KubeProcess:
    """`kubeconfig` leads to it. Pods of a Service have a slice each, so that each has its own port.

    `versions` of Ambassador's resources are installed, at the next start if they change.
    """

    def __init__(self, folder: Path, *versions: str) -> None:
        self.port = 0
        self.versions = versions
        self.kubeconfig = folder / "kubeconfig"
        self._file = folder / "etcd.jsonl"
        self._process: subprocess.Popen[bytes] | None = None

    # --- its life ---

    def start(self) -> None:
        """On the port that it had before, too."""
        arguments = [sys.executable, "-m", "support.kube_process", str(self._file), str(self.port)]
        arguments += self.versions
        environment = {**os.environ, "PYTHONPATH": str(TESTS)}
        self._process = subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment)
        if self._process.stdout is None:
            raise RuntimeError("no pipe")
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"the API server ended with {self._process.wait()}")
        self.port = int(line)
        self.kubeconfig.write_text(_KUBECONFIG.format(port=self.port))

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(PATIENCE)
            if self._process.stdout is not None:
                self._process.stdout.close()
        self._process = None

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def freeze(self) -> None:
        """It keeps its connections and answers nothing."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def compact(self) -> None:
        self.signal(signal.SIGUSR1)

    @contextmanager
    def unseen(self) -> Iterator[None]:
        self.kill()
        known, self.port = self.port, 0
        self.start()
        yield
        self.kill()
        self.port = known
        self.start()

    # --- what it knows ---

    def put(self, kind: Kind, found: Object) -> float:
        """Create or replace; the time (`perf_counter`) at which the server had it."""
        metadata = found["metadata"]
        place = f"{kind.root}/namespaces/{metadata['namespace']}/{kind.plural}"
        if self._ask("PUT", f"{place}/{metadata['name']}", found) == 404:
            self._ask("POST", place, found)
        return time.perf_counter()

    def delete(self, kind: Kind, name: str, namespace: str = "default") -> float:
        self._ask("DELETE", f"{kind.root}/namespaces/{namespace}/{kind.plural}/{name}", None)
        return time.perf_counter()

    def get(self, kind: Kind, name: str, namespace: str = "default") -> Object:
        """An object as it is now."""
        path = f"{kind.root}/namespaces/{namespace}/{kind.plural}/{name}"
        found: Object = json.loads(self._talk("GET", path, None)[1])
        return found

    def service(self, name: str, *ports: tuple[str, int], namespace: str = "default") -> None:
        self.put(SERVICES, service(name, *ports, namespace=namespace))

    def pod(
        self, service_name: str, name: str, port: int, *, host: str, **conditions: bool | None
    ) -> float:
        """A pod, as its slice has it now."""
        found = endpoint(host, pod=name, **conditions)
        return self.put(SLICES, slice_of(service_name, name, found, ports=(("", port),)))

    def gone(self, name: str) -> float:
        return self.delete(SLICES, name)

    def _ask(self, method: str, path: str, body: Object | None) -> int:
        return self._talk(method, path, body)[0]

    def _talk(self, method: str, path: str, body: Object | None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status not in (200, 201, 404):
            raise AssertionError(f"{method} {path}: {answer.status} {text[:300]!r}")
        return answer.status, text


_KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: test
clusters: [{{name: test, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]
users: [{{name: test, user: {{token: t0ken}}}}]
contexts: [{{name: test, context: {{cluster: test, user: test, namespace: default}}}}]
"""


@contextmanager
def running_kube(folder: Path, *versions: str) -> Iterator[KubeProcess]:
    kube = KubeProcess(folder, *versions)
    kube.start()
    try:
        yield kube
    finally:
        kube.thaw()
        kube.kill()


if __name__ == "__main__":
    trio.run(serve, Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
