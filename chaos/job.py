"""What a run asks of a proxy and its backends, in words that each turns into its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

GET, POST, UNARY, CHAT = "get", "post", "unary", "chat"
"""Kinds of calls: a GET, a POST with a body, one gRPC message each way, gRPC streams that stay open."""

USER = "x-user-id"
"""The header that is hashed where sessions are to be sticky."""

NAME = "backends.lab"
"""What backends are called where they have a name."""

PORT = 9000  # where the proxy listens, in a network namespace of its own
BACKEND_PORT = 8080
TIMEOUT = 15  # seconds a route gives a call: Envoy's default, said to those with another one


@dataclass(frozen=True, slots=True)
class Setup:
    """What calls and backends are like.

    `rtt`: seconds of round trip beside the 0.05 ms of a pair of veth. `rate`: calls a second; of
    CHAT, messages over all streams. `body` and `answer`: octets each way. `service`: seconds until
    a backend answers, or the median of a log-normal distribution if `tail` (its p99 divided by its
    median) is above 1. `http1`: HTTP/1.1 to the backends. `named`: they are one name,
    whose addresses a name server of the lab knows. `sticky`: by USER, of whom there are `users`; else
    round robin.
    `seconds` is how long calls are made where that is another time than the pace's.
    """

    backends: int = 3
    rtt: float = 0.0
    kind: str = GET
    rate: float = 300.0
    body: int = 0
    answer: int = 2
    service: float = 0.010
    tail: float = 1.0
    tls: bool = False
    http1: bool = False
    named: bool = False
    sticky: bool = False
    users: int = 150
    streams: int = 60
    seconds: float = 0.0

    @property
    def grpc(self) -> bool:
        return self.kind in (UNARY, CHAT)

    @property
    def undisturbed(self) -> float:
        """Seconds that an answer takes when nothing is wrong, without what the proxy adds."""
        return (0.0 if self.kind == CHAT else self.service) + self.rtt


@dataclass(frozen=True, slots=True)
class Job:
    """Listen for h2c on PORT of loopback; `folder` is the proxy's own."""

    folder: Path
    backends: tuple[str, ...]
    setup: Setup

    @property
    def places(self) -> tuple[str, ...]:
        """Where a proxy is told that the backends are."""
        return (NAME,) if self.setup.named else self.backends

    @property
    def timeout(self) -> int:
        """Seconds a call may take, 0 for no limit: streams stay open for as long as the run is."""
        return 0 if self.setup.kind == CHAT else TIMEOUT
