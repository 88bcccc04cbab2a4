"""The demo's client: many users over one channel, counting who answered. Needs grpcio."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from stickyproxy.demo.servers import SERVICE, EchoReply, EchoRequest

HEADER = "x-user-id"
USERS = ("alice", "bob", "carol", "dave", "erin", "frank")
CALLS_PER_USER = 6
CALLS_WITHOUT = 30  # all on one of three servers by chance: 3 in 3^30
_DEADLINE = 20.0  # seconds; generous, because a busy machine is no broken proxy


@dataclass(frozen=True, slots=True)
class Answers:
    """How often each backend answered: per user, and without the header."""

    by_user: dict[str, Counter[str]]
    without: Counter[str]

    def complaint(self) -> str | None:
        """What is not as it should be, in one line."""
        for user, backends in self.by_user.items():
            if len(backends) != 1:
                return f"stickiness did not hold: {user} was answered by {', '.join(backends)}"
        if len(self.without) == 1:
            return f"no spread: without {HEADER}, all calls went to {next(iter(self.without))}"
        return None


def call_everything(target: str) -> Answers:
    """Make all calls over one client connection, users interleaved.

    Raises ConnectionError, in words, when a call fails.
    """
    # A proxy named by the environment is for the world outside, not for loopback.
    options = [("grpc.enable_http_proxy", 0)]
    answers = Answers({user: Counter() for user in USERS}, Counter())
    with grpc.insecure_channel(target, options=options) as channel:
        say = channel.unary_unary(
            f"/{SERVICE}/Say",
            request_serializer=EchoRequest.SerializeToString,
            response_deserializer=EchoReply.FromString,
        )
        for _ in range(CALLS_PER_USER):
            for user, backend in zip(USERS, _at_once(say, USERS), strict=True):
                answers.by_user[user][backend] += 1
        for _ in range(CALLS_WITHOUT // len(USERS)):
            answers.without.update(_at_once(say, [None] * len(USERS)))
    return answers


def _at_once(say: Any, users: Sequence[str | None]) -> list[str]:
    """One call for each, under way together on the one connection; who answered them, in order."""
    calls = [
        say.future(
            EchoRequest(text=f"hello from {user or 'somebody'}"),
            metadata=((HEADER, user),) if user else (),
            timeout=_DEADLINE,
            wait_for_ready=True,
        )
        for user in users
    ]
    return [_backend(call) for call in calls]


def _backend(call: Any) -> str:
    try:
        return str(call.result().backend)
    except grpc.RpcError:
        raise ConnectionError(f"{call.code().name}: {call.details()}") from None
