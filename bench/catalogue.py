"""All cases, in the order in which they run. Goals are ratios to Envoy with one thread."""

from __future__ import annotations

import secrets
from contextlib import AbstractContextManager

from bench.at_rest import IDLE
from bench.cases import CPU, RATE, Case, Figure, Loads, per_call, per_megabyte, per_message
from bench.picking import PICK
from bench.scene import Go, Scene, Subject
from bench.tables import TABLES
from bench.turnover import ENDPOINTS
from bench.workers import WORKERS

STREAMS = 100
MEGABYTE = 1_000_000


def constant(connections: int, streams: int, *, h1: bool = False, tls: bool = False) -> Loads:
    """h2load: all calls alike."""

    def load(scene: Scene, subject: Subject, calls: int) -> AbstractContextManager[Go]:
        return scene.h2load(
            subject,
            calls=calls,
            connections=connections,
            streams=streams,
            body=None if h1 else scene.folder / "message",
            grpc=not h1,
            h1=h1,
            tls=tls,
            latencies=connections == 1,
        )

    return load


def replayed(*options: str) -> Loads:
    """Our own client: no two calls alike, in this block or any other."""

    def load(scene: Scene, subject: Subject, calls: int) -> AbstractContextManager[Go]:
        return scene.replay(
            "replay",
            subject.port,
            f"--calls={calls}",
            f"--seed={secrets.token_hex(4)}",
            *options,
            *([f"--rate={scene.rate:.1f}", "--latencies"] if scene.rate else []),
        )

    return load


def chatting(scene: Scene, subject: Subject, messages: int) -> AbstractContextManager[Go]:
    return scene.replay("streams", subject.port, f"--streams={STREAMS}", f"--messages={messages}")


def moved(*, size: int, connections: int, up: bool) -> Loads:
    """Whole bodies, one way."""

    def load(scene: Scene, subject: Subject, calls: int) -> AbstractContextManager[Go]:
        return scene.h2load(
            subject,
            calls=calls,
            connections=connections,
            streams=1,
            body=scene.filler(size) if up else None,
            grpc=False,
        )

    return load


def call_figures(goal: float | None) -> tuple[Figure, ...]:
    return (
        Figure(CPU, "CPU us/call", goal=goal, compared=True),
        Figure(RATE, "calls/s", 0),
        Figure("per_core", "calls/CPU s", 0),
    )


def latency_figures(*, cpu_goal: float | None, added_goal: float | None) -> tuple[Figure, ...]:
    return (
        Figure("added_p50", "added p50 us", 0, goal=added_goal, compared=True),
        Figure("added_p99", "added p99 us", 0),
        Figure("added_p999", "added p99.9 us", 0),
        Figure("p50", "p50 us", 0),
        Figure(CPU, "CPU us/call", goal=cpu_goal, compared=True),
    )


def bulk(size: int, *, up: bool) -> Case:
    megabytes = size // MEGABYTE
    small = megabytes == 1
    return Case(
        f"bulk-{megabytes}mb-{'up' if up else 'down'}",
        f"bodies of {megabytes} MB {'up' if up else 'down'}stream, "
        f"{'4 connections' if small else 'one after the other'}",
        (
            Figure("cpu_ms", "CPU ms/MB", 2, goal=1.5, compared=True),
            Figure(RATE, "MB/s", 0),
        ),
        moved(size=size, connections=4 if small else 1, up=up),
        per_megabyte(size),
        mode="bulk",
        body=12 if up else size,
        timeout=0.0,
        least=40 if small else 1,
        most=2000 if small else 10,
    )


CASES = (
    Case(
        "unary",
        "8 connections x 32 streams, 12-byte messages, constant headers",
        call_figures(0.8),
        constant(8, 32),
        per_call,
        logs=(True, False),
    ),
    Case(
        "real",
        "as unary, 1,000 users; traceparent and x-request-id never repeat",
        call_figures(1.0),
        replayed(),
        per_call,
        logs=(True, False),
        most=40_000,
    ),
    Case(
        "latency-1x1",
        "one call at a time on one connection; added = minus the backends alone, same round",
        latency_figures(cpu_goal=1.1, added_goal=1.2),
        constant(1, 1),
        per_call,
        direct=True,
        most=20_000,
    ),
    Case(
        "latency-open",
        "open loop at 30 % of what the slowest proxy can do, latency from when a call was due",
        latency_figures(cpu_goal=None, added_goal=None),
        replayed(),
        per_call,
        direct=True,
        open_loop=True,
        most=30_000,
    ),
    Case(
        "headers",
        "30 fields and 4 KiB a head, half of the fields never repeating",
        call_figures(2.0),
        replayed("--heads=heavy"),
        per_call,
        least=1000,
        most=6000,
    ),
    Case(
        "streaming",
        "100 bidi streams on 4 connections, messages of 1 KiB back and forth",
        (
            Figure(CPU, "CPU us/message", goal=1.0, compared=True),
            Figure(RATE, "messages/s", 0),
            Figure("per_core", "messages/CPU s", 0),
        ),
        chatting,
        per_message,
        mode="echo",
        timeout=0.0,
        least=20,
        most=500,
    ),
    bulk(MEGABYTE, up=False),
    bulk(MEGABYTE, up=True),
    bulk(100 * MEGABYTE, up=False),
    bulk(100 * MEGABYTE, up=True),
    Case(
        "h1",
        "HTTP/1.1 keep-alive in and out, 32 connections",
        call_figures(None),
        constant(32, 1, h1=True),
        per_call,
        h1=True,
    ),
    Case(
        "tls",
        "unary over TLS downstream",
        call_figures(1.2),
        constant(8, 32, tls=True),
        per_call,
        tls=True,
    ),
    IDLE,
    ENDPOINTS,
    WORKERS,
    PICK,
    TABLES,
)
