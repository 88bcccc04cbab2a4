"""Known attacks of clients on the whole proxy, the published counts cut down; a neighbour is served.

How much each costs is measured by `conformance attacks`; here is that each ends as it should, that
nobody else feels it, and that nothing of it is left.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.attacks import ATTACKS, BIG, HOLDS, Attack, Attacker
from support.h2_backend import Http2Backend, h2_backend
from support.leftovers import wait_for_nothing_left
from support.neighbours import Neighbour
from support.proxy_process import ProxyProcess, running_proxy


@pytest.fixture(scope="module")
def web() -> Iterator[Http2Backend]:
    with h2_backend() as backend:
        yield backend


@pytest.fixture(scope="module")
def proxy(web: Http2Backend) -> Iterator[ProxyProcess]:
    with running_proxy("--backend", web.address, "--access-log", "off") as proxy:
        yield proxy
        assert [line for line in proxy.events if str(line["event"]).startswith("bug")] == []


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_ends_as_it_should_and_hurts_nobody(
    proxy: ProxyProcess, web: Http2Backend, attack: Attack
) -> None:
    web.asked.clear()
    with Neighbour(proxy.port) as neighbour, Attacker(attack, proxy.port, attack.few) as attacker:
        seen = attacker.run()
    assert seen.outcome in attack.ends, seen
    assert neighbour.failures == []
    assert "/smuggled" not in web.asked
    wait_for_nothing_left(proxy)


@pytest.mark.parametrize("attack", HOLDS, ids=lambda attack: attack.name)
def test_who_asks_and_does_not_read_holds_little(
    proxy: ProxyProcess, web: Http2Backend, attack: Attack
) -> None:
    with Neighbour(proxy.port) as neighbour, Attacker(attack, proxy.port, attack.few) as attacker:
        web.asked.clear()
        attacker.send_only()
        proxy.wait_until(lambda: web.asked.count(BIG.decode()) == attack.few)
    assert neighbour.failures == []
    wait_for_nothing_left(proxy)
