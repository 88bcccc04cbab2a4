"""The case `workers`: how evenly several of them carry few connections, and what they cost.

Eight HTTP/2 connections that live as long as a block and make equally many calls each; round robin over
three backends; ours with processes, Envoy with as many threads. What each worker and each backend had is
what the proxies themselves counted: of Envoy's threads the connections, which say it as well.
"""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.cases import CPU, RATE, Case, Figure, Plan, Sample, per_call
from bench.figures import block_size
from bench.job import ROUND_ROBIN
from bench.peers import ENVOY
from bench.scene import Block, Scene, Subject

COUNTS = (1, 2, 4)
CONNECTIONS, STREAMS = 8, 32  # as in `unary`

Counts = Mapping[str, float]

_OUR_WORKER = re.compile(
    r'^stickyproxy_worker_requests_total\{worker="(\d+)"\} (\S+)$', re.MULTILINE
)
_OUR_BACKEND = re.compile(
    r'^stickyproxy_endpoint_rq_total\{.*endpoint="([^"]+)".*\} (\S+)$', re.MULTILINE
)
_ENVOY_WORKER = re.compile(
    r"^listener\.127.*\.worker_(\d+)\.downstream_cx_total: (\d+)$", re.MULTILINE
)
_ENVOY_BACKEND = re.compile(r"^bench::(127[^:]+:\d+)::rq_total::(\d+)$", re.MULTILINE)


def rounds(scene: Scene, case: Case, plan: Plan) -> list[Sample]:
    running = []
    for count in COUNTS:
        for peer in plan.peers:
            plan.say(f"starting {peer.name} x{count}")
            job = replace(scene.job, workers=count, policy=ROUND_ROBIN)
            if subject := scene.bring_up_one(peer, job, log=True):
                if count > 1:
                    subject.name = f"{peer.name} x{count}"
                running.append(subject)
    for subject in running:
        plan.say(f"warming up {subject.name}")
        block = _block(scene, subject, plan.pace.warm)
        units = max(1, block.load.calls)
        subject.size = block_size(
            cpu=block.cpu / units,
            wall=block.load.seconds / units,
            budget=plan.pace.budget,
            patience=plan.pace.patience,
            least=case.least,
            most=case.most,
        )
        subject.size -= subject.size % CONNECTIONS
    samples = []
    for number in range(plan.pace.rounds):
        shift = number % max(1, len(running))
        samples += _round(scene, case, plan, number, running[shift:] + running[:shift])
    return samples


def _round(
    scene: Scene, case: Case, plan: Plan, number: int, subjects: Sequence[Subject]
) -> list[Sample]:
    samples = []
    for subject in subjects:
        plan.say(f"round {number + 1}, {subject.name}")
        workers, backends = _workers(subject), _backends(subject)
        block = _block(scene, subject, subject.size)
        sample = Sample(case.name, subject.name, subject.log, number, void=block.void)
        if not block.void:
            sample.figures = per_call(block)
            sample.figures["backends"] = spread_of(since(backends, _backends(subject)))
            if subject.proxy and subject.proxy.job.workers > 1:
                sample.figures["workers"] = spread_of(since(workers, _workers(subject)))
        samples.append(sample)
    _compare_with_one(samples)
    return samples


def _compare_with_one(samples: Sequence[Sample]) -> None:
    """What several cost beside one of the same proxy, in this round."""
    alone = {one.name: one.figures.get(CPU) for one in samples if not one.void}
    for sample in samples:
        name, several, _ = sample.name.rpartition(" x")
        if several and not sample.void and (one := alone.get(name)):
            sample.figures["times_one"] = sample.figures[CPU] / one


def _block(scene: Scene, subject: Subject, calls: int) -> Block:
    load = scene.h2load(
        subject,
        calls=calls,
        connections=CONNECTIONS,
        streams=STREAMS,
        body=scene.folder / "message",
    )
    return scene.block(subject, load)


def spread_of(counts: Counts) -> float:
    """The most less the least, in per cent of their mean."""
    mean = sum(counts.values()) / max(1, len(counts))
    return (max(counts.values()) - min(counts.values())) / mean * 100 if mean else 0.0


def since(before: Counts, now: Counts) -> Counts:
    return {name: value - before.get(name, 0.0) for name, value in now.items()}


def _workers(subject: Subject) -> Counts:
    if subject.proxy and subject.proxy.peer.ours:
        return _found(_OUR_WORKER, _page(subject, "/metrics"))
    return _found(_ENVOY_WORKER, _page(subject, "/stats?filter=worker_"))


def _backends(subject: Subject) -> Counts:
    if subject.proxy and subject.proxy.peer.ours:
        return _found(_OUR_BACKEND, _page(subject, "/metrics"))
    return _found(_ENVOY_BACKEND, _page(subject, "/clusters"))


def _found(pattern: re.Pattern[str], text: str) -> Counts:
    return {name: float(value) for name, value in pattern.findall(text)}


def _page(subject: Subject, path: str) -> str:
    if subject.proxy is None:
        return ""
    url = f"http://127.0.0.1:{subject.proxy.job.admin}{path}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


WORKERS = Case(
    "workers",
    f"{CONNECTIONS} connections x {STREAMS} streams, round robin; 1, 2 and 4 processes or threads",
    (
        Figure(CPU, "CPU us/call"),
        Figure("times_one", "x one worker", 2, limit=1.1),
        Figure("workers", "spread of workers %", 1, limit=10.0),
        Figure("backends", "spread of backends %", 2, limit=1.0),
        Figure(RATE, "calls/s", 0),
    ),
    alone=rounds,
    only=(ENVOY,),
)
