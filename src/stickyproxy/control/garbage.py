"""When Python looks for reference cycles.

A call leaves none behind, so looking costs and finds nothing: by Python's default a tenth of the
processor goes there while some hundred calls are under way. What does leave cycles (reloads, errors
with their tracebacks, TLS contexts) is rare.
"""

from __future__ import annotations

import gc

EVERY = 100_000
"""New containers that outlive others before it looks: some 20 MB at the most, 50 reloads of 100 Mappings."""


def pause() -> None:
    """Until `settle`: while the first configuration is read every look would see all of it."""
    gc.disable()


def settle() -> None:
    """What is known by now stays: 10,000 pods would cost each full look 100 ms."""
    gc.freeze()
    gc.set_threshold(EVERY, 10, 10)
    gc.enable()


def restore() -> None:
    """As Python has it; for who runs on when the proxy has ended."""
    gc.set_threshold(700, 10, 10)
    gc.enable()
