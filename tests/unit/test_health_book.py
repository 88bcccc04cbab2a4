"""The book keeps what is held against endpoints, and nothing else."""

from __future__ import annotations

from stickyproxy.health.book import HealthBook
from stickyproxy.health.breaker import Gate
from stickyproxy.model import Cluster, ClusterSpec, Endpoint, UpstreamProtocol

FIRST = Endpoint("10.0.0.1:80", (("10.0.0.1", 80),))
SECOND = Endpoint("10.0.0.2:80", (("10.0.0.2", 80),))


def _gate(book: HealthBook) -> Gate | None:
    breaker = book.suspected["qotm", FIRST.key].breaker
    return breaker.state if breaker is not None else None


def cluster(name: str, *endpoints: Endpoint) -> Cluster:
    return Cluster(ClusterSpec(name, name, UpstreamProtocol.H2C, ()), endpoints)


def test_a_failed_connect_refuses_that_endpoint_and_no_other() -> None:
    book = HealthBook()
    assert book.connect_failed("qotm", FIRST, now=0.0) == 1.0
    assert not book.admits("qotm", FIRST, now=0.5)
    assert book.admits("qotm", SECOND, now=0.5)


def test_the_same_address_in_another_cluster_is_another_matter() -> None:
    book = HealthBook()
    book.connect_failed("with-tls", FIRST, now=0.0)
    assert book.admits("without", FIRST, now=0.5)


def test_the_same_address_made_anew_is_the_same_endpoint() -> None:
    book = HealthBook()
    book.connect_failed("qotm", FIRST, now=0.0)
    assert not book.admits("qotm", Endpoint(FIRST.key, FIRST.addresses, weight=7), now=0.5)


def test_after_the_wait_one_that_tries_is_the_only_one_admitted() -> None:
    book = HealthBook()
    book.connect_failed("qotm", FIRST, now=0.0)
    assert book.admits("qotm", FIRST, now=1.0)
    book.trying("qotm", FIRST, now=1.0)
    assert not book.admits("qotm", FIRST, now=1.0)
    assert _gate(book) is Gate.PROBING


def test_trying_an_endpoint_in_good_standing_writes_nothing() -> None:
    book = HealthBook()
    book.connect_failed("qotm", SECOND, now=0.0)
    book.trying("qotm", FIRST, now=0.0)
    assert set(book.suspected) == {("qotm", SECOND.key)}


def test_a_failed_probe_waits_longer_and_a_good_one_clears_the_page() -> None:
    book = HealthBook()
    book.connect_failed("qotm", FIRST, now=0.0)
    book.trying("qotm", FIRST, now=1.0)
    assert book.connect_failed("qotm", FIRST, now=1.0) == 1.6
    assert book.connected("qotm", FIRST)
    assert not book.suspected
    assert book.admits("qotm", FIRST, now=1.0)


def test_a_connect_to_an_endpoint_in_good_standing_is_no_news() -> None:
    assert not HealthBook().connected("qotm", FIRST)


def test_all_may_be_refused_for_panic_is_decided_elsewhere() -> None:
    book = HealthBook()
    for endpoint in (FIRST, SECOND):
        book.connect_failed("qotm", endpoint, now=0.0)
    assert not any(book.admits("qotm", endpoint, now=0.1) for endpoint in (FIRST, SECOND))


def test_what_is_no_longer_a_member_is_forgotten() -> None:
    book = HealthBook()
    for name in ("kept", "shrunk", "gone"):
        book.connect_failed(name, FIRST, now=0.0)
    book.keep({"kept": cluster("kept", FIRST, SECOND), "shrunk": cluster("shrunk", SECOND)})
    assert set(book.suspected) == {("kept", FIRST.key)}
