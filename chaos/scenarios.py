"""Which calls under which faults: names such as `loss5`, `tls.bh-conn`, `twilio.lossall3`.

Before the dot stands the traffic (none: plain), after it the fault. Any pair may be asked for; CATALOGUE
has those that are measured when nobody asks for anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from chaos.job import CHAT, POST, UNARY, Setup


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: calls are made for `seconds`, a fault acts from `on` to `off`, and when no more calls
    are made their answers are waited for as long as `drain`.
    """

    seconds: float = 20.0
    on: float = 4.0
    off: float = 14.0
    drain: float = 16.0  # above the 15 s after which Envoy gives up


QUICK = Pace(9.0, 2.5, 5.5, 7.0)


@dataclass(frozen=True, slots=True)
class Step:
    """At a time (seconds from the first call on) something happens to a backend or its link.

    `value`: percent of packets lost each way; `everywhere`: on the links to all backends.
    """

    at: float
    what: str
    value: float = 0.0
    everywhere: bool = False
    backend: int = 1


TRAFFIC: dict[str, tuple[Setup, str]] = {
    "": (Setup(), "300 GET/s over three backends that answer in 10 ms"),
    "twilio": (
        Setup(backends=1, rtt=0.025, kind=POST, rate=1000, body=1024, seconds=12),
        "1,000 POST/s of 1 KB to one backend 25 ms away",
    ),
    "tls": (Setup(tls=True), "as plain, over TLS to the backends"),
    "unary": (Setup(kind=UNARY, body=64), "300 unary gRPC calls/s"),
    "chat": (
        Setup(kind=CHAT, body=64, rate=120),
        "60 gRPC streams that stay open, two messages/s on each, echoed at once",
    ),
    "tail": (Setup(tail=20.0), "answers after 10 ms in the median, 200 ms at p99 (log-normal)"),
    "bulk": (Setup(rate=12, answer=1_000_000), "12 GET/s of 1 MB"),
    "h1": (Setup(http1=True), "as plain, over HTTP/1.1 to the backends"),
    "named": (Setup(named=True), "as plain, to backends that are found by a name"),
    "hash": (Setup(sticky=True), "300 GET/s of 150 users, consistent hashing"),
}

LOSS = re.compile(r"loss(all)?(\d+(?:\.\d+)?)")

FAULTS: dict[str, str] = {
    "none": "nothing goes wrong",
    "bh-conn": "the busiest connection to a backend is dead from 4 s on, its host is well",
    "bh-host": "a host is unreachable for 10 s, without RST",
    "freeze": "a host is frozen for 10 s (SIGSTOP): its kernel still acknowledges",
    "rst": "all connections to a backend are reset, each second",
    "goaway": "a backend sends GOAWAY on all connections, each second",
    "deaf": "a backend answers PING and nothing else for 10 s",
    "mute": "a backend resets all connections, accepts new ones and says nothing on them for 10 s",
    "dns": "the name server takes 3 s for each answer, for 10 s",
    "flap": "a host is unreachable every other second for 10 s",
}

MAIN = ("none", "loss1", "loss5", "loss10", "bh-conn", "bh-host", "freeze", "rst", "goaway")
TWILIO = ("twilio.none", "twilio.lossall1", "twilio.lossall3")
EXTRA = (
    *("tls.none", "tls.loss5", "tls.bh-conn", "tls.freeze"),
    *("unary.none", "unary.bh-conn", "chat.none", "chat.bh-conn", "chat.freeze"),
    *("tail.none", "tail.bh-conn", "bulk.none", "bulk.loss1", "hash.none", "hash.bh-host"),
    *("h1.none", "h1.bh-conn", "h1.bh-host", "h1.freeze"),
    *("deaf", "mute", "flap", "named.dns"),
)
GROUPS = {"main": MAIN, "twilio": TWILIO, "extra": EXTRA, "all": (*MAIN, *TWILIO, *EXTRA)}


@dataclass(frozen=True, slots=True)
class Scenario:
    """`steps` in the order of time. `healed`: when the fault is over, if it ends within the run."""

    name: str
    title: str
    setup: Setup
    pace: Pace
    steps: tuple[Step, ...]
    healed: float | None


def scenario(name: str, pace: Pace) -> Scenario:
    """Raises ValueError for a name that means nothing."""
    traffic, dot, fault = name.partition(".")
    if not dot or traffic not in TRAFFIC:
        traffic, fault = "", name
    setup, words = TRAFFIC[traffic]
    if setup.seconds and setup.seconds < pace.seconds:
        pace = Pace(setup.seconds, pace.on, min(pace.off, setup.seconds - 3), pace.drain)
    steps = _steps(fault, pace)
    ends = {"heal", "thaw", "well"}
    healed = steps[-1].at if steps and steps[-1].what in ends else None
    return Scenario(name, f"{described(fault)}; {words}", setup, pace, steps, healed)


def described(fault: str) -> str:
    if found := LOSS.fullmatch(fault):
        where = "on all links" if found[1] else "on the link to one backend"
        return f"{found[2]} % of packets lost each way {where}"
    return FAULTS[fault]


def _steps(fault: str, pace: Pace) -> tuple[Step, ...]:
    if found := LOSS.fullmatch(fault):
        return (Step(-0.2, "loss", float(found[2]), everywhere=bool(found[1])),)
    during = {
        "none": (),
        "bh-conn": (Step(pace.on, "cut-connection"),),
        "bh-host": (Step(pace.on, "cut"), Step(pace.off, "heal")),
        "freeze": (Step(pace.on, "freeze"), Step(pace.off, "thaw")),
        "deaf": (Step(pace.on, "deaf"), Step(pace.off, "well")),
        "mute": (Step(pace.on, "mute"), Step(pace.off, "well")),
        "dns": (Step(pace.on, "names-slow"), Step(pace.off, "names-well")),
    }
    if fault in during:
        return during[fault]
    if fault in ("rst", "goaway"):
        return tuple(Step(second + 0.5, fault) for second in range(1, int(pace.seconds) - 1))
    if fault == "flap":
        seconds = range(int(pace.off - pace.on) // 2 * 2)
        return tuple(Step(pace.on + s, "heal" if s % 2 else "cut") for s in seconds)
    raise ValueError(
        f"{fault}: a fault is lossN, lossallN or one of {', '.join(FAULTS)}; before it and "
        f"a dot traffic may stand: one of {', '.join(filter(None, TRAFFIC))}"
    )


def named(words: list[str]) -> list[str]:
    """Names of scenarios, where groups stand for their members; each once, in their order."""
    return list(dict.fromkeys(name for word in words for name in GROUPS.get(word, (word,))))
