"""A start with many Services, and how soon a change of pods acts: `start.py [--real] [SERVICES [PODS]]`.

The API server is the project's own (tests/support), in a process beside the proxy's, with pods on
loopback; or a real one, within a network namespace (`run.py kube` makes it). Prints tables for
docs/performance.md.
"""

from __future__ import annotations

import http.client
import http.server
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "tests"), str(HERE)]

from conformance.lab import network  # noqa: E402
from support.fake_kube_store import SERVICES, SLICES, Kind  # noqa: E402
from support.kube_cluster import kube_flags  # noqa: E402
from support.kube_objects import Object, endpoint, service, slice_of  # noqa: E402
from support.kube_process import running_kube  # noqa: E402
from support.proxy_process import ProxyProcess, running_proxy  # noqa: E402
from support.real_kube import running_real_kube  # noqa: E402

POLICIES = {
    "round_robin": "round_robin}",
    "ring_hash": "ring_hash, header: x-user}",
    "maglev": "maglev, header: x-user}",
}
IN_A_SLICE = 100  # as the endpoint slice controller makes them
ROUNDS = 40
APART = 0.3  # seconds: a change for itself, not merged with the one before
PATIENCE = 300.0
LOCAL = "127.0.0.1:0"
FLAGS = ["--bind", LOCAL, "--admin", LOCAL, "--log-format", "json", "--drain-delay", "0"]


# --- the cluster ----------------------------------------------------------------------------------


class Site(NamedTuple):
    """An API server: what leads a proxy to it, what replaces a slice, and where its pods are."""

    flags: Sequence[str]
    put: Callable[[Object], object]
    net: str


def addresses(net: str, service_number: int, count: int) -> list[str]:
    """All of them ours, so that they can answer."""
    first = service_number * count
    return [f"{net}.{n >> 8 & 255}.{n & 255}" for n in range(first + 256, first + count + 256)]


def slices(name: str, found: Sequence[str], port: int) -> Iterator[Object]:
    for start in range(0, len(found), IN_A_SLICE):
        pods = [endpoint(one, pod=f"{name}-{one}") for one in found[start : start + IN_A_SLICE]]
        yield slice_of(name, f"{name}-{start}", *pods, ports=(("", port),))


def objects(net: str, services: int, pods: int, port: int) -> Iterator[tuple[Kind, Object]]:
    """What the API server knows when the proxy starts."""
    for number in range(services):
        name = f"svc-{number}"
        yield SERVICES, service(name)
        for part in slices(name, addresses(net, number, pods), port):
            yield SLICES, part


@contextmanager
def fake_site(services: int, pods: int, port: int) -> Iterator[Site]:
    with tempfile.TemporaryDirectory() as name:
        folder, net = Path(name), "127.1"
        with (folder / "etcd.jsonl").open("w") as file:
            for kind, found in objects(net, services, pods, port):
                file.write(json.dumps(["put", kind.plural, found]) + "\n")
        with running_kube(folder) as kube:
            yield Site(kube_flags(kube), lambda found: kube.put(SLICES, found), net)


@contextmanager
def real_site(services: int, pods: int, port: int) -> Iterator[Site]:
    with tempfile.TemporaryDirectory() as name, running_real_kube(Path(name)) as kube:
        net = network.MANY.rpartition(".0.0/")[0]
        with kube.connection() as connection:
            for kind, found in objects(net, services, pods, port):
                kube.create(kind, found, connection)
            yield Site(kube_flags(kube), lambda found: kube.replace(SLICES, found, connection), net)


def mappings(folder: Path, services: int, policy: str) -> Path:
    file = folder / f"{policy}.yaml"
    file.write_text(
        "".join(
            f"---\napiVersion: ambassador/v1\nkind: Mapping\nname: m{n}\nprefix: /svc-{n}/\n"
            f"service: svc-{n}\nload_balancer: {{policy: {POLICIES[policy]}\n"
            for n in range(services)
        )
    )
    return file


# --- the start ------------------------------------------------------------------------------------


class Started(NamedTuple):
    """Times in seconds, memory in bytes, the longest turn of the loop in milliseconds."""

    ready: float
    cpu: float
    resident: int
    turn: float


