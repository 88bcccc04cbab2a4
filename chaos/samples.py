"""What one run of one proxy under one scenario came to, as a file that can be read again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from chaos.job import GET
from chaos.load import Row

LATE = 5.0  # ms at p99: above it the load was late itself, and its latencies are partly its own


@dataclass(slots=True)
class Sample:
    """`rows`: due ms, latency ms, status, backend; a status of `200` is success for gRPC too.

    `late_ms`: of the load itself, at p99. `requests`, `accepted`: what each backend got, connections
    since the proxy started. `connections`: established at the end. `undisturbed_ms`: what an answer
    takes when nothing is wrong. `healed_ms`: when the fault ended. `cpu`: seconds of the proxy.
    `users`: call N is of user N modulo this. `void`: why it does not count.
    """

    scenario: str
    peer: str
    number: int
    rows: list[Row] = field(default_factory=list)
    late_ms: float = 0.0
    requests: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    connections: list[int] = field(default_factory=list)
    pings: int = 0
    cpu: float = 0.0
    undisturbed_ms: float = 0.0
    began_ms: float | None = None
    healed_ms: float | None = None
    kind: str = GET
    sticky: bool = False
    users: int = 1
    void: str = ""

    @property
    def disturbed(self) -> bool:
        return self.late_ms > LATE

    @property
    def path(self) -> str:
        return f"{self.scenario}.{self.peer}.{self.number}.json"


def save(sample: Sample, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / sample.path).write_text(json.dumps(asdict(sample), separators=(",", ":")))


def saved(folder: Path) -> Iterator[Sample]:
    for path in sorted(folder.glob("*.json")):
        told = json.loads(path.read_text())
        told["rows"] = [(row[0], row[1], row[2], row[3]) for row in told["rows"]]
        yield Sample(**told)
