"""What speaks against one endpoint."""

from __future__ import annotations

from stickyproxy.health.breaker import Breaker
from stickyproxy.health.changes import Seen
from stickyproxy.health.outlier import Cause


class Standing:
    """What speaks against one endpoint. `check` is why its active check fails, "" if none does."""

    __slots__ = ("breaker", "check", "ejected")

    def __init__(self) -> None:
        self.breaker: Breaker | None = None
        self.ejected: Cause | None = None
        self.check = ""

    @property
    def out(self) -> bool:
        return self.ejected is not None or bool(self.check)

    @property
    def good(self) -> bool:
        return self.breaker is None and not self.out

    def seen(self) -> Seen:
        """`/connect_failed` is a flag of our own; it comes last."""
        flags, words = "", []
        if self.check:
            flags += "/failed_active_hc"
            words.append(f"health check: {self.check}")
        if self.ejected is not None:
            flags += "/failed_outlier_check"
            words.append(f"ejected: {self.ejected.value}")
        if self.breaker is not None:
            flags += "/connect_failed"
            words.append("cannot be connected to")
        return Seen(flags, "; ".join(words))
