"""A hash table as a picture: a ring of its owners' arcs as they lie, or of a Maglev table's shares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from math import cos, pi, sin

from stickyproxy.model import Cluster, Table
from stickyproxy.policy.ring_hash import RingHash
from stickyproxy.policy.shares import owners, shares

HUES = 24
"""Endpoints with a colour of their own; more could not be told apart."""
PARTS = 720
"""Half degrees of the ring: finer than the eye, whatever the number of entries."""
GOLDEN = 137.508
"""Degrees between the hues of neighbours, so that they differ as much as can be."""


def colour(index: int) -> str:
    """Of an endpoint by its place in the cluster, in CSS."""
    return f"hsl({int(index * GOLDEN + 210) % 360} 55% 50%)" if index < HUES else "hsl(0 0% 55%)"


def drawn(cluster: Cluster) -> str | None:
    """SVG; None for a cluster without a table."""
    table, count = cluster.table, len(cluster.endpoints)
    if table is None:
        return None
    keys = [endpoint.key for endpoint in cluster.endpoints]
    arcs = _ring(table) if isinstance(table, RingHash) else _slices(shares(table, count))
    return _svg("".join(_arc(arc, keys) for arc in arcs))


Arc = tuple[int, float, float]
"""Whose, and from where to where in `PARTS` of the circle."""


def _slices(owned: Sequence[float]) -> Iterator[Arc]:
    at = 0.0
    for index, part in enumerate(owned):
        yield index, at, at + PARTS * part
        at += PARTS * part


def _ring(table: Table) -> Iterator[Arc]:
    at = 0
    for index, run in groupby(owners(table, PARTS)):
        until = at + len(list(run))
        yield index, at, until
        at = until


def _arc(arc: Arc, keys: Sequence[str]) -> str:
    index, start, end = arc
    one, other = (_point(at) for at in (start, min(end, start + PARTS - 1)))
    large = int(end - start > PARTS // 2)
    return (
        f'<path d="M{one}A85 85 0 {large} 1 {other}" fill="none" stroke="{colour(index)}" '
        f'stroke-width="28"><title>{_plain(keys[index])}</title></path>'
    )


def _point(at: float) -> str:
    turn = 2 * pi * at / PARTS
    return f"{100 + 85 * sin(turn):.2f} {100 - 85 * cos(turn):.2f}"


def _plain(text: str) -> str:
    """Keys are addresses; a name that is none could say anything."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _svg(inner: str) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 200">{inner}</svg>'
