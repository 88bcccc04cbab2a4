"""What some routes ask for beyond a backend: redirects, answers to preflights, copies of requests.

Compiled once a Target. A route that asks for none of it has no `Extras`, and its requests pay one test
of an attribute; so do they at the gate when the Module asks for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stickyproxy.edge import Elsewhere
from stickyproxy.policy.answers import redirected
from stickyproxy.policy.cors import CorsPlan
from stickyproxy.policy.headers import without_request_id
from stickyproxy.policy.paths import unambiguous
from stickyproxy.policy.redirect import location
from stickyproxy.proxy.shadow import Mirroring

if TYPE_CHECKING:
    from stickyproxy.model import HostTable, Route, Snapshot, Target
    from stickyproxy.policy.gate import Gate
    from stickyproxy.proxy.context import Context, Plan
    from stickyproxy.proxy.exchange import Exchange

HTTPS_REDIRECT = 301  # Envoy's require_tls


def extras_of(route: Route, target: Target, snapshot: Snapshot) -> Extras | None:
    """None for a target that only has a backend."""
    if target.redirect is None and target.cors is None and route.shadow is None:
        return None
    return Extras(route, target, snapshot)


class Extras:
    """One Target's, compiled."""

    __slots__ = ("_cors", "_match", "_mirroring", "_redirect")

    def __init__(self, route: Route, target: Target, snapshot: Snapshot) -> None:
        self._match = route.match
        self._redirect = target.redirect
        self._cors = CorsPlan(target.cors) if target.cors is not None else None
        self._mirroring = Mirroring.compiled(route, target, snapshot)

    def served(self, exchange: Exchange, plan: Plan, context: Context) -> bool:
        """True when the answer was given here and no backend is asked."""
        if self._redirect is not None:
            self._send_elsewhere(exchange, plan)
            return True
        if self._cors is not None and self._answers_preflight(exchange):
            return True
        if self._mirroring is not None and exchange.tunnel is None and exchange.error is None:
            self._mirroring.begin(exchange, context)
        return False

    def _send_elsewhere(self, exchange: Exchange, plan: Plan) -> None:
        redirect = self._redirect
        if redirect is None:
            return
        headers = exchange.head.headers
        place = location(redirect, self._match, headers, exchange.client)
        answer = redirected(redirect.code, place, grpc=exchange.grpc)
        _answer(exchange, plan.headers.response(answer))

    def _answers_preflight(self, exchange: Exchange) -> bool:
        if self._cors is None:
            return False
        answer = self._cors.preflight(exchange.head.headers)
        if answer is not None:
            _answer(exchange, answer)
            return True
        added = self._cors.added(exchange.head.headers)
        if added is not None:
            exchange.response.add(added)
        return False


def _answer(exchange: Exchange, headers: list[tuple[bytes, bytes]]) -> None:
    """No backend was chosen, so nothing is said of a session."""
    exchange.plan = None
    exchange.response.answer(headers, b"")


def host_route(hosts: HostTable, exchange: Exchange) -> Route | None:
    """The route that the request's Host has for it; None too when the answer was given here."""
    found = hosts.find(exchange.head.headers, exchange.client, exchange.head.fields)
    if isinstance(found, Elsewhere):
        answer = redirected(HTTPS_REDIRECT, found.location, grpc=exchange.grpc)
        exchange.response.answer(answer, b"")
        return None
    return found


def settle_path(exchange: Exchange) -> None:
    """So that dots do not lead past the prefix that is asked for."""
    head = exchange.head
    settled = unambiguous(exchange.context.snapshot.routes, head.headers, head.fields)
    if settled is not head.headers:
        head.headers, head.fields = settled, dict(settled)


def forget_request_id(exchange: Exchange) -> None:
    """A stranger's: before routes, sessions and the log see it."""
    head = exchange.head
    fields = dict(head.fields)  # of a dict: a third of what it costs of a list
    forgotten = fields.pop(b"x-request-id")
    if len(fields) + 1 == len(head.headers):  # nothing stands twice
        head.headers = head.headers.copy()
        head.headers.remove((b"x-request-id", forgotten))
    else:
        head.headers = without_request_id(head.headers)
    head.fields = fields


def stopped_at(gate: Gate, exchange: Exchange) -> bool:
    """True when the answer was given at the gate; the exchange's head is as it goes on.

    Raises `ProxyError` for a request that is not let in.
    """
    if gate.added is not None:
        exchange.response.add(gate.added)
    head = exchange.head
    admitted = gate.admit(head.headers, exchange.client)
    if admitted is not head.headers:
        head.headers, head.fields = admitted, dict(admitted)
    place = gate.elsewhere(head.headers, exchange.client)
    if place is None:
        return False
    exchange.response.answer(redirected(HTTPS_REDIRECT, place, grpc=exchange.grpc), b"")
    return True
