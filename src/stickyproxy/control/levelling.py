"""Connections go from the workers that have more than their share to one that came anew.

Whoever lost a connection with a worker comes back within milliseconds, long before there is another
worker; so the others have all of them, and keep them, for clients that are content stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import trio

from stickyproxy.wire.link import Link

WITHIN = 2.0
"""Seconds over which they are sent away: each costs a handshake, and a worker that is to have less to do
should not have to do all of them at once; a deadline of some seconds is still met behind it."""


def surplus(connections: Mapping[int, int]) -> dict[int, int]:
    """How many each worker, by its number, has above an even share; none are left out."""
    share = -(-sum(connections.values()) // max(1, len(connections)))
    return {number: count - share for number, count in connections.items() if count > share}


async def send_away(links: Iterable[Link], count: int, told: Callable[[], None]) -> None:
    """Clients' links, the youngest first: those who were here before need not move.

    `links` in the order in which they began; `told` is called for each that is told to go.
    """
    staying = [link for link in links if not (link.codec.client or link.draining or link.over)]
    for link in staying[: -count - 1 : -1]:
        if not (link.draining or link.over):
            link.drain()
            told()
        await trio.sleep(WITHIN / count)
