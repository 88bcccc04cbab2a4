"""One attack on a proxy of its own: what it came to, and what it cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from conformance.attacks.bystander import Bystander
from conformance.attacks.gauge import Gauge, forget_peak
from conformance.board.proxied import proxied
from conformance.board.results import Way
from support import rawframes as raw
from support.attacks import Attack, Attacker
from support.attacks_upstream import Trick, tricky_backend
from support.h2_backend import h2_backend
from support.http_clients import RawH2Client, h2_request, raw_h2_client
from support.http_lab import mappings
from support.leftovers import left_over
from support.proxy_process import ProxyProcess

CPU, MEMORY, WAIT = 0.2, 20 << 20, 0.1
"""Seconds of CPU, bytes of growth, seconds that a neighbour may wait for its answer."""
HOLD = 6.0
"""Seconds for which those attacks that hold are held, as it was published."""
WARM = 40
"""Calls of the neighbour before: what a proxy needs once it has by then."""
PATIENCE = 5.0
OF_REFERENCE = {
    "made you reset: WINDOW_UPDATE 0": "C1",  # for hyperframe an error of the connection
    "CONTINUATION flood": "C1",  # h2 counts them too, and says PROTOCOL_ERROR
    "CONTINUATION flood, empty": "C1",
    "backend: CONTINUATION flood": "C1",
    "backend: CONTINUATION flood, empty": "C1",
    "unknown frames": "C6",  # hyperframe knows one of them, ALTSVC, and finds it too short
}
"""Endings that are as good, where the h2 package has its own."""


class Row(NamedTuple):
    """`cpu` in seconds and `growth` in bytes at its highest.

    `wait` is the neighbour's longest, `rest` its longest before the attack: a busy machine's own.
    """

    number: str
    name: str
    outcome: str
    right: bool
    cpu: float
    growth: int
    wait: float
    rest: float
    wrong: tuple[str, ...]

    @property
    def complaints(self) -> str:
        found = [*self.wrong]
        if not self.right:
            found.append(f"ended with {self.outcome}")
        if self.cpu > CPU:
            found.append(f"{self.cpu:.2f} s of CPU")
        if self.growth > MEMORY:
            found.append(f"{self.growth >> 20} MB")
        if self.wait > WAIT + self.rest:
            found.append(f"a neighbour waited {self.wait * 1000:.0f} ms")
        return ", ".join(found)


class Cost:
    """What a proxy uses beyond what the neighbour's calls cost by themselves."""

    def __init__(self, pid: int, neighbour: Bystander) -> None:
        self.cpu = self.wait = self.rest = 0.0
        self.growth = 0
        self._pid = pid
        self._neighbour = neighbour
        _until(lambda: len(neighbour.waits) >= WARM)
        before, calls = Gauge.of(pid), len(neighbour.waits)
        _until(lambda: len(neighbour.waits) >= calls + WARM)
        self.rest = max(neighbour.waits)
        self._each = (Gauge.of(pid).cpu - before.cpu) / (len(neighbour.waits) - calls)

    @contextmanager
    def measured(self) -> Iterator[None]:
        forget_peak(self._pid)
        before, calls = Gauge.of(self._pid), len(self._neighbour.waits)
        yield
        after = Gauge.of(self._pid)
        _until(lambda: len(self._neighbour.waits) > calls + 1)  # one that was under way too
        waits = self._neighbour.waits[calls:]
        self.cpu = max(0.0, after.cpu - before.cpu - self._each * len(waits))
        self.growth = max(0, after.peak - before.memory)
        self.wait = max(waits, default=0.0)


@contextmanager
def _scene(way: Way, folder: Path, target: str) -> Iterator[tuple[ProxyProcess, Bystander]]:
    """A proxy before the attacked backend and the neighbour's, and the neighbour calling."""
    with Bystander() as neighbour:
        config = folder / "scene.yaml"
        services = {"neighbour": f"h2c://{neighbour.address}"}
        config.write_text(mappings(services))
        flags = (str(config), "--backend", target, "--access-log", "off")
        with proxied(way, folder, *flags) as proxy:
            neighbour.begin(proxy.port, b"/neighbour/")
            yield proxy, neighbour


def attacked(attack: Attack, way: Way, folder: Path, *, hold: bool) -> Row:
    """By a client."""
    with h2_backend() as backend, _scene(way, folder, backend.address) as (proxy, neighbour):
        cost = Cost(proxy.process.pid, neighbour)
        with Attacker(attack, proxy.port, attack.many) as attacker, cost.measured():
            if hold:
                attacker.send_only()
                time.sleep(HOLD)
            else:
                attacker.run()
        wrong = [*neighbour.failures, *_left(proxy)]
        if "/smuggled" in backend.asked:
            wrong.append("the backend saw what came after the end")
    outcome = attacker.seen.outcome
    ends = _ends(attack.ends, attack.name, way)
    return _row(attack.row, attack.name, outcome, ends, cost=cost, wrong=wrong)


def tricked(trick: Trick, way: Way, folder: Path) -> Row:
    """By a backend."""
    with (
        tricky_backend(trick, trick.many) as tricky,
        _scene(way, folder, tricky.address) as (proxy, neighbour),
    ):
        cost = Cost(proxy.process.pid, neighbour)
        with raw_h2_client(proxy.port) as client, cost.measured():
            client.send(raw.settings({raw.INITIAL_WINDOW_SIZE: 2**31 - 1}))
            client.send(raw.window_update(0, 2**30))
            client.request(1, h2_request(b"/tricky"))
            lost = _what_was_lost(client)
            if "A" not in trick.ends:
                _until(lambda: bool(tricky.codes), patience=PATIENCE)
            outcome = tricky.outcome()
        wrong = [*neighbour.failures, *_left(proxy), *lost]
    name = f"backend: {trick.name}"
    return _row(trick.row, name, outcome, _ends(trick.ends, name, way), cost=cost, wrong=wrong)


def _what_was_lost(client: RawH2Client) -> list[str]:
    """Of the client whose call came to the hostile backend: it has an end, and goes on."""
    try:
        found = client.ending(1)
    except TimeoutError:
        return ["the client's call had no end"]
    if found is None or found.kind == raw.GOAWAY:
        return ["the client lost its connection"]
    return []


def _ends(ends: frozenset[str], name: str, way: Way) -> frozenset[str]:
    return ends | {OF_REFERENCE.get(name, "")} if way.codec == "reference" else ends


def _row(
    number: str,
    name: str,
    outcome: str,
    ends: frozenset[str],
    *,
    cost: Cost,
    wrong: Sequence[str],
) -> Row:
    right = outcome in ends
    return Row(
        number, name, outcome, right, cost.cpu, cost.growth, cost.wait, cost.rest, tuple(wrong)
    )


def _left(proxy: ProxyProcess) -> list[str]:
    """What is there beside the neighbour, who has one connection and perhaps a call."""

    def over() -> dict[str, float]:
        return {name: n for name, n in left_over(proxy).items() if n > 1}

    return [] if _until(lambda: not over(), patience=PATIENCE) else [f"left over: {over()}"]


def _until(happened: Callable[[], bool], *, patience: float = 60.0) -> bool:
    end = time.monotonic() + patience
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
