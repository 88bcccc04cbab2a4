"""One run: a lab is built, a proxy started, calls are made while things go wrong, all is taken down."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from bench.accounting import cpu_seconds
from chaos.job import Job
from chaos.network import Lab, LabError
from chaos.peers import Peer
from chaos.samples import Sample
from chaos.scenarios import Scenario

WARM = ("--seconds", "1.5", "--drain", "2", "--seed", "99")
WARM_RATE = 150.0
LEAD = 1.0  # seconds from the start of the load to its first call: Python's start on a busy machine
OTHERWISE = 45.0  # seconds more than planned after which a load is given up

Say = Callable[[str], None]


def measure(
    scenario: Scenario, peer: Peer, number: int, lab: Lab, *, log: Path, say: Say
) -> Sample:
    """One run in a lab that stands. Raises LabError if something in it does not work."""
    sample = Sample(scenario.name, peer.name, number)
    setup = scenario.setup
    sample.undisturbed_ms = setup.undisturbed * 1e3
    sample.kind, sample.sticky, sample.users = setup.kind, setup.sticky, setup.users
    timed = [step.at for step in scenario.steps if step.at > 0]
    sample.began_ms = timed[0] * 1e3 if timed else None
    sample.healed_ms = scenario.healed * 1e3 if scenario.healed else None
    job = Job(lab.folder, lab.addresses, setup)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as said:
        proxy = lab.start(peer.prepare(job), said)
        try:
            lab.wait_listening(proxy, log)
            _warm(lab, scenario)
            _load(lab, scenario, sample, proxy, say)
        finally:
            lab.stop(proxy)
    return sample


def _warm(lab: Lab, scenario: Scenario) -> None:
    setup = asdict(scenario.setup)
    setup["rate"] = min(WARM_RATE, setup["rate"])
    argv = [sys.executable, "-m", "chaos.load", json.dumps(setup), *WARM]
    subprocess.run(lab.argv(0, argv), check=False, capture_output=True, timeout=OTHERWISE)


def _load(
    lab: Lab, scenario: Scenario, sample: Sample, proxy: subprocess.Popen[bytes], say: Say
) -> None:
    pace = scenario.pace
    before, cpu = lab.counts(), cpu_seconds(proxy.pid)
    zero = time.monotonic() + LEAD
    argv = [sys.executable, "-m", "chaos.load", json.dumps(asdict(scenario.setup))]
    argv += ["--seconds", str(pace.seconds), "--drain", str(pace.drain)]
    argv += ["--seed", str(sample.number + 1), "--start", repr(zero)]
    out = lab.folder / "rows.json"
    with out.open("wb") as rows, (lab.folder / "load.err").open("wb") as errors:
        load = subprocess.Popen(lab.argv(0, argv), stdout=rows, stderr=errors)
        try:
            _happen(lab, scenario, zero, say)
            load.wait(zero + pace.seconds + pace.drain + OTHERWISE - time.monotonic())
        finally:
            load.kill()
            load.wait()
    if load.returncode:
        raise LabError((lab.folder / "load.err").read_text().strip()[-300:] or "the load died")
    said = json.loads(out.read_text())
    sample.rows, sample.late_ms = said["rows"], said["late_ms"]
    sample.cpu = cpu_seconds(proxy.pid) - cpu
    sample.connections = [len(lab.connections(at + 1)) for at in range(len(before))]
    after = lab.counts()
    pairs = list(zip(before, after, strict=True))
    sample.requests = [new["requests"] - old["requests"] for old, new in pairs]
    sample.accepted = [new["accepted"] for new in after]
    sample.pings = sum(new["pings"] - old["pings"] for old, new in pairs)


def _happen(lab: Lab, scenario: Scenario, zero: float, say: Say) -> None:
    for step in scenario.steps:
        time.sleep(max(0.0, zero + step.at - time.monotonic()))
        lab.do(step)
        say(step.what)
