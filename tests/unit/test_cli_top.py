"""The live page in a terminal: what must be readable in 80 columns."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from stickyproxy.cli.top import screen
from stickyproxy.control.live.sample import EndpointSample, Owned, Sample, account, take
from support.adminview import View

LONGEST = "255.255.255.255:65535"


def look(figure: int) -> Sample:
    sample = take(View(), {"greeters": Owned((0.2, 0.2, 0.6), "")}, figure, 1e9)
    [cluster] = sample.clusters
    return replace(sample, clusters=(replace(cluster, endpoints=(slow(figure),)),))


def slow(figure: int) -> EndpointSample:
    counts = (0,) * 20 + (figure,)
    seen = {"streams": figure, "connections": figure, "suspect": 0, "dead": 0, "dialled": figure, "calls": figure}
    return EndpointSample(
        **seen, key=LONGEST, pod="", flags="", reason="unreachable", errors=figure,
        counts=counts, links=(), place=0, share=1.0,
    )  # fmt: skip


@pytest.mark.parametrize("figure", [1, 999, 99_999])
def test_an_address_stays_in_one_piece_however_wide_the_figures(figure: int) -> None:
    shown = StringIO()
    Console(width=80, file=shown).print(screen(account(look(0), look(figure)) | {"changes": []}))
    assert LONGEST in shown.getvalue()
