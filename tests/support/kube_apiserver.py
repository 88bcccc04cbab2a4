"""Build and run a real kube-apiserver on loopback, for tests: no controllers, no kubelets.

`python tests/support/kube_apiserver.py` builds the binary from Go modules, by the wrapper module in
`conformance/kube`, into `${XDG_CACHE_HOME:-~/.cache}/stickyproxy` (some minutes, once). It needs
`go` and, to run, an `etcd` on PATH (Debian: `etcd-server`). `running()` is what tests use.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

MODULE = Path(__file__).parents[2] / "conformance" / "kube"
ADMIN, NOBODY = "admin-token", "nobody-token"
START_LIMIT = 90.0  # seconds; 10 to 20 on two cores


def version() -> str:
    """The version that go.mod asks for."""
    found = re.search(
        r"^require k8s\.io/kubernetes (v\S+)", (MODULE / "go.mod").read_text(), re.MULTILINE
    )
    if found is None:
        raise SystemExit("conformance/kube/go.mod names no k8s.io/kubernetes")
    return found[1]


def binary() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "stickyproxy" / f"kube-apiserver-{version()}"


def build() -> None:
    """Two cores are kept usable: one compiler at a time, at the lowest priority."""
    target = binary()
    target.parent.mkdir(parents=True, exist_ok=True)
    package = "k8s.io/kubernetes/cmd/kube-apiserver"
    command = ["go", "build", "-mod=mod", "-p=1", "-buildvcs=false", "-trimpath"]
    fresh = target.with_suffix(".new")
    command += ["-ldflags=-s -w", "-o", str(fresh), package]
    subprocess.run(["nice", "-n", "19", *command], cwd=MODULE, check=True)
    fresh.rename(target)


def missing() -> str:
    """Why it cannot run here; "" if it can."""
    if shutil.which("etcd") is None:
        return "no etcd on PATH (Debian: apt-get install etcd-server)"
    if not binary().exists():
        return "no kube-apiserver yet: python tests/support/kube_apiserver.py"
    return ""


@dataclass
class ApiServerProcess:
    """A running server; `ca` is the file that verifies it."""

    folder: Path
    port: int = 0
    etcd_port: int = 0
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def ca(self) -> Path:
        return self.folder / "certs" / "apiserver.crt"

    def start_etcd(self) -> None:
        self.etcd_port, peer = free_port(), free_port()
        client = f"http://127.0.0.1:{self.etcd_port}"
        self._start(
            "etcd",
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
        )

    def start(self) -> None:
        """The API server, on the same port each time."""
        self.port = self.port or free_port()
        key = self.folder / "sa.key"
        if not key.exists():
            subprocess.run(
                ["openssl", "genrsa", "-out", key, "2048"], check=True, stderr=subprocess.DEVNULL
            )
        tokens = f'{ADMIN},admin,1,"system:masters"\n{NOBODY},nobody,2\n'
        (self.folder / "tokens.csv").write_text(tokens)
        self._start(
            "apiserver",
            str(binary()),
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            f"--cert-dir={self.folder / 'certs'}",
            f"--secure-port={self.port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={key}",
            f"--service-account-key-file={key}",
            "--service-cluster-ip-range=10.0.0.0/16",
            "--disable-admission-plugins=ServiceAccount",
            "--etcd-compaction-interval=20s",
            "--endpoint-reconciler-type=none",
        )
        self._wait_ready()

    def _start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def _wait_ready(self) -> None:
        until = time.monotonic() + START_LIMIT
        while time.monotonic() < until:
            if self.processes["apiserver"].poll() is not None:
                break
            if self._is_ready():
                return
            time.sleep(0.2)
        log = (self.folder / "apiserver.log").read_text()[-3000:]
        raise RuntimeError(f"kube-apiserver did not become ready:\n{log}")

    def _is_ready(self) -> bool:
        try:
            context = ssl.create_default_context(cafile=str(self.ca))
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=5, context=context
            )
            with closing(connection):
                connection.request("GET", "/readyz", headers={"Authorization": f"Bearer {ADMIN}"})
                return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP makes every connection half-open, SIGCONT heals it."""
        self.processes["apiserver"].send_signal(number)

    def compact(self, revision: int) -> None:
        """Etcd forgets what was before; 3.4 to 3.6 have this in front of their gRPC."""
        connection = http.client.HTTPConnection("127.0.0.1", self.etcd_port, timeout=30)
        with closing(connection):
            body = json.dumps({"revision": revision, "physical": True})
            connection.request("POST", "/v3/kv/compaction", body)
            answer = connection.getresponse()
            if answer.status != 200:
                raise RuntimeError(f"etcd: {answer.status} {answer.read()!r}")

    def kill(self) -> None:
        """The API server only; its data stays in etcd."""
        self._end("apiserver")

    def stop(self) -> None:
        for name in list(self.processes):
            self._end(name)

    def _end(self, name: str) -> None:
        process = self.processes.pop(name, None)
        if process is not None:
            process.kill()
            process.wait()


@contextmanager
def running() -> Iterator[ApiServerProcess]:
    """Etcd and the API server, in a folder of their own, ready; both end with the block."""
    with tempfile.TemporaryDirectory(prefix="stickyproxy-kube-") as folder:
        server = ApiServerProcess(Path(folder))
        try:
            server.start_etcd()
            server.start()
            yield server
        finally:
            server.stop()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


if __name__ == "__main__":
    if not binary().exists():
        build()
