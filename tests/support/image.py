"""Build the image without Docker, and run what is in it as a container runtime would.

The build is buildah's, step by step the Dockerfile's; the base it stands on is made by mmdebstrap from
the same Debian packages, so no image registry is asked. A container here is a process of its own in
namespaces of mounts, processes and network, on the image's root file system, read-only, as the
image's user, with no capability and no way to one. Needs root (`buildah unshare` gives enough of it).
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from support.manifests import DEPLOY, ROOT
from support.toolbox import CACHE, find, missing

T = TypeVar("T")

SUITE = "trixie"
BASE = "docker.io/library/debian:trixie-slim"  # what the Dockerfile's first FROM means
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
NEW_NETWORK = 0x40000000  # CLONE_NEWNET, sched.h
FIRST = Path(__file__).with_name("first_process.py")


def lacking() -> str:
    """Why it cannot be built here; "" if it can."""
    if os.geteuid() != 0:
        return "needs root: run it under `buildah unshare`"
    return missing("buildah", "mmdebstrap", "unshare")


class Image:
    """Built into `folder`, which can be large for a while."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        storage = ["--root", folder / "storage", "--runroot", folder / "run"]
        self._buildah = [str(find("buildah")), *map(str, storage), "--storage-driver", "vfs"]
        self._take_base()
        self._build()
        container = self._run("from", "--pull=false", "localhost/stickyproxy").strip()
        self.rootfs = Path(self._run("mount", container).strip())
        told = json.loads(self._run("inspect", "--type", "image", "localhost/stickyproxy"))
        self.config: Mapping[str, Any] = told["OCIv1"]["config"]

    def _run(self, *arguments: str | Path) -> str:
        done = subprocess.run(
            [*self._buildah, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
        )
        if done.returncode != 0:
            raise RuntimeError(
                f"buildah {arguments[0]}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
            )
        return done.stdout

    def _take_base(self) -> None:
        container = self._run("from", "scratch").strip()
        self._run("add", "-q", container, base(), "/")
        self._run("commit", "-q", "--rm", container, BASE)

    def _build(self) -> None:
        """The build's pip is lent this machine's certificates, for networks that re-sign TLS."""
        config = self._folder / "pip.conf"
        config.write_text("[global]\ncert = /run/certificates.crt\n")
        lent = ["--volume", f"{config}:/etc/pip.conf:ro"]
        lent += ["--volume", f"{CERTIFICATES}:/run/certificates.crt:ro"]
        told = ["--pull=false", "--network=host", "-t", "localhost/stickyproxy"]
        self._run("bud", *told, *lent, "-f", DEPLOY / "Dockerfile", ".")

    def environment(self) -> dict[str, str]:
        return dict(one.split("=", 1) for one in self.config["Env"])

    def start(self, *arguments: str, program: Sequence[str] = ()) -> subprocess.Popen[str]:
        """A container of it with these arguments; `program` instead of its entrypoint."""
        chosen = [*(program or self.config["Entrypoint"]), *arguments]
        order = {"rootfs": str(self.rootfs), "argv": chosen, "env": self.environment()}
        order["user"] = self.config["User"]
        spaces = ["--mount", "--pid", "--net", "--fork", "--kill-child"]
        return subprocess.Popen(
            [str(find("unshare")), *spaces, sys.executable, str(FIRST), json.dumps(order)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, program: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """As `start`, to its end."""
        process = self.start(*arguments, program=program)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def base() -> Path:
    """Made once, and kept."""
    kept = CACHE / "image" / f"{SUITE}.tar"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        fresh = kept.with_suffix(f".{os.getpid()}.tar")
        wanted = ["--variant=minbase", "--include=ca-certificates", SUITE, str(fresh)]
        subprocess.run([str(find("mmdebstrap")), *wanted], check=True, capture_output=True)
        fresh.rename(kept)
    return kept


class Container:
    """A running one. `pid` is that of its first process, outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self._told = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (process.stdout, process.stderr)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any) -> None:
        for line in stream:
            try:
                told = json.loads(line)
            except ValueError:
                told = {"unparsed": line}
            with self._told:
                self.lines.append(told)
                self._told.notify_all()

    def wait_for(self, event: str) -> None:
        """Until the proxy's log has it."""
        with self._told:
            there = self._told.wait_for(
                lambda: any(one.get("event") == event for one in self.lines), timeout=30
            )
        assert there, (self.lines, self.process.poll())

    @property
    def pid(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(children.read_text().split()[0])

    def inside(self, work: Callable[[], T]) -> T:
        """The result of `work` in a thread whose sockets are in the container's network."""
        found: list[T] = []

        def enter() -> None:
            with Path(f"/proc/{self.pid}/ns/net").open() as space:
                if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), NEW_NETWORK) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            found.append(work())

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        return found[0]

    def execute(self, image: Image, *command: str) -> subprocess.CompletedProcess[str]:
        """A command beside it, as a kubelet's hook is run."""
        user, _, group = image.config["User"].partition(":")
        entered = ["-t", str(self.pid), "-m", "-p", "-n", "-r", "-S", user, "-G", group]
        program = f"{image.environment()['PATH']}/{command[0]}"
        return subprocess.run(
            [str(find("nsenter")), *entered, program, *command[1:]],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=image.environment(),
        )

    def end(self, number: signal.Signals) -> int:
        """The exit code after this signal to its first process."""
        os.kill(self.pid, number)
        return self.process.wait(60)

    def close(self) -> None:
        """End it now, however it is. (`unshare` cannot: a change of user undoes --kill-child.)"""
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        self.process.wait(10)
        for reader in self._readers:
            reader.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@contextmanager
def running(image: Image, *arguments: str) -> Iterator[Container]:
    container = Container(image.start(*arguments))
    try:
        yield container
    finally:
        container.close()
