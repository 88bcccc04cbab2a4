"""Whether a request that failed is sent again because its route says so.

What was provably never processed needs nobody's word and is no matter of this room. Here is what
`retry_policy` asks for, in Envoy's terms (x-envoy-retry-on, x-envoy-retry-grpc-on), what a gRPC server
says about it (grpc/proposal A6), and the budget that keeps retries from becoming the load that they
answer to.

Where Envoy says nothing or something else:

* `grpc-retry-pushback-ms` is honoured whatever the condition was; a server that does not want to be
  asked again is not.
* `retriable-status-codes` and `retriable-headers` name lists that a Mapping cannot hold, and
  `http3-post-connect-failure` a protocol that is not spoken: they match nothing.
* A request that could not be connected counts as one try, over however many endpoints.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from stickyproxy.errors import ErrorKind, GrpcStatus, H2Code, ProxyError, Side
from stickyproxy.model import Headers
from stickyproxy.policy.grpc import status_of
from stickyproxy.rules import CircuitBreaker, RetryPolicy

DEFAULT_RETRIES = 1  # Envoy's
BASE_INTERVAL = 0.025
MAX_INTERVAL = 10 * BASE_INTERVAL
"""Seconds: Envoy's backoff. The n-th retry waits at random from 0 up to the base doubled n-1 times."""
BUDGET_PERCENT = 20
BUDGET_LEAST = 3
"""Envoy's retry budget: so many of a cluster's requests under way may be second tries, or three, which
a cluster with little to do may always have."""

SAVED_SHARE = 0.05
SAVED_MOST = 100
"""What hedges may be made beyond that: one for twenty attempts that were begun, of which a hundred can be
saved up. When a connection goes bad, all that waits on it is in doubt at the same moment, as many as a
connection commonly has streams (a hundred, RFC 9113 §6.5.2), and by far more than a fifth of what is
under way where there are few endpoints: the last of them would wait for all others' answers. What it can
cost in the long run is 5 % more requests, and in the worst second a hundred."""

DO_NOT = -1.0
"""A pushback that forbids."""

PUSHBACK = b"grpc-retry-pushback-ms"
PREVIOUS = b"grpc-previous-rpc-attempts"
_MAX_DIGITS = 10

_CLIENT_ERROR = 400
_CONFLICT = 409
_SERVER_ERROR = 500
_GATEWAY = frozenset({502, 503, 504})

_OF_GRPC = {
    GrpcStatus.CANCELLED: "cancelled",
    GrpcStatus.DEADLINE_EXCEEDED: "deadline-exceeded",
    GrpcStatus.INTERNAL: "internal",
    GrpcStatus.RESOURCE_EXHAUSTED: "resource-exhausted",
    GrpcStatus.UNAVAILABLE: "unavailable",
}

_ANY_RESET = ("reset", "gateway-error", "5xx")
"""An attempt without an answer ends as 503 or 504, so these two have a say (Envoy counts it so too)."""
_CONNECT = ("connect-failure", "reset-before-request", *_ANY_RESET)
_REFUSED = ("refused-stream", *_ANY_RESET)
_BROKEN = frozenset(
    {
        ErrorKind.TIMEOUT,
        ErrorKind.UPSTREAM_RESET,
        ErrorKind.UPSTREAM_CLOSED,
        ErrorKind.UPSTREAM_PROTOCOL,
    }
)
_PROCESSED = _BROKEN - {ErrorKind.TIMEOUT}


class RetryRules:
    """A Target's word on second tries, compiled. `most` retries; `per_try_timeout` in seconds.

    `idempotent`: a request may be processed twice, so one whose connection died is sent again, and
    one whose connection is in doubt may be sent on another one meanwhile.
    """

    __slots__ = ("_on", "idempotent", "most", "per_try_timeout")

    def __init__(self, policy: RetryPolicy | None, *, idempotent: bool) -> None:
        self.idempotent = idempotent
        self._on = frozenset(policy.retry_on) if policy is not None else frozenset()
        self.most = 0
        self.per_try_timeout: float | None = None
        if policy is not None:
            self.most = DEFAULT_RETRIES if policy.num_retries is None else policy.num_retries
            self.per_try_timeout = policy.per_try_timeout

    def of_answer(self, headers: Headers) -> str:
        """The condition that this response head meets; "" for none."""
        status = int(headers[0][1])
        if status < _CLIENT_ERROR:
            return self._of_grpc(headers)
        names = {field[0] for field in headers}
        if b"x-envoy-overloaded" in names:
            return ""
        if b"x-envoy-ratelimited" in names:
            return self._first(("envoy-ratelimited",))
        return self._first(_of_status(status)) or self._of_grpc(headers)

    def _of_grpc(self, headers: Headers) -> str:
        status = status_of(headers)
        found = "" if status is None else _OF_GRPC.get(GrpcStatus(status), "")
        return found if found in self._on else ""

    def of_failure(self, error: ProxyError) -> str:
        """The condition that an attempt without an answer meets; "" for none."""
        if error.side is not Side.UPSTREAM:
            return ""
        conditions: tuple[str, ...] = ()
        if error.kind is ErrorKind.CONNECT_FAILED:
            conditions = _CONNECT
        elif error.kind in _BROKEN:
            refused = error.relay and error.code == H2Code.REFUSED_STREAM
            conditions = _REFUSED if refused else _ANY_RESET
        return self._first(conditions)

    def _first(self, conditions: Iterable[str]) -> str:
        return next((condition for condition in conditions if condition in self._on), "")

    def may_resend(self, error: ProxyError) -> bool:
        """Whether a request that may have been processed goes again for this, without a policy."""
        return self.idempotent and error.side is Side.UPSTREAM and error.kind in _PROCESSED


