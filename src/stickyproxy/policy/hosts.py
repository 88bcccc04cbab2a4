"""Which Host a request is for, and what that lets it do: Emissary's rules of association.

A request belongs to the most special Host whose glob its authority fits (Envoy's virtual hosts): with
Hosts anywhere, an authority that fits none is answered 404. A Host with a selector has a route table of
its own, all others share the one of everybody.

Whether a request is secure is the Listener's to say: SECURE, INSECURE, or by `x-forwarded-proto` where
a hop before us is believed, else by its connection (XFP). One that is not is sent to https, has no
route, or goes on, as its Host says; only requests that have a route are sent elsewhere (Emissary makes
the redirect of each route). A route for ACME's challenges is open to all.

Where clients need a certificate, a request must have come by a handshake that asked for it: under another
Host's name one could otherwise come without (RFC 9110 §15.5.20). A Host that routes what is not secure
does so for everybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from stickyproxy.edge import (
    REJECT,
    ROUTE,
    SECURE,
    XFP,
    Elsewhere,
    Front,
    Guard,
    HostRule,
    ListenerSpec,
    glob_fits,
    glob_rank,
)
from stickyproxy.errors import ErrorKind, ProxyError, Side
from stickyproxy.model import Client, Headers, Route
from stickyproxy.policy.redirect import authority_of, forwarded_proto, https_location
from stickyproxy.policy.routes import Routes, host_of
from stickyproxy.rules import EdgePolicy

MEMO_SIZE = 4096  # authorities seen
ACME_CHALLENGE = "/.well-known/acme-challenge/"  # RFC 8555 §8.3

EVERYBODY = HostRule("", "*", ROUTE)
"""In the place of Hosts where there are none."""

Labels = frozenset[tuple[str, str]]


class Hosts:
    """Compiled for a Snapshot: one `Entrance` for each Listener, and one for all binds.

    Implements `model.HostTable`. `front` is what it was compiled of, without any key.
    """

    def __init__(self, front: Front, routes: Routes, edge: EdgePolicy) -> None:
        self.front = replace(front, tls=())
        tables, guards = _Tables(routes), front.guards
        self._binds = Entrance(front.hosts, tables, guards, edge, XFP)
        self._entrances = {
            spec.name: Entrance(spec.hosts, tables, guards, _edge_at(spec, edge), spec.security)
            for spec in front.listeners
        }

    def edge(self, listener: str) -> EdgePolicy:
        """Whom to believe there; "" is a bind. A Listener that is gone was a way in like a bind."""
        return self._entrances.get(listener, self._binds).edge

    def host(self, headers: Headers, client: Client) -> HostRule | None:
        """The Host that a request is for, for people; None: nobody has that name."""
        entrance = self._entrances.get(client.connection.listener, self._binds)
        return entrance.host(authority_of(headers))

    def find(
        self, headers: Headers, client: Client, fields: Mapping[bytes, bytes] | None = None
    ) -> Route | Elsewhere | None:
        """None: there is no such place. `fields` are the headers by name, if they are known already.

        Raises `ProxyError` for a request on the wrong connection.
        """
        entrance = self._entrances.get(client.connection.listener, self._binds)
        return entrance.find(headers, client, dict(headers) if fields is None else fields)


def hosts_of(front: Front, routes: Routes, edge: EdgePolicy) -> Hosts | None:
    """None where every request meets the same routes and the same edge."""
    open_to_all = front.hosts is None and not any(guard.name for guard in front.guards)
    plain = open_to_all and all(_is_plain(spec) for spec in front.listeners)
    return None if plain else Hosts(front, routes, edge)


def _is_plain(spec: ListenerSpec) -> bool:
    return spec.hosts is None and spec.l7_depth == 0


def _edge_at(spec: ListenerSpec, edge: EdgePolicy) -> EdgePolicy:
    return replace(edge, xff_num_trusted_hops=spec.l7_depth) if spec.l7_depth else edge


class Entrance:
    """One way in. `edge` is whom it believes."""

    __slots__ = ("_exact", "_globs", "_guards", "_known", "_security", "edge")

    def __init__(
        self,
        rules: Sequence[HostRule] | None,
        tables: _Tables,
        guards: Sequence[Guard],
        edge: EdgePolicy,
        security: str,
    ) -> None:
        self.edge = edge
        self._security = security
        self._guards = sorted(guards, key=lambda guard: glob_rank(guard.glob))
        rules = [EVERYBODY] if rules is None else rules
        sites = [_Site(rule, tables.of(rule.selector), "") for rule in rules]
        self._exact = {s.rule.hostname: s for s in reversed(sites) if "*" not in s.rule.hostname}
        globs = [site for site in sites if "*" in site.rule.hostname]
        self._globs = sorted(globs, key=lambda site: glob_rank(site.rule.hostname))
        self._known: dict[bytes, _Site | None] = {}

    def find(
        self, headers: Headers, client: Client, fields: Mapping[bytes, bytes]
    ) -> Route | Elsewhere | None:
        site = self._site(fields.get(b":authority") or fields.get(b"host", b""))
        route = site.routes.match(headers, fields) if site is not None else None
        if site is None or route is None:
            return None
        secure = self._is_secure(headers, client)
        insecure = site.rule.insecure
        if not secure and insecure != ROUTE and route.match.path != ACME_CHALLENGE:
            return None if insecure == REJECT else Elsewhere(https_location(headers))
        if site.guard and (secure or client.connection.tls):
            _check_guard(site.guard, client)
        return route

    def host(self, authority: bytes) -> HostRule | None:
        site = self._site(authority)
        return site.rule if site is not None else None

    def _site(self, authority: bytes) -> _Site | None:
        known = self._known
        if authority in known:
            return known[authority]
        if len(known) >= MEMO_SIZE:
            known.clear()
        site = known[authority] = self._search(host_of(authority).decode("latin-1"))
        return site

    def _search(self, host: str) -> _Site | None:
        site = self._exact.get(host)
        if site is None:
            site = next((s for s in self._globs if glob_fits(s.rule.hostname, host)), None)
        guard = next((guard for guard in self._guards if glob_fits(guard.glob, host)), None)
        return site._replace(guard=guard.name) if site is not None and guard is not None else site

    def _is_secure(self, headers: Headers, client: Client) -> bool:
        if self._security != XFP:
            return self._security == SECURE
        told = forwarded_proto(headers) if client.behind_trusted_hop else b""
        return told == b"https" if told else client.connection.tls


def _check_guard(guard: str, client: Client) -> None:
    if client.connection.tls_name != guard:
        detail = "this host needs a connection of its own"
        raise ProxyError(ErrorKind.MISDIRECTED, Side.INTERNAL, detail)


class _Site(NamedTuple):
    """A Host, the routes that are reachable there, and whose handshake a connection must have made."""

    rule: HostRule
    routes: Routes
    guard: str


class _Tables:
    """Route tables by selector; Hosts with the same one share it."""

    def __init__(self, routes: Routes) -> None:
        self.everybody = routes
        self._made: dict[Labels, Routes] = {}
        self._labelled: dict[tuple[str, str], list[Route]] = {}
        for route in routes.routes:
            for pair in {pair for target in route.targets for pair in target.labels}:
                self._labelled.setdefault(pair, []).append(route)

    def of(self, selector: Labels | None) -> Routes:
        if not selector:
            return self.everybody
        if selector not in self._made:
            rarest = min((self._labelled.get(pair, []) for pair in selector), key=len)
            self._made[selector] = Routes(list(_selected(rarest, selector)))
        return self._made[selector]


def _selected(routes: Iterable[Route], selector: Labels) -> Iterable[Route]:
    """Targets stay the very same: plans are known by their identity."""
    for route in routes:
        targets = tuple(target for target in route.targets if selector <= target.labels)
        if len(targets) == len(route.targets):
            yield route
        elif targets:
            yield replace(route, targets=targets)
