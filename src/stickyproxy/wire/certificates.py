"""Which certificate a client meets, by the name it asks for; exchanged whole, a handshake keeps its own.

Names are found as Envoy finds a filter chain: the exact one, then the longest `*.suffix`, then a glob
with its star at the end, then `*`, then the certificate of `--tls-cert`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import NamedTuple

from stickyproxy.edge import ServerTls, glob_rank
from stickyproxy.errors import ConfigError
from stickyproxy.wire.tls import server_context


class Chosen(NamedTuple):
    """`name` is that of the ServerTls, "" for the default."""

    context: ssl.SSLContext
    name: str


class Certificates:
    """`by_name`: a handshake has to be looked at for the name before it begins. `broken`: what was

    said to be so when these were made; while it stays as it is, nobody is told again.
    """

    def __init__(self, default: ssl.SSLContext | None = None) -> None:
        self.by_name = False
        self.broken: set[Hashable] = set()
        self._default = Chosen(default, "") if default is not None else None
        self._everyone: Chosen | None = None
        self._exact: dict[str, Chosen] = {}
        self._suffixes: dict[str, Chosen] = {}
        self._prefixes: list[tuple[str, Chosen]] = []
        self._contexts: dict[ServerTls, ssl.SSLContext] = {}
        self._of_name: dict[str, tuple[ServerTls, ssl.SSLContext]] = {}

    def __bool__(self) -> bool:
        return self.by_name or self._default is not None

    def pick(self, name: str) -> Chosen | None:
        """For a server name (lower case, "" for none); None: nobody may come by this name."""
        found = self._exact.get(name)
        if found is not None:
            return found
        at = name.find(".")
        while at >= 0:
            if (found := self._suffixes.get(name[at:])) is not None:
                return found
            at = name.find(".", at + 1)
        for prefix, found in self._prefixes:
            if len(name) > len(prefix) and name.startswith(prefix):
                return found
        return self._everyone or self._default

    def context_like(self, tls: ServerTls) -> ssl.SSLContext | None:
        """A context of ours that was made from the same."""
        return self._contexts.get(_recipe(tls))

    def named(self, name: str) -> tuple[ServerTls, ssl.SSLContext] | None:
        return self._of_name.get(name)

    def add(self, tls: ServerTls, context: ssl.SSLContext) -> None:
        """Of two with the same glob the first counts. Only before the first `pick`."""
        self._of_name[tls.name] = (tls, context)
        self._contexts[_recipe(tls)] = context
        chosen = Chosen(context, tls.name)
        for glob in tls.globs:
            if glob == "*":
                self._everyone = self._everyone or chosen
            elif glob.startswith("*"):
                self._suffixes.setdefault(glob[1:], chosen)
            elif glob.endswith("*"):
                self._prefixes.append((glob[:-1], chosen))
            else:
                self._exact.setdefault(glob, chosen)
        self._prefixes.sort(key=lambda item: glob_rank(item[0] + "*"))
        self.by_name = True


def make_certificates(
    wanted: Sequence[ServerTls],
    default: ssl.SSLContext | None,
    old: Certificates | None,
    tell: Callable[[str], None],
) -> Certificates:
    """Contexts for all of them; one whose content is known is kept, with its session tickets.

    Takes about a millisecond for each new key: for a thread. `tell` hears of one that is broken and
    not strict, once: it stays as it was, or away if it is new.

    Raises:
        ConfigError: with every problem of strict ones.

    """
    made, before = Certificates(default), old if old is not None else Certificates()
    problems: list[str] = []
    for tls in wanted:
        try:
            made.add(tls, before.context_like(tls) or server_context(tls))
        except ConfigError as error:
            if tls.strict:
                problems += error.problems
                continue
            made.broken.add(tls)
            if tls not in before.broken:
                tell(error.problems[0])
            if (kept := before.named(tls.name)) is not None:
                made.add(replace(kept[0], globs=tls.globs), kept[1])
    if problems:
        raise ConfigError(problems)
    return made


def _recipe(tls: ServerTls) -> ServerTls:
    """All that a context is made from."""
    return replace(tls, name="", globs=(), strict=True)