def _of_status(status: int) -> tuple[str, ...]:
    if status in _GATEWAY:
        return "5xx", "gateway-error"
    if status >= _SERVER_ERROR:
        return ("5xx",)
    return ("retriable-4xx",) if status == _CONFLICT else ()


def rules_of(policy: RetryPolicy | None, *, idempotent: bool) -> RetryRules | None:
    """None for a route that has nothing to say about it."""
    if policy is None and not idempotent:
        return None
    return RetryRules(policy, idempotent=idempotent)


def backoff(retry: int, draw: float) -> float:
    """Seconds before the `retry`-th retry (from 1); `draw` is a random number from 0 to below 1."""
    doubled: float = BASE_INTERVAL * 2 ** min(retry - 1, 10)
    return draw * min(doubled, MAX_INTERVAL)


def pushback(headers: Headers) -> float | None:
    """Seconds that a gRPC server wants to be left alone for; `DO_NOT`, or None if it does not say."""
    for name, value in headers:
        if name == PUSHBACK:
            return int(value) / 1000 if value.isdigit() and len(value) <= _MAX_DIGITS else DO_NOT
    return None


def with_previous(headers: Headers, attempts: int) -> Headers:
    """The head with `grpc-previous-rpc-attempts`: ours, and what the client says of its own."""
    others = [field for field in headers if field[0] != PREVIOUS]
    for name, value in headers:
        if name == PREVIOUS and value.isdigit() and len(value) <= _MAX_DIGITS:
            attempts += int(value)
    return [*others, (PREVIOUS, b"%d" % attempts)]


def max_retries(breakers: Iterable[CircuitBreaker]) -> int | None:
    """What the circuit breakers of a cluster say of retries; all requests are of default priority."""
    return next((one.max_retries for one in breakers if one.priority == "default"), None)


class Budget:
    """Second tries under way in one cluster. `most` is the circuit breaker `max_retries`, if one is

    set; else the share of what is under way. One of several `workers` has its part of it.
    """

    __slots__ = ("_begun", "_most", "_saved", "_waiting", "_workers", "taken")

    def __init__(self, most: int | None, workers: int = 1) -> None:
        self._most = most
        self._workers = workers
        self.taken = 0
        self._saved = 0.0
        self._begun = 0
        self._waiting: deque[Callable[[], bool]] = deque()

    def take(self, under_way: int) -> bool:
        """Whether one more may be made while so many requests run; `give_back` when it is over."""
        if self.taken >= self._limit(under_way):
            return False
        self.taken += 1
        return True

    def spend(self, begun: int) -> bool:
        """Whether a hedge may be made beyond that, of what was saved up to the attempt number `begun`.

        Nothing is to be given back. Not where an operator said how many retries there may be.
        """
        if self._most is not None:
            return False
        more = max(0, begun - self._begun) * SAVED_SHARE
        self._begun = begun
        self._saved = min(self._saved + more, SAVED_MOST / self._workers)
        if self._saved < 1:
            return False
        self._saved -= 1
        return True

    def give_back(self) -> None:
        self.taken -= 1
        while self._waiting and not self._waiting.popleft()():
            pass

    def wait(self, told: Callable[[], bool]) -> None:
        """Have `told` called when a place is free; it returns False if nobody wants it any more.

        Where no place ever is, it is forgotten at once.
        """
        if self.taken:
            self._waiting.append(told)

    def _limit(self, under_way: int) -> float:
        if self._most is not None:
            return -(-self._most // self._workers)
        least = -(-BUDGET_LEAST // self._workers)
        return max(least, under_way * BUDGET_PERCENT / 100)
