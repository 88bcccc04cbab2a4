"""The bench without sockets: its books balance, which it says by not failing."""

from __future__ import annotations

from argparse import Namespace
from functools import partial

import pytest
import trio

from bench.inside import CONNECTIONS, measure
from stickyproxy.control.garbage import restore


@pytest.mark.parametrize("case", ["real", "unary"])
def test_each_call_is_answered_counted_and_logged(case: str) -> None:
    asked = Namespace(case=case, calls=20 * CONNECTIONS, rounds=2)
    try:
        costs = trio.run(partial(measure, asked, None))
    finally:
        restore()
    assert len(costs) == asked.rounds
