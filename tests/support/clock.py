"""Tests whose clock jumps: hours pass when nobody has anything to do.

    @on_jumping_clock
    async def test_…() -> None:

pytest-trio's clock would have to be an argument of every test that never looks at it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import ParamSpec

import trio
from trio.testing import MockClock

P = ParamSpec("P")


def on_jumping_clock(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run `test` under trio; time goes on only when all tasks wait, and then at once.

    An error that left through nurseries alone is told as itself.
    """

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            trio.run(partial(test, *args, **kwargs), clock=MockClock(autojump_threshold=0))
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            raise error from None

    return run
