"""Pools of an endpoint that is told of each client by a PROXY header: what a link says holds for one only.

So there is a pool for each end of a client's connection (Envoy's key too), where others share one for all.
They are bounded in number, and their links rest for a minute at most: most clients do not come back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from stickyproxy.wire.proxy_protocol import LOCAL, End, header

if TYPE_CHECKING:
    from stickyproxy.model import Client
    from stickyproxy.upstream.pool import EndpointPool

MOST_CLIENTS = 1024
"""Pools of one endpoint; as many as it may have links."""

Ends = tuple[End, End]


class Crowd:
    """`make` makes a pool whose links begin with these bytes; `most` of them are kept."""

    def __init__(self, make: Callable[[bytes], EndpointPool], most: int = MOST_CLIENTS) -> None:
        self._make = make
        self._most = max(1, most)
        self._pools: OrderedDict[Ends | None, EndpointPool] = OrderedDict()
        """The one that was used last comes last."""

    def __iter__(self) -> Iterator[EndpointPool]:
        return iter(self._pools.values())

    def __len__(self) -> int:
        return len(self._pools)

    def pool(self, client: Client) -> EndpointPool:
        """The one for `client`, whose address comes from whom is believed."""
        ends = _ends(client)
        found = self._pools.get(ends)
        if found is not None:
            self._pools.move_to_end(ends)
            return found
        self._make_room()
        made = self._pools[ends] = self._make(LOCAL if ends is None else header(*ends))
        return made

    def _make_room(self) -> None:
        """Who has no link is forgotten as others come; beyond the bound who rests, else the oldest."""
        while self._pools and not taken(next(iter(self))):
            self._pools.popitem(last=False)
        if len(self._pools) < self._most:
            return
        resting = (ends for ends, pool in self._pools.items() if _rests(pool))
        self._pools.pop(next(resting, next(iter(self._pools)))).retire()

    def retire(self) -> None:
        """The endpoint left."""
        for pool in self:
            pool.retire()
        self._pools.clear()


def taken(pool: EndpointPool) -> int:
    """Links that there are or will be, its crowd's too. Whoever waits, waits for one of these."""
    own = len(pool.links) + pool.dialling
    return own if pool.crowd is None else own + sum(map(taken, pool.crowd))


def _rests(pool: EndpointPool) -> bool:
    return not (pool.dialling or any(link.streams for link in pool.links))


def _ends(client: Client) -> Ends | None:
    """Of its connection. A hop before us told an address and no port: 0. None: it has no address."""
    connection = client.connection
    if not (client.ip and connection.local_ip):
        return None
    port = connection.remote_port if client.ip == connection.remote_ip else 0
    return (client.ip, port), (connection.local_ip, connection.local_port)
