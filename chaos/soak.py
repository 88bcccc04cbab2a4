"""Minutes of random faults on all backends, and what is left of them afterwards.

After each minute the faults end, calls stop, and the proxy is looked at while it rests: tasks, open files,
memory, attempts under way. What grows from rest to rest is a leak; what is under way at rest is stuck.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import certificate
from bench.accounting import memory, totals
from bench.progress import Progress
from chaos.counted import EVERY, collecting
from chaos.job import CHAT, UNARY, Job, Setup
from chaos.network import Lab, LabError, sweep
from chaos.peers import counted
from chaos.scenarios import Step

MINUTES = 10
CALLING = 50.0  # seconds of a minute in which calls are made
DRAIN = 18.0  # seconds that answers are waited for: above the 15 s after which a route gives up
REST = 6.0  # seconds after which what is at rest is taken to be: idle spares and probes included
GROWTH = (
    1.10  # times the memory of the first rest but one: Python's heap settles in the first minute
)
COLLECTED = 10.0  # seconds that Python has for a collection
SPARE = 2  # links an endpoint may have at rest beside the one in use
PER_LINK = 4  # tasks of a link: itself, reader, writer, and what dialled it

UPSTREAM = "upstream_rq_active"
PENDING = "upstream_rq_pending_active"


@dataclass(frozen=True, slots=True)
class Rest:
    """The proxy while nobody calls. `memory`: octets. `unanswered`: calls of this minute."""

    tasks: int
    files: int
    memory: int
    under_way: float
    pending: float
    calls: int
    failed: int
    unanswered: int


def faults(seconds: float, setup: Setup, seed: int) -> Iterator[Step]:
    """One after another, each healed before the next; the last one too.

    A deaf backend swallows messages on open streams, which nobody could answer later: not for CHAT.
    """
    chance = random.Random(seed)
    lasting = {"cut": "heal", "loss": "heal", "cut-connection": "heal", "freeze": "thaw"}
    lasting |= {"mute": "well"} | ({"deaf": "well"} if setup.kind != CHAT else {})
    kinds = [*lasting, "rst", "goaway"]
    at = 1.0
    while at < seconds - 6:
        what = chance.choice(kinds)
        backend = chance.randint(1, setup.backends)
        yield Step(at, what, chance.choice((2.0, 10.0)) * (what == "loss"), backend=backend)
        at += chance.uniform(0.5, 5.0)
        if what in lasting:
            yield Step(at, lasting[what], backend=backend)
        at += chance.uniform(0.1, 1.0)


def complaints(rests: Sequence[Rest]) -> list[str]:
    """What leaked or got stuck, in words. The first rest is before any call."""
    found = []
    for at, rest in enumerate(rests):
        if rest.under_way or rest.pending:
            found.append(f"rest {at}: {rest.under_way:g} under way, {rest.pending:g} pending")
        if rest.unanswered:
            found.append(f"rest {at}: {rest.unanswered} calls were never answered")
    first, last = rests[0], rests[-1]
    links = 3 * (1 + SPARE)
    if last.tasks > first.tasks + links * PER_LINK:
        found.append(f"tasks grew from {first.tasks} to {last.tasks}")
    if last.files > first.files + links:
        found.append(f"open files grew from {first.files} to {last.files}")
    settled = rests[min(2, len(rests) - 1)].memory
    if last.memory > GROWTH * settled:
        found.append(f"memory grew from {settled >> 10:,} to {last.memory >> 10:,} KiB")
    return found


def main(minutes: int, progress: Progress) -> int:
    """Half of the time with unary calls, half with streams that stay open. Exit code."""
    sweep()
    wrong = []
    with tempfile.TemporaryDirectory(prefix="stickyproxy-chaos-") as scratch:
        folder = Path(scratch)
        tls = certificate.make(folder)
        for kind in (UNARY, CHAT):
            setup = Setup(kind=kind, body=64, rate=200)
            progress.stage = f"soak, {kind}"
            with Lab(setup, folder / kind, 0, tls) as lab:
                rests = _soak(lab, max(1, minutes // 2), progress)
            progress.print(f"{kind}\n" + "\n".join(_row(rest) for rest in rests))
            wrong += [f"{kind}: {one}" for one in complaints(rests)]
    progress.print("\n".join(wrong) or "nothing leaked, nothing is stuck")
    return 1 if wrong else 0


def _collect(tasks: Path) -> None:
    """What only cycles hold is no leak. Raises LabError if the proxy does not come to it."""
    wanted = collecting(tasks)
    wanted.touch()
    deadline = time.monotonic() + COLLECTED
    while wanted.exists():
        if time.monotonic() > deadline:
            raise LabError("the proxy did not collect its garbage")
        time.sleep(EVERY / 5)


def _row(rest: Rest) -> str:
    return (
        f"  {rest.calls:6} calls, {rest.failed:5} failed, at rest {rest.tasks} tasks, {rest.files} "
        f"files, {rest.memory >> 10:,} KiB, {rest.under_way:g} under way, {rest.pending:g} pending"
    )


def _soak(lab: Lab, minutes: int, progress: Progress) -> list[Rest]:
    tasks = lab.folder / "tasks"
    log = lab.folder / "said"
    with log.open("wb") as said:
        job = Job(lab.folder, lab.addresses, lab.setup)
        proxy = lab.start(counted(job, tasks), said)
        lab.wait_listening(proxy, log)
        time.sleep(REST)
        rests = [_rest(lab, proxy.pid, tasks, [])]
        for minute in range(minutes):
            rows = _minute(lab, minute, progress)
            time.sleep(REST)
            rests.append(_rest(lab, proxy.pid, tasks, rows))
        if proxy.poll() is not None:
            raise LabError(f"the proxy ended: {log.read_text(errors='replace')[-300:]}")
        lab.stop(proxy)
    return rests


def _minute(lab: Lab, minute: int, progress: Progress) -> list[Sequence[object]]:
    zero = time.monotonic() + 1.0
    argv = [sys.executable, "-m", "chaos.load", json.dumps(asdict(lab.setup))]
    argv += ["--seconds", str(CALLING), "--drain", str(DRAIN), "--seed", str(minute)]
    out = lab.folder / "rows.json"
    with out.open("wb") as rows:
        load = subprocess.Popen(lab.argv(0, [*argv, "--start", repr(zero)]), stdout=rows)
        try:
            for step in faults(CALLING, lab.setup, minute):
                time.sleep(max(0.0, zero + step.at - time.monotonic()))
                progress.say(f"minute {minute + 1}: {step.what} b{step.backend}")
                try:
                    lab.do(step)
                except LabError:  # nothing was connected, so there is nothing to cut
                    continue
            load.wait(CALLING + DRAIN + 30)
        finally:
            load.kill()
            load.wait()
    found: list[Sequence[object]] = json.loads(out.read_text())["rows"]
    return found


def _rest(lab: Lab, pid: int, tasks: Path, rows: Sequence[Sequence[object]]) -> Rest:
    sums = totals(lab.ask("/metrics"))
    _collect(tasks)
    return Rest(
        tasks=int(tasks.read_text()),
        files=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        memory=memory(pid),
        under_way=sums.get(UPSTREAM, 0.0),
        pending=sums.get(PENDING, 0.0),
        calls=len(rows),
        failed=sum(1 for row in rows if row[2] != "200"),
        unanswered=sum(1 for row in rows if row[2] == "no answer"),
    )
