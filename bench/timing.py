"""CPU time of code that runs in this very process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

BLOCKS = 5


def timed(do: Callable[[], T]) -> tuple[T, float]:
    """Its result, and the seconds of CPU that this thread spent on it."""
    began = time.thread_time()
    result = do()
    return result, time.thread_time() - began


def per_item(do: Callable[[], object], items: int) -> float:
    """Microseconds of CPU an item, where one call does so many: the least of some blocks.

    Whatever else the machine does can only add to a block, so the least is nearest to the code's
    own cost.
    """
    return min(timed(do)[1] for _ in range(BLOCKS)) / items * 1e6
