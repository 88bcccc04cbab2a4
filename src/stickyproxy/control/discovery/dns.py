"""Host names to addresses, asked again and again (Envoy's STRICT_DNS).

getaddrinfo tells no TTL, so every name is asked each `refresh` seconds. A failure or an empty answer
keeps what was known: nothing is dropped because a resolver is away. Each name has its own task: one
that nobody answers for holds up no other.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable

import trio

from stickyproxy import logs
from stickyproxy.control.discovery.addresses import Addresses

FIRST_ANSWER = 2.0
"""Seconds that a new name may hold up a start or a reload; a resolver that is there needs
milliseconds, one that is away 30 s and more. What comes later comes as a change."""


class DnsResolver:
    """`known` holds the last good answer of each name. `changed` is called when any differs.

    `run` must have started before `watch` is called.
    """

    def __init__(self, refresh: float, changed: Callable[[], None]) -> None:
        self.known: dict[str, Addresses] = {}
        self.refresh = refresh
        self._changed = changed
        self._scopes: dict[str, trio.CancelScope] = {}
        self._awaited: dict[str, trio.Event] = {}
        self.failed: dict[str, str] = {}
        """Names whose last question had no answer, and why."""
        self.failures = 0
        """Questions without an answer, from the start on."""
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    async def watch(self, names: Iterable[str]) -> None:
        """Ask for these from now on, and for no others.

        Returns when each was asked once, or after `FIRST_ANSWER`.
        """
        wanted = set(names)
        for name in self._scopes.keys() - wanted:
            self._scopes.pop(name).cancel()
            self.known.pop(name, None)
            self.failed.pop(name, None)
        self._awaited = {name: trio.Event() for name in wanted - self._scopes.keys()}
        for name in self._awaited:
            self._start(name)
        with trio.move_on_after(FIRST_ANSWER):
            for event in list(self._awaited.values()):
                await event.wait()
        self._awaited = {}

    def _start(self, name: str) -> None:
        if self._nursery is None:
            message = "the resolver does not run"
            raise RuntimeError(message)
        scope = self._scopes[name] = trio.CancelScope()
        self._nursery.start_soon(self._keep_asking, name, scope)

    async def _keep_asking(self, name: str, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                differs = await self._ask(name)
                if name in self._awaited:
                    self._awaited[name].set()
                elif differs:
                    self._changed()
                await trio.sleep(self.refresh)

    async def _ask(self, name: str) -> bool:
        """Whether the answer differs from what was known."""
        try:
            found = await trio.socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except OSError as error:
            return self._complain(name, error.strerror or str(error))
        except UnicodeError:  # an empty label or one above 63 bytes: the codec of names says no
            return self._complain(name, "is no host name")
        addresses = tuple(sorted({str(address[4][0]).partition("%")[0] for address in found}))
        if not addresses:
            return self._complain(name, "no address")
        before = self.known.get(name)
        self.known[name] = addresses
        if name in self.failed:
            del self.failed[name]
            logs.info("dns_answered", name=name, addresses=list(addresses))
        return addresses != before

    def _complain(self, name: str, reason: str) -> bool:
        """Once, until it succeeds again."""
        self.failures += 1
        told = name in self.failed
        self.failed[name] = reason
        if not told:
            kept = list(self.known.get(name, ()))
            logs.warning("dns_failed", name=name, reason=reason, kept=kept)
        return False

    def problem(self, names: Iterable[str]) -> str:
        """What is not known of these, or not any more; "" if there is nothing to say."""
        return "; ".join(
            f"DNS: {name}: {self.failed[name]}"
            + ", its last addresses are kept" * (name in self.known)
            for name in sorted(names)
            if name in self.failed
        )