def started(*arguments: str) -> Started:
    """A proxy of its own, from exec to /ready; its longest turn since it began to ask the cluster."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(HERE / "turns.py"), "run", *FLAGS, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    if process.stderr is None:
        raise RuntimeError("no pipe")
    port = 0
    for line in process.stderr:
        found = re.search(rb'"admin_listening".*127\.0\.0\.1:(\d+)', line)
        if found:
            port = int(found[1])
            break
    if not port:
        raise SystemExit(f"the proxy did not start: it ended with {process.wait()}")
    until(lambda: answer(port, "/ready")[0] == 200)
    ready = time.perf_counter() - began
    ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    cpu = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    process.terminate()
    rest = process.stderr.read()
    process.wait()
    turn = float(re.findall(rb"longest turn (\S+) ms", rest)[-1])
    return Started(ready, cpu, pages * os.sysconf("SC_PAGE_SIZE"), turn)


def answer(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        found = connection.getresponse()
        return found.status, found.read().decode()
    finally:
        connection.close()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            raise SystemExit("it does not come")
        time.sleep(0.002)


# --- changes --------------------------------------------------------------------------------------


class Backend(http.server.BaseHTTPRequestHandler):
    """Says at which address it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        text = str(self.connection.getsockname()[0]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def backend() -> Iterator[int]:
    """On every loopback address. Its port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend, bind_and_activate=False)
    server.server_address = ("0.0.0.0", 0)  # noqa: S104 (127.0.0.0/8 is meant, and all there is)
    server.daemon_threads = True
    server.server_bind()
    server.server_activate()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()


class User:
    """One connection to the proxy."""

    def __init__(self, proxy: ProxyProcess, name: str) -> None:
        self.name = name
        self.connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=PATIENCE)

    def home(self) -> str:
        self.connection.request("GET", "/svc-0/", headers={"x-user": self.name})
        return self.connection.getresponse().read().decode()


class Change(NamedTuple):
    """Milliseconds from before the write was sent until no call began any more that did not show it."""

    removed: list[float]
    rested: list[float]
    added: list[float]


class First:
    """The first slice of svc-0, and who is in it."""

    def __init__(self, site: Site, pods: int, port: int) -> None:
        self.addresses = addresses(site.net, 0, pods)[:IN_A_SLICE]
        self._site = site
        self._port = port

    def write(self, *known: str, resting: str = "") -> float:
        """When the write began."""
        listed = [endpoint(one, ready=one != resting, pod=f"svc-0-{one}") for one in known]
        began = time.perf_counter()
        self._site.put(slice_of("svc-0", "svc-0-0", *listed, ports=(("", self._port),)))
        return began


def one_round(first: First, user: User, found: Change) -> None:
    """The user's pod leaves, comes back, is not ready for a while."""
    home = user.home()
    others = [one for one in first.addresses if one != home]
    found.removed.append(waited(first.write(*others), lambda: user.home() != home))
    time.sleep(APART)
    found.added.append(waited(first.write(*first.addresses), lambda: user.home() == home))
    time.sleep(APART)
    resting = first.write(*first.addresses, resting=home)
    found.rested.append(waited(resting, lambda: user.home() != home))
    first.write(*first.addresses)
    until(lambda: user.home() == home)
    time.sleep(APART)


def waited(began: float, holds: Callable[[], bool]) -> float:
    """Until the last call that does not show it; 0 if there is none."""
    last = began
    while True:
        asked = time.perf_counter()
        if holds():
            return (last - began) * 1e3
        last = asked


def changes(site: Site, proxy: ProxyProcess, pods: int, port: int) -> Change:
    first, found = First(site, pods, port), Change([], [], [])
    users = (User(proxy, f"user-{number}") for number in range(100_000))
    for _ in range(ROUNDS):
        one_round(first, next(user for user in users if user.home() in first.addresses), found)
    return found


# --- the report -----------------------------------------------------------------------------------


Sites = Callable[[int, int, int], AbstractContextManager[Site]]
"""Makes one with so many Services of so many pods each, at this port."""


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} / {max(values):.1f} ms"


def main(sites: Sites, services: int, pods: int) -> None:
    print(f"| {services} Services x {pods} pods | ready | CPU | RSS | longest turn |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name, sites(services, pods, 8080) as site:
        row("no Kubernetes, one backend", started("--backend", "127.0.0.1:1"))
        for policy in POLICIES:
            row(policy, started(*site.flags, str(mappings(Path(name), services, policy))))
    print("\n| one Service | removed | not ready | added |\n|---|---|---|---|")
    for count in (10, 1000):
        with (
            tempfile.TemporaryDirectory() as name,
            backend() as port,
            sites(1, count, port) as site,
        ):
            flags = str(mappings(Path(name), 1, "maglev"))
            with running_proxy(*site.flags, flags) as proxy:
                found = changes(site, proxy, count, port)
        cells = " | ".join(map(spread, (found.removed, found.rested, found.added)))
        print(f"| {count} pods, maglev | {cells} |", flush=True)


def row(what: str, found: Started) -> None:
    memory = f"{found.resident / 2**20:.0f} MiB"
    times = f"{found.ready:.2f} s | {found.cpu:.2f} s"
    print(f"| {what} | {times} | {memory} | {found.turn:.1f} ms |", flush=True)


if __name__ == "__main__":
    given = [text for text in sys.argv[1:] if text != "--real"]
    numbers = [int(text) for text in given]
    main(
        real_site if "--real" in sys.argv else fake_site,
        *(numbers + [1000, 10][len(numbers) :]),
    )
