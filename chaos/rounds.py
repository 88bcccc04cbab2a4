"""Which run comes when: rounds through all cases, each of them once before any of them twice."""

from __future__ import annotations

import queue
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import certificate
from bench.children import StartError
from bench.progress import Progress
from chaos.case import measure
from chaos.network import Lab, LabError
from chaos.peers import Peer
from chaos.samples import Sample, save
from chaos.scenarios import Scenario

AGAIN = 2  # times that a run is repeated because the load was late itself
AROUND = 4.0  # seconds a run takes beside its calls: namespaces, starts, warming up


@dataclass(frozen=True, slots=True)
class Turn:
    """One run to be made."""

    scenario: Scenario
    peer: Peer
    number: int

    @property
    def longest(self) -> float:
        """Seconds. A proxy that answers everything at once does not use up the drain."""
        return AROUND + self.scenario.pace.seconds + self.scenario.pace.drain

    @property
    def shortest(self) -> float:
        return AROUND + self.scenario.pace.seconds


def turns(
    scenarios: Sequence[Scenario], peers: Sequence[Peer], runs: int, first: int = 0
) -> list[Turn]:
    """Neighbours in time are the peers of one scenario in one round; who begins moves on."""
    found = []
    for number in range(first, first + runs):
        for scenario in scenarios:
            able = [peer for peer in peers if peer.able(scenario.setup)]
            shift = number % max(1, len(able))
            found += [Turn(scenario, peer, number) for peer in able[shift:] + able[:shift]]
    return found


def words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


class Rounds:
    """All turns, by some labs side by side; each run's Sample is a file as soon as it is made."""

    def __init__(
        self,
        todo: Sequence[Turn],
        jobs: int,
        folder: Path,
        progress: Progress,
        *,
        again: int = AGAIN,
    ) -> None:
        self.samples: list[Sample] = []
        self._todo = list(todo)
        self._jobs = jobs
        self._again = again
        self._folder = folder
        self._progress = progress
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Turn] = queue.SimpleQueue()
        self._took: list[tuple[float, Turn]] = []
        self._running: dict[int, str] = {}
        self._stop = threading.Event()

    def run(self, note: Callable[[Sample], str]) -> list[Sample]:
        """`note` says a Sample in a line."""
        for turn in self._todo:
            self._queue.put(turn)
        with tempfile.TemporaryDirectory(prefix="stickyproxy-chaos-") as scratch:
            tls = certificate.make(Path(scratch))
            threads = [
                threading.Thread(target=self._work, args=(job, Path(scratch), tls, note))
                for job in range(self._jobs)
            ]
            for thread in threads:
                thread.start()
            try:
                while any(thread.is_alive() for thread in threads):
                    threads[0].join(0.5)
                    time.sleep(0.1 if threads[0].is_alive() else 0.5)
            finally:
                self._stop.set()
                for thread in threads:
                    thread.join()
        return self.samples

    def _work(
        self, job: int, scratch: Path, tls: tuple[Path, Path], note: Callable[[Sample], str]
    ) -> None:
        while not self._stop.is_set():
            try:
                turn = self._queue.get_nowait()
            except queue.Empty:
                return
            began = time.monotonic()
            sample = self._settled(turn, job, scratch, tls)
            with self._lock:
                self._took.append((time.monotonic() - began, turn))
                self._running.pop(job, None)
                self.samples.append(sample)
                save(sample, self._folder)
                self._progress.print(note(sample))

    def _settled(self, turn: Turn, job: int, scratch: Path, tls: tuple[Path, Path]) -> Sample:
        """Made again if the load was late itself; the least late one counts."""
        best: Sample | None = None
        for attempt in range(1 + self._again):
            again = f" (again: the load was {best.late_ms:.0f} ms late)" if best else ""
            sample = self._once(turn, job, scratch / f"{job}", tls, again)
            if best is None or sample.void or sample.late_ms < best.late_ms:
                best = sample
            if sample.void or not best.disturbed or self._stop.is_set() or attempt == self._again:
                break
        return best or sample

    def _once(
        self, turn: Turn, job: int, scratch: Path, tls: tuple[Path, Path], again: str
    ) -> Sample:
        scenario, peer = turn.scenario, turn.peer
        title = f"{scenario.name} {peer.name} #{turn.number + 1}{again}"
        self._say(job, title)

        def say(word: str) -> None:
            self._say(job, f"{title}: {word}")

        log = self._folder / "logs" / f"{scenario.name}.{peer.name}.{turn.number}.log"
        try:
            with Lab(scenario.setup, scratch, job, tls) as lab:
                return measure(scenario, peer, turn.number, lab, log=log, say=say)
        except (LabError, StartError, RuntimeError, OSError, ValueError) as error:
            return Sample(scenario.name, peer.name, turn.number, void=str(error)[:400])

    def _say(self, job: int, title: str) -> None:
        with self._lock:
            self._running[job] = title
            done, total = len(self._took), len(self._todo)
            self._progress.stage = f"[{done}/{total}, {words(self._left())} left]"
            self._progress.say(" | ".join(self._running[key] for key in sorted(self._running)))

    def _left(self) -> float:
        """Seconds: what is left takes as long, of its longest, as what is done took."""
        share = 0.85  # at first: most runs need little of their drain
        if self._took:
            share = sum(took for took, _ in self._took) / sum(t.longest for _, t in self._took)
        left = self._todo[len(self._took) :]
        return share * sum(turn.longest for turn in left) / self._jobs
