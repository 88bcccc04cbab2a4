"""What runs while a case is measured: backends, proxies, and one block of load at a time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import h2load
from bench.accounting import cpu_seconds
from bench.books import Books
from bench.children import Children, StartError, free_port
from bench.job import USER, Job
from bench.load import Load, LoadError
from bench.peers import Peer, Proxy, find, start

SETTLE = 0.15  # seconds after a block in which a proxy finishes what belongs to it, logs above all
DIRECT = "direct"
"""The name of the backends without any proxy."""

Go = Callable[[], Load]


@dataclass(slots=True)
class Subject:
    """One proxy under measurement, or (without `proxy`) the backends themselves."""

    name: str
    log: bool
    port: int
    proxy: Proxy | None = None
    books: Books | None = None
    size: int = 0

    @property
    def title(self) -> str:
        return f"{self.name}, log {'on' if self.log else 'off'}" if self.proxy else self.name


@dataclass(slots=True)
class Block:
    """One block: what the load saw and what it cost the proxy, or why it does not count."""

    load: Load
    cpu: float
    void: str = ""


@dataclass(slots=True)
class Scene:
    """The processes of one case; `children` ends them."""

    children: Children
    folder: Path
    job: Job
    rate: float = 0.0
    """Calls a second of an open loop."""
    subjects: list[Subject] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    """Why a peer is left out, one line each."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the figures must know besides."""
    _started: int = 0

    def backends(self, count: int, mode: str, body: int) -> tuple[int, ...]:
        """Start a process with that many ports; these."""
        argv = ["--ports", str(count), "--mode", mode, "--body", str(body)]
        process = self.module("backend", *argv)
        return tuple(json.loads(read_line(process)))

    def module(self, name: str, *argv: str) -> subprocess.Popen[bytes]:
        """Start a module of the bench that we talk with over pipes."""
        command = [sys.executable, "-m", f"bench.{name}", *argv]
        return self.children.start(
            command, output=subprocess.PIPE, given=subprocess.PIPE, errors=None
        )

    def bring_up(self, peers: Sequence[Peer], logs: Sequence[bool]) -> None:
        """Start all peers for the job; one that does not come up is named and left out."""
        for log in logs:
            for peer in peers:
                if subject := self.bring_up_one(peer, self.job, log=log):
                    self.subjects.append(subject)

    def bring_up_one(self, peer: Peer, job: Job, *, log: bool) -> Subject | None:
        """None, and a line in `absent`, if it does not come up."""
        self._started += 1
        folder = self.folder / f"{self._started}-{peer.name}"
        own = replace(job, folder=folder, log=log, port=free_port(), admin=free_port())
        try:
            proxy = start(peer, own, self.children)
        except StartError as exc:
            self.absent.append(f"{peer.name} did not start: {exc}")
            return None
        return Subject(peer.name, log, own.port, proxy, Books(own) if peer.ours else None)

    def take_down(self, subject: Subject) -> None:
        if subject.proxy:
            self.children.stop(subject.proxy.process)

    def filler(self, size: int) -> Path:
        """A file of that many octets to send."""
        path = self.folder / f"filler-{size}"
        if not path.exists():
            path.write_bytes(bytes(size))
        return path

    def block(self, subject: Subject, load: AbstractContextManager[Go]) -> Block:
        """The CPU counts from when the load is connected, where it can be told, until it settled."""
        if subject.books:
            subject.books.settle()
        try:
            with load as go:
                before = self._cpu(subject)
                said = go()
                time.sleep(SETTLE)
                used = self._cpu(subject) - before
        except (LoadError, OSError, ValueError) as exc:
            return Block(Load(0, 0, 0.0), 0.0, void=str(exc))
        return Block(said, used, void=self._complaint(subject, said))

    def _cpu(self, subject: Subject) -> float:
        return cpu_seconds(subject.proxy.pid) if subject.proxy else 0.0

    def _complaint(self, subject: Subject, load: Load) -> str:
        if load.failed:
            return f"{load.failed} of {load.calls} calls failed"
        if not subject.books:
            return ""
        return subject.books.complaint(load.calls)

    # --- loads ------------------------------------------------------------------------------------

    @contextmanager
    def replay(self, module: str, port: int, *argv: str) -> Iterator[Go]:
        """A client of ours that is connected and waits for its cue."""
        process = self.module(module, f"--port={port}", *argv)
        try:
            if read_line(process) != "ready":
                raise LoadError(f"{module} did not get ready")

            def go() -> Load:
                if process.stdin is None:
                    raise LoadError("started without a pipe")
                process.stdin.write(b"go\n")
                process.stdin.flush()
                return Load(**json.loads(read_line(process) or '"died"'))

            yield go
        finally:
            self.children.stop(process)

    @contextmanager
    def h2load(
        self,
        subject: Subject,
        *,
        calls: int,
        connections: int,
        streams: int,
        body: Path | None = None,
        grpc: bool = True,
        h1: bool = False,
        tls: bool = False,
        latencies: bool = False,
    ) -> Iterator[Go]:
        log = self.folder / "h2load.log" if latencies else None
        fields = [(USER, "user-0007"), *(GRPC if grpc else ())]
        url = f"{'https' if tls else 'http'}://127.0.0.1:{subject.port}/bench.Echo/Call"
        argv = h2load.command(
            url,
            calls=calls,
            connections=connections,
            streams=streams,
            fields=fields,
            body=body,
            h1=h1,
            log=log,
        )
        argv[0] = find("h2load") or argv[0]

        def go() -> Load:
            if log:
                log.unlink(missing_ok=True)
            process = self.children.start(argv, output=subprocess.PIPE, errors=subprocess.STDOUT)
            try:
                said, _ = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                raise LoadError(f"h2load was not done after {PATIENCE:.0f} s") from None
            finally:
                self.children.stop(process)
            load = h2load.parse(said.decode(errors="replace"))
            if log:
                load.latencies = h2load.parse_log(log.read_text())
            return load

        yield go


PATIENCE = 120.0  # seconds until a block of h2load is given up

GRPC = (("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", "grpc-go/1.72.0"))
"""What h2load must be told so that a call looks like gRPC."""


def read_line(process: subprocess.Popen[bytes]) -> str:
    if process.stdout is None:
        raise LoadError("started without a pipe")
    return process.stdout.readline().decode().strip()
