"""Alternating rounds of one case: each proxy a block in turn, in an order that moves on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench.answers import message
from bench.cases import Case, Pace, Plan, Sample, added
from bench.children import Children
from bench.figures import block_size
from bench.job import Job
from bench.scene import DIRECT, Block, Scene, Subject

SHARE = 0.3  # of the slowest proxy's capacity, in an open loop
OPEN_SECONDS = 4.0  # a block of an open loop, times the pace's budget


def measure(case: Case, plan: Plan, folder: Path) -> tuple[list[Sample], list[str]]:
    """All samples of a case, and what a reader must know besides: who is absent and why."""
    if case.pure:
        return case.pure(plan), []
    folder.mkdir()
    (folder / "message").write_bytes(message(12))
    able = [peer for peer in plan.peers if not case.only or peer.ours or peer.name in case.only]
    plan = replace(plan, peers=able)
    tls = plan.tls if case.tls else None
    with Children() as children:
        job = Job(folder, 0, 0, (), h1=case.h1, timeout=case.timeout, tls=tls)
        scene = Scene(children, folder, job)
        scene.job = replace(job, backends=scene.backends(3, case.mode, case.body))
        alone = case.alone or _side_by_side
        samples = alone(scene, case, plan)
        return samples, scene.absent + scene.notes


def _side_by_side(scene: Scene, case: Case, plan: Plan) -> list[Sample]:
    if case.direct:
        scene.subjects.append(Subject(DIRECT, log=True, port=scene.job.backends[0]))
    plan.say("starting")
    logs = [log for log in case.logs if log in plan.logs] or list(plan.logs)
    scene.bring_up(plan.peers, logs)
    samples = _warm(scene, case, plan)
    for number in range(plan.pace.rounds):
        samples += _round(scene, case, plan, number)
    return samples


def _warm(scene: Scene, case: Case, plan: Plan) -> list[Sample]:
    """One short block each: fills what fills once, and tells how large a block should be."""
    failed, rates = [], []
    for subject in scene.subjects.copy():
        plan.say(f"warming up {subject.title}")
        block = _block(scene, case, subject, min(plan.pace.warm, case.least))
        if block.void:
            scene.subjects.remove(subject)
            failed.append(Sample(case.name, subject.name, subject.log, -1, void=block.void))
            continue
        if subject.proxy:
            rates.append(block.load.calls / block.load.seconds)
        subject.size = _size(case, plan.pace, block)
    if case.open_loop and rates:
        _open(scene, case, plan.pace, SHARE * min(rates))
    return failed


def _open(scene: Scene, case: Case, pace: Pace, rate: float) -> None:
    scene.rate = rate
    scene.notes.append(f"open loop at {rate:,.0f} calls/s")
    for subject in scene.subjects:
        subject.size = min(case.most, round(rate * OPEN_SECONDS * pace.budget))


def _size(case: Case, pace: Pace, block: Block) -> int:
    units = block.load.messages / block.load.calls if block.load.messages else block.load.calls
    return block_size(
        cpu=block.cpu / units,
        wall=block.load.seconds / units,
        budget=pace.budget,
        patience=pace.patience,
        least=max(1, round(case.least * min(1.0, pace.budget))),
        most=case.most,
    )


def _round(scene: Scene, case: Case, plan: Plan, number: int) -> list[Sample]:
    samples = []
    shift = number % max(1, len(scene.subjects))
    for subject in scene.subjects[shift:] + scene.subjects[:shift]:
        plan.say(f"round {number + 1}, {subject.title}")
        block = _block(scene, case, subject, subject.size)
        sample = Sample(case.name, subject.name, subject.log, number, void=block.void)
        if not block.void and case.judge:
            sample.figures = case.judge(block)
        samples.append(sample)
    direct = next((s.figures for s in samples if s.name == DIRECT), {})
    for sample in samples:
        if sample.name != DIRECT:
            sample.figures |= added(sample.figures, direct)
    return samples


def _block(scene: Scene, case: Case, subject: Subject, size: int) -> Block:
    if not case.load:
        raise ValueError(f"{case.name} has no load")
    return scene.block(subject, case.load(scene, subject, size))
