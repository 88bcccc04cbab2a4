"""What is said when the state of an endpoint changes."""

from __future__ import annotations

import enum
from typing import NamedTuple


class What(enum.Enum):
    """`DETECTED`: an outlier, but a setting says not to act. `SPARED`: too few would be left.

    `REACHABLE`: a check got through where a connect had failed. `PANIC` and `CALM` are about a whole cluster.
    """

    EJECTED = "ejected"
    DETECTED = "detected"
    SPARED = "spared"
    RETURNED = "returned"
    CHECK_FAILED = "check_failed"
    CHECK_PASSED = "check_passed"
    REACHABLE = "reachable"
    PANIC = "panic"
    CALM = "calm"


class Seen(NamedTuple):
    """What speaks against an endpoint, for people: flags as in Envoy's `/clusters`, and in words."""

    flags: str
    reason: str


HEALTHY = Seen("healthy", "")


class Change(NamedTuple):
    """`cause` in a word or in words. `seconds` is how long an ejection is to last."""

    cluster: str
    endpoint: str
    what: What
    cause: str
    seconds: float
