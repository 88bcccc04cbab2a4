"""`explain`, the way in: by which port a request comes, what stops it there, which Host it is for."""

from __future__ import annotations

from dataclasses import dataclass

from stickyproxy.config.load import Settings
from stickyproxy.edge import Elsewhere, Front, Guard, HostRule, ListenerSpec, glob_fits, glob_rank
from stickyproxy.errors import ProxyError
from stickyproxy.model import Client, Connection, Headers, Route
from stickyproxy.policy.gate import gate_of
from stickyproxy.policy.headers import client_of, without_request_id
from stickyproxy.policy.hosts import hosts_of
from stickyproxy.policy.paths import unambiguous
from stickyproxy.policy.redirect import authority_of
from stickyproxy.policy.routes import Routes, host_of
from stickyproxy.rules import EdgePolicy

NO_ROUTE = "no route matches: 404, for gRPC UNIMPLEMENTED"


@dataclass(frozen=True, slots=True)
class Met:
    """What became of a request until its route was found: `route`, or why there is none.

    `host` is that Host's name, None where there are no Hosts, or none for this name. `headers` are
    as routes see them.
    """

    headers: Headers
    client: Client
    host: str | None = None
    route: Route | None = None
    stopped: str = ""


def meet(
    settings: Settings, headers: Headers, source_ip: str, *, tls: bool, port: int | None
) -> Met:
    """Raises `ValueError` for a port on which nobody listens."""
    listener = _listener(settings, tls=tls, port=port)
    connection = Connection(
        remote_ip=source_ip,
        tls_version="TLSv1.3" if tls else "",
        tls_name=_handshake(headers, settings.front) if tls else "",
        listener=listener.name if listener is not None else "",
    )
    routes = Routes(settings.routes)
    hosts = hosts_of(settings.front, routes, settings.edge)
    edge = settings.edge if hosts is None else hosts.edge(connection.listener)
    if listener is not None and listener.protocol == "clear" and tls:
        return Met(headers, Client("", connection, False), stopped=f"{listener.name} takes no TLS")
    headers, client, stopped = _past_gate(unambiguous(routes, headers), connection, edge)
    if stopped or hosts is None:
        route = None if stopped else routes.match(headers)
        return Met(headers, client, None, route, stopped or ("" if route else NO_ROUTE))
    rule = hosts.host(headers, client)
    name = rule.name.removeprefix("Host ") if rule is not None and rule.name else None
    try:
        found = hosts.find(headers, client)
    except ProxyError as error:
        return Met(headers, client, name, stopped=_refusal(error))
    if isinstance(found, Elsewhere):
        place = found.location.decode("utf-8", "backslashreplace")
        stopped = f"not secure, and the Host redirects that: 301 to {place}"
        return Met(headers, client, name, stopped=stopped)
    if found is None:
        return Met(headers, client, name, stopped=_why_none(rule, routes.match(headers), headers))
    return Met(headers, client, name, found)


def _listener(settings: Settings, *, tls: bool, port: int | None) -> ListenerSpec | None:
    """The one behind that port; without a port a bind, or where Listeners stand in their place the

    first that would do.
    """
    front = settings.front
    if port is not None:
        for spec in front.listeners:
            if spec.port == port:
                return spec
        binds = {bind.port for bind in settings.process.binds if bind.port}
        known = sorted(binds.union(spec.port for spec in front.listeners))
        if port not in binds:
            raise ValueError(f"--port: nobody listens on {port}; right would be one of {known}")
        return None
    own = [spec for spec in front.listeners if not spec.beside]
    if front.binds_given or not own:
        return None
    return next((spec for spec in own if not tls or spec.protocol != "clear"), own[0])


def _handshake(headers: Headers, front: Front) -> str:
    """Whose certificates of clients the handshake would ask for, by the name that it says."""
    host = host_of(authority_of(headers)).decode("latin-1")
    fitting = [guard for guard in front.guards if glob_fits(guard.glob, host)]
    return min(fitting, key=_rank).name if fitting else ""


def _rank(guard: Guard) -> tuple[int, int]:
    return glob_rank(guard.glob)


def _past_gate(
    headers: Headers, connection: Connection, edge: EdgePolicy
) -> tuple[Headers, Client, str]:
    """The head as routes see it, whose it is, and what stops it before, "" for nothing."""
    client = client_of(headers, connection, edge)
    gate = gate_of(edge)
    if not (edge.preserve_request_id or client.behind_trusted_hop):
        headers = without_request_id(headers)
    if gate is None:
        return headers, client, ""
    try:
        headers = gate.admit(headers, client)
    except ProxyError as error:
        return headers, client, _refusal(error)
    place = gate.elsewhere(headers, client)
    if place is None:
        return headers, client, ""
    return headers, client, f"not over TLS: 301 to {place.decode('utf-8', 'backslashreplace')}"


def _refusal(error: ProxyError) -> str:
    return f"{error.detail}: {error.kind.http}, for gRPC {error.kind.grpc.name}"


def _why_none(rule: HostRule | None, route: Route | None, headers: Headers) -> str:
    """`route` is what there would be without Hosts."""
    if rule is None:
        host = host_of(authority_of(headers)).decode("latin-1")
        return f"no Host has the name {host}: 404, for gRPC UNIMPLEMENTED; --authority says another"
    if route is None:
        return NO_ROUTE
    if rule.selector and not any(rule.selector <= target.labels for target in route.targets):
        wanted = ", ".join(f"{name}={value}" for name, value in sorted(rule.selector))
        hidden = f"{route.name} has not the labels of the Host's mappingSelector ({wanted})"
        return f"{hidden}: 404, for gRPC UNIMPLEMENTED"
    return "not secure, and the Host rejects that: 404, for gRPC UNIMPLEMENTED"
