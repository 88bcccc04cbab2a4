"""Active checks: what is asked, what an answer means, and when to ask again.

Thresholds are Envoy's: answers that say "not well" count at once, what may be an accident (no
connection, no answer in time) only when it happens `unhealthy_threshold` times in a row; the first
answer of all decides by itself. An endpoint is held to be well until the first answer.

A gRPC server without the health service (UNIMPLEMENTED) has told nothing: where Envoy takes it out,
it stays as it was.
"""

from __future__ import annotations

from typing import NamedTuple

from stickyproxy.errors import GrpcStatus
from stickyproxy.model import Endpoint, Headers
from stickyproxy.rules import ConnectCheck, GrpcCheck, HealthCheck, HttpCheck

EDGE = 5
"""So many times as often is asked while an endpoint is out, or about to change: what is at stake is
how long sessions are elsewhere, and one question a second burdens nobody."""
JITTER = 0.1
"""Part of an interval by which it varies, so that the checks of many endpoints do not fall together."""
FIRST = 0.1
"""Part of an interval within which the first question comes."""
LEAST = 0.05
"""Seconds between two questions at the least: `5ms` for `5s` should not become a flood."""
AGENT = b"stickyproxy/health-check"
BODY_LIMIT = 4096
"""Octets of an answer's body that are looked at; a HealthCheckResponse has 2."""

_SERVING = b"\x08\x01"  # field 1, a varint: ServingStatus.SERVING (grpc.health.v1)
_STATUS_NAMES = {0: "UNKNOWN", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_PREFIX = 5  # flag and length before a gRPC message


class Verdict(NamedTuple):
    """Of one question. `well` None: it told nothing. `sure`: one such answer is enough."""

    well: bool | None
    reason: str = ""
    sure: bool = False


WELL = Verdict(True)
NO_INFORMATION = Verdict(None)


def accident(reason: str) -> Verdict:
    """There was no answer, or half of one."""
    return Verdict(False, reason)


class CheckState:
    """What one check has found of one endpoint so far. `reason` is why it fails, "" if it does not."""

    __slots__ = ("_check", "_known", "_run", "reason")

    def __init__(self, check: HealthCheck) -> None:
        self._check = check
        self._known = False
        self._run = 0  # verdicts in a row that contradict what is held so far
        self.reason = ""

    def note(self, verdict: Verdict) -> bool:
        """Whether the endpoint is held to be the contrary of what it was before."""
        if verdict.well is None:
            return False
        known, self._known = self._known, True
        if verdict.well is not bool(self.reason):
            self._run = 0
            self.reason = self.reason and verdict.reason
            return False
        self._run += 1
        check = self._check
        enough = check.healthy_threshold if verdict.well else check.unhealthy_threshold
        if known and not verdict.sure and self._run < enough:
            return False
        self._run = 0
        self.reason = "" if verdict.well else verdict.reason
        return True

    def delay(self, draw: float) -> float:
        """Seconds until the next question; `draw` is a random number from 0 to 1."""
        interval = self._check.interval
        if not self._known:
            return interval * FIRST * draw
        if self.reason or self._run:
            interval /= EDGE
        return max(LEAST, interval * (1 + JITTER * (2 * draw - 1)))


# --- questions ------------------------------------------------------------------------------------


def question(check: HealthCheck, endpoint: Endpoint, scheme: bytes) -> tuple[Headers, bytes]:
    """Head and body; a `ConnectCheck` has none."""
    asked = check.check
    if isinstance(asked, GrpcCheck):
        return _grpc_head(asked, endpoint, scheme, check.timeout), _grpc_body(asked.service)
    if isinstance(asked, HttpCheck):
        return _http_head(asked, endpoint, scheme), b""
    return [], b""


def _head(method: bytes, scheme: bytes, authority: str, path: str) -> Headers:
    return [
        (b":method", method),
        (b":scheme", scheme),
        (b":authority", authority.encode()),
        (b":path", path.encode()),
    ]


def _http_head(check: HttpCheck, endpoint: Endpoint, scheme: bytes) -> Headers:
    authority = check.hostname or endpoint.host or endpoint.key
    removed = {name.encode() for name in check.remove_headers}
    fields = [(b"user-agent", AGENT)]
    for name, value, append in check.add_request_headers:
        if not append:
            fields = [one for one in fields if one[0] != name.encode()]
        fields.append((name.encode(), value.encode()))
    kept = [one for one in fields if one[0] not in removed]
    return [*_head(b"GET", scheme, authority, check.path), *kept]


def _grpc_head(check: GrpcCheck, endpoint: Endpoint, scheme: bytes, timeout: float) -> Headers:
    authority = check.authority or endpoint.host or endpoint.key
    return [
        *_head(b"POST", scheme, authority, "/grpc.health.v1.Health/Check"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"grpc-timeout", b"%dm" % max(1, min(int(timeout * 1000), 99_999_999))),
        (b"user-agent", AGENT),
    ]


def _grpc_body(service: str) -> bytes:
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""  # field 1, a string
    return b"\0" + len(message).to_bytes(4, "big") + message


def _varint(number: int) -> bytes:
    octets = bytearray()
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*octets, number])


# --- answers --------------------------------------------------------------------------------------


def judge(check: ConnectCheck | HttpCheck | GrpcCheck, head: Headers, body: bytes) -> Verdict:
    """By head and trailers together, and the body."""
    fields = dict(head)
    if isinstance(check, GrpcCheck):
        return _judge_grpc(fields, body)
    if isinstance(check, HttpCheck):
        status = int(fields.get(b":status", b"0"))
        if any(low <= status <= high for low, high in check.expected):
            return WELL
        return Verdict(False, f"HTTP {status}", sure=True)
    return WELL


def _judge_grpc(fields: dict[bytes, bytes], body: bytes) -> Verdict:
    said = fields.get(b"grpc-status", b"")
    if not said.isdigit():
        return Verdict(False, f"HTTP {fields.get(b':status', b'').decode()}, no gRPC", sure=True)
    status = int(said)
    if status == GrpcStatus.UNIMPLEMENTED:
        return NO_INFORMATION
    if status in (GrpcStatus.DEADLINE_EXCEEDED, GrpcStatus.CANCELLED):
        return accident(GrpcStatus(status).name)
    if status:
        known = status <= max(GrpcStatus)
        return Verdict(False, GrpcStatus(status).name if known else f"status {status}", sure=True)
    message = body[_PREFIX:]
    if message[: len(_SERVING)] == _SERVING:
        return WELL
    number = message[1] if len(message) > 1 and message[0] == _SERVING[0] else 0
    return Verdict(False, _STATUS_NAMES.get(number, f"serving status {number}"), sure=True)
