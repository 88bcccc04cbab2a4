"""The live page in a terminal: what must be readable, in 80 columns and 24 lines too."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from stickyproxy.cli.screen import Size, screen
from stickyproxy.control.live.sample import EndpointSample, Owned, Sample, account, take
from support.adminview import View

LONGEST = "255.255.255.255:65535"
WHY = "ejected: 5 consecutive errors for 30 s"


def look(figure: int, endpoints: tuple[EndpointSample, ...], clusters: int = 1) -> Sample:
    sample = take(View(), {"greeters": Owned((0.2, 0.2, 0.6), "")}, figure, 1e9)
    [cluster] = sample.clusters
    many = [
        replace(
            cluster, name=f"cluster-{n}", endpoints=endpoints if n == clusters - 1 else (seen(),)
        )
        for n in range(clusters)
    ]
    return replace(sample, clusters=tuple(many))


def seen(figure: int = 0, key: str = LONGEST, reason: str = "", pod: str = "") -> EndpointSample:
    counts = (0,) * 20 + (figure,)
    counted = {"streams": figure, "connections": figure, "dialled": figure, "calls": figure}
    return EndpointSample(
        **counted, key=key, pod=pod, flags="", reason=reason, errors=figure, suspect=0, dead=0,
        counts=counts, links=(), place=0, share=1.0,
    )  # fmt: skip


def shown(
    figure: int = 0, *, columns: int = 80, lines: int | None = None, **more: Any
) -> list[str]:
    endpoints = more.get("endpoints") or (seen(figure, reason=more.get("reason", WHY)),)
    now = look(figure, endpoints, more.get("clusters", 1))
    before = replace(now, at=0.0)
    said = account(before, now) | {"changes": [[1e9, f"line {n}"] for n in range(20)]}
    text = StringIO()
    Console(width=columns, file=text).print(screen(said, Size(columns, lines)))
    return text.getvalue().splitlines()


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("figure", [1, 999, 99_999])
def test_an_address_and_what_is_wrong_with_it_stay_in_one_piece(figure: int, columns: int) -> None:
    screen = "\n".join(shown(figure, columns=columns))
    assert LONGEST in screen
    assert WHY in screen


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_nothing_is_wider_than_the_screen(columns: int) -> None:
    endpoints = (seen(pod="a-pod-with-a-very-long-name-7f9c6d8b5-x2x4z", reason=WHY * 9),)
    assert max(map(len, shown(columns=columns, endpoints=endpoints))) <= columns


def test_figures_stand_below_their_headings() -> None:
    [heads] = [line for line in shown() if "calls/s" in line and "sess" in line]
    [row] = [line for line in shown(reason="") if LONGEST in line]
    assert heads.index("sess") + len("sess") == row.index("100.0%") + len("100.0%")
    assert row.endswith("healthy")


@pytest.mark.parametrize("lines", [12, 24, 50])
@pytest.mark.parametrize("clusters", [1, 3, 10, 40])
def test_all_is_on_the_screen_and_trouble_before_all(lines: int, clusters: int) -> None:
    screen = shown(lines=lines, clusters=clusters)
    assert len(screen) <= lines
    assert any(WHY in line for line in screen)
    assert any("what changed" in line for line in screen)
    assert "1 of" in screen[1]


def test_what_is_well_is_folded_before_anything_is_left_out() -> None:
    many = tuple(seen(key=f"10.0.0.{n}:80") for n in range(30))
    screen = shown(lines=24, clusters=6, endpoints=many)
    assert any("cluster-5" in line and "30 ok" in line for line in screen)
    assert not any("10.0.0.7:80" in line for line in screen)
    assert any("cluster-0" in line for line in screen)


def test_pods_that_begin_alike_are_told_apart() -> None:
    pods = tuple(seen(pod=f"a-deployment-with-a-long-name-7f9c6d8b5-{n}") for n in ("aaa", "bbb"))
    screen = "\n".join(shown(endpoints=pods))
    assert "-aaa" in screen
    assert "-bbb" in screen
