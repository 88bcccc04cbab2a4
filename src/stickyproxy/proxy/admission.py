"""How many connections clients may have, in all and from one address."""

from __future__ import annotations

from collections.abc import Callable

MOST = 50_000
"""Envoy's edge guide: an idle one costs us some 15 KB, so 750 MB at the very worst."""
MOST_EACH = 4096
"""One address with more is an attack, or a balancer that should be declared (`xff_num_trusted_hops`)."""


class Admission:
    """`most` in all and `most_each` from one address; 0 for any number.

    `exempt` says whether addresses are those of a balancer before us, so that none is counted. `told`
    hears why a connection was refused.
    """

    def __init__(
        self,
        most: int = 0,
        most_each: int = 0,
        *,
        exempt: Callable[[], bool] = lambda: False,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._most = most
        self._most_each = most_each
        self._exempt = exempt
        self._told = told
        self._all = 0
        self._by_address: dict[str, int] = {}

    def enter(self, address: str) -> bool:
        """True for one that may come in; then `leave` follows, with the same address."""
        there = self._by_address.get(address, 0)
        if 0 < self._most <= self._all:
            self._told("max-connections")
            return False
        if address and 0 < self._most_each <= there and not self._exempt():
            self._told("max-connections-per-address")
            return False
        self._all += 1
        self._by_address[address] = there + 1
        return True

    def leave(self, address: str) -> None:
        self._all -= 1
        left = self._by_address[address] - 1
        if left:
            self._by_address[address] = left
        else:
            del self._by_address[address]
