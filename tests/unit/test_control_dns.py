"""Names are asked again and again; a resolver that is away takes nothing from us."""

# ruff: noqa: ARG001 - pytest-trio takes its clock from the arguments of a test

from __future__ import annotations

import socket
from collections import Counter
from typing import Any

import pytest
import trio
import trio.testing

from stickyproxy.control.discovery.dns import FIRST_ANSWER, DnsResolver

REFRESH = 5.0

Answer = list[str] | OSError | UnicodeError | float
"""Addresses, an error, or seconds of silence before it fails."""


class FakeDns(trio.abc.HostnameResolver):
    """Answers from `answers`, which a test may change; `asked` counts."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: Counter[str] = Counter()

    async def getaddrinfo(  # noqa: PLR0917 - the interface's
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002 - the interface's name
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        assert host is not None
        assert (port, family, proto, flags) == (None, 0, 0, 0)
        name = host.decode()
        self.asked[name] += 1
        answer = self.answers[name]
        if isinstance(answer, float):
            await trio.sleep(answer)
            answer = socket.gaierror(socket.EAI_AGAIN, "try again")
        await trio.lowlevel.checkpoint()
        if isinstance(answer, Exception):
            raise answer
        v6 = socket.AF_INET6
        return [
            (v6, type, 6, "", (ip, 0, 0, 0))
            if ":" in ip
            else (socket.AF_INET, type, 6, "", (ip, 0))
            for ip in answer
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


class Watched:
    """A resolver under test, and how often it told of a change."""

    def __init__(self) -> None:
        self.changes = 0
        self.resolver = DnsResolver(REFRESH, self._changed)

    def _changed(self) -> None:
        self.changes += 1


@pytest.fixture
def dns() -> FakeDns:
    return FakeDns()


@pytest.fixture
async def watched(dns: FakeDns, nursery: trio.Nursery) -> Watched:
    trio.socket.set_custom_hostname_resolver(dns)
    watched = Watched()
    await nursery.start(watched.resolver.run)
    return watched


async def test_first_answers_are_there_when_watch_returns_and_are_no_change(
    dns: FakeDns, watched: Watched, autojump_clock: trio.testing.MockClock
) -> None:
    dns.answers = {"a": ["10.0.0.2", "10.0.0.1", "10.0.0.2"], "b": ["fe80::1%eth0"]}
    await watched.resolver.watch(["a", "b"])
    assert watched.resolver.known == {"a": ("10.0.0.1", "10.0.0.2"), "b": ("fe80::1",)}
    assert watched.changes == 0


async def test_names_are_asked_again_and_a_different_answer_is_told_once(
    dns: FakeDns, watched: Watched, autojump_clock: trio.testing.MockClock
) -> None:
    dns.answers = {"a": ["10.0.0.1"]}
    await watched.resolver.watch(["a"])
    dns.answers = {"a": ["10.0.0.9"]}
    await trio.sleep(REFRESH * 4.5)
    assert dns.asked["a"] == 5
    assert watched.resolver.known == {"a": ("10.0.0.9",)}
    assert watched.changes == 1


@pytest.mark.parametrize(
    "failure",
    [
        socket.gaierror(socket.EAI_NONAME, "unknown"),
        socket.gaierror(socket.EAI_AGAIN, "away"),
        OSError(24, "too many open files"),
        UnicodeError("label empty or too long"),
        [],
    ],
    ids=["unknown", "away", "no-files", "no-name", "empty"],
)
async def test_failure_and_an_empty_answer_keep_the_last_addresses(
    dns: FakeDns,
    watched: Watched,
    failure: Answer,
    capfd: pytest.CaptureFixture[str],
    autojump_clock: trio.testing.MockClock,
) -> None:
    dns.answers = {"a": ["10.0.0.1"]}
    await watched.resolver.watch(["a"])
    dns.answers = {"a": failure}
    await trio.sleep(REFRESH * 3.5)
    assert watched.resolver.known == {"a": ("10.0.0.1",)}
    assert watched.changes == 0
    assert capfd.readouterr().err.count("dns_failed") == 1, "told once, not every 5 s"
    dns.answers = {"a": ["10.0.0.1", "10.0.0.2"]}
    await trio.sleep(REFRESH)
    assert watched.resolver.known == {"a": ("10.0.0.1", "10.0.0.2")}
    assert watched.changes == 1


async def test_name_that_never_resolved_is_told_when_it_does(
    dns: FakeDns, watched: Watched, autojump_clock: trio.testing.MockClock
) -> None:
    dns.answers = {"a": socket.gaierror(socket.EAI_NONAME, "unknown")}
    await watched.resolver.watch(["a"])
    assert watched.resolver.known == {}
    dns.answers = {"a": ["10.0.0.1"]}
    await trio.sleep(REFRESH + 1)
    assert watched.resolver.known == {"a": ("10.0.0.1",)}
    assert watched.changes == 1


async def test_what_is_wrong_with_a_name_is_said_until_it_has_an_answer(
    dns: FakeDns, watched: Watched, autojump_clock: trio.testing.MockClock
) -> None:
    unknown = socket.gaierror(socket.EAI_NONAME, "unknown")
    dns.answers = {"a": ["10.0.0.1"], "b": unknown}
    await watched.resolver.watch(["a", "b"])
    assert watched.resolver.problem(["a"]) == ""
    assert watched.resolver.problem(["a", "b", "never-asked"]) == "DNS: b: unknown"
    dns.answers = {"a": unknown, "b": ["10.0.0.2"]}
    await trio.sleep(REFRESH + 1)
    assert watched.resolver.problem(["b"]) == ""
    assert watched.resolver.problem(["a"]) == "DNS: a: unknown, its last addresses are kept"
    await watched.resolver.watch(["b"])
    assert watched.resolver.problem(["a"]) == ""


async def test_name_nobody_answers_for_holds_up_neither_the_start_nor_other_names(
    dns: FakeDns, watched: Watched, autojump_clock: trio.testing.MockClock
) -> None:
    dns.answers = {"silent": 60.0, "a": ["10.0.0.1"]}
    began = trio.current_time()
    await watched.resolver.watch(["silent", "a"])
    assert trio.current_time() - began == FIRST_ANSWER
    assert watched.resolver.known == {"a": ("10.0.0.1",)}
    dns.answers["a"] = ["10.0.0.2"]
    await trio.sleep(REFRESH)
    assert watched.resolver.known == {"a": ("10.0.0.2",)}, "while silent is still being asked"
    assert dns.asked["silent"] == 1


async def test_answer_later_than_watch_waits_comes_as_a_change(
    dns: FakeDns, watched: Watched, autojump_clock: trio.testing.MockClock
) -> None:
    dns.answers = {"slow": FIRST_ANSWER + 1}
    await watched.resolver.watch(["slow"])
    dns.answers = {"slow": ["10.0.0.1"]}
    await trio.sleep(REFRESH * 2)
    assert watched.resolver.known == {"slow": ("10.0.0.1",)}
    assert watched.changes == 1


async def test_name_that_is_wanted_no_longer_is_forgotten_and_not_asked(
    dns: FakeDns, watched: Watched, autojump_clock: trio.testing.MockClock
) -> None:
    dns.answers = {"a": ["10.0.0.1"], "b": ["10.0.0.2"]}
    await watched.resolver.watch(["a", "b"])
    await watched.resolver.watch(["b"])
    asked = dns.asked["a"]
    await trio.sleep(REFRESH * 3)
    assert dns.asked["a"] == asked
    assert watched.resolver.known == {"b": ("10.0.0.2",)}


async def test_host_names_that_no_resolver_can_be_asked_for_are_told_and_survived(
    nursery: trio.Nursery, capfd: pytest.CaptureFixture[str]
) -> None:
    """The real resolver: Python refuses such names with a UnicodeError, not with an OSError."""
    watched = Watched()
    await nursery.start(watched.resolver.run)
    await watched.resolver.watch(["a..b", "x" * 64 + ".example"])
    assert watched.resolver.known == {}
    assert capfd.readouterr().err.count("is no host name") == 2
    nursery.cancel_scope.cancel()
