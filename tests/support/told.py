"""What the book of health hears of the attempts of a house."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from stickyproxy.health.outcome import Outcome
from stickyproxy.model import Endpoint
from support.house import House

Told = list[tuple[str, Outcome]]


@contextmanager
def told(house: House) -> Iterator[Told]:
    """What the book of health hears; it goes on hearing it."""
    heard: Told = []
    health = house.context.health
    listen = health.outcome

    def outcome(cluster: str, endpoint: Endpoint, outcome: Outcome, now: float) -> None:
        assert now == trio.current_time()
        heard.append((endpoint.key, outcome))
        listen(cluster, endpoint, outcome, now)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(health, "outcome", outcome)
        yield heard
