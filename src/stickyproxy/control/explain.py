"""Which backend a request takes and why, with the real policies.

The clusters are handed in: `cli.explain` builds them as the proxy would, over all endpoints as if
healthy; a running proxy has its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

from stickyproxy.config.load import Settings
from stickyproxy.config.text.addresses import is_ip
from stickyproxy.control.explain_edge import Met, meet
from stickyproxy.model import Cluster, ClusterSpec, Endpoint, HashPolicy, Headers, Route, Target
from stickyproxy.policy import balance
from stickyproxy.policy.hashing import Key, hash_of
from stickyproxy.policy.redirect import location
from stickyproxy.policy.routes import rewrite_path


class Unknown(NamedTuple):
    """Why nothing can be said of a cluster's endpoints, and whether a request may reach one."""

    reason: str
    reaches: bool


class World(NamedTuple):
    """`find` gives a cluster as it is; `against` says in words why an endpoint is passed over, "" for

    one that is not.
    """

    find: Callable[[ClusterSpec], Cluster | Unknown]
    against: Callable[[Cluster, Endpoint], str] = lambda *_: ""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as people describe it. `grpc_method` is `pkg.Service/M`; `port` None: any."""

    path: str | None = None
    grpc_method: str | None = None
    headers: Sequence[str] = ()
    source_ip: str = ""
    authority: str | None = None
    http_method: str | None = None
    tls: bool = False
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What `--json` shows, field by field. `hash` is a whole number below 2**64."""

    host: str | None = None
    route: str | None = None
    cluster: str | None = None
    policy: str | None = None
    key: str | None = None
    hash: int | None = None
    slot: int | None = None
    endpoint: str | None = None
    reason: str = ""


def explain(settings: Settings, request: Request, world: World) -> tuple[Answer, bool]:
    """The answer, and whether the request would reach a backend. `ValueError` for a bad request."""
    head = head_of(request)
    met = meet(settings, head, request.source_ip, tls=request.tls, port=request.port)
    answer, reaches = _past_edge(settings, met, world)
    return replace(answer, host=met.host), reaches


def _past_edge(settings: Settings, met: Met, world: World) -> tuple[Answer, bool]:
    route, headers = met.route, met.headers
    if route is None:
        return Answer(reason=met.stopped), False
    redirected = _redirected(route, met)
    if redirected is not None:
        return redirected, False
    clusters = {spec.name: spec for spec in settings.clusters}
    policy = clusters[route.targets[0].cluster].load_balancer.hash  # one in all of a group
    key = hash_of(policy, headers, met.client, _no_entropy)
    target = _target(route, key.hash)
    if target is None:
        return _undecided(route, clusters), True
    spec = clusters[target.cluster]
    cluster = world.find(spec)
    if isinstance(cluster, Unknown):
        reason = "; ".join(part for part in (_key_reason(policy, key), cluster.reason) if part)
        return _answer(route, spec, key, reason=reason), cluster.reaches
    against = {e.key: why for e in cluster.endpoints if (why := world.against(cluster, e))}
    choice = balance.explain(cluster, key.hash, lambda endpoint: endpoint.key not in against)
    parts = [
        _key_reason(policy, key),
        "" if _will_make_cookie(policy, key) else choice.reason,
        _walked(choice.walked, against),
        _others(cluster, choice.endpoint, against),
        _rewritten(target, route, headers),
    ]
    answer = _answer(
        route,
        spec,
        key,
        slot=choice.slot,
        endpoint=choice.endpoint.key if choice.endpoint else None,
        reason="; ".join(part for part in parts if part),
    )
    return answer, bool(cluster.endpoints)


def _redirected(route: Route, met: Met) -> Answer | None:
    redirect = route.targets[0].redirect  # which is alone in its group
    if redirect is None:
        return None
    place = location(redirect, route.match, met.headers, met.client)
    reason = f"redirected: {redirect.code} to {place.decode('utf-8', 'backslashreplace')}"
    return Answer(route=route.name, reason=reason)


def lines(answer: Answer) -> list[str]:
    """For people: one field a line, the hash in hexadecimal too."""
    shown = {name: "-" if v is None else str(v) for name, v in asdict(answer).items()}
    if answer.hash is not None:
        shown["hash"] = f"{answer.hash} (0x{answer.hash:016x})"
    return [f"{name:<9} {value}" for name, value in shown.items()]


def _answer(
    route: Route,
    spec: ClusterSpec,
    key: Key,
    *,
    reason: str,
    slot: int | None = None,
    endpoint: str | None = None,
) -> Answer:
    return Answer(
        route=route.name,
        cluster=spec.name,
        policy=spec.load_balancer.policy,
        key=None if key.hash is None else key.text,
        hash=key.hash,
        slot=slot,
        endpoint=endpoint,
        reason=reason,
    )


def _target(route: Route, hash_: int | None) -> Target | None:
    """The target that the hash decides on; None where chance would."""
    possible = [target for target in route.targets if target.weight > 0]
    if len(possible) == 1:
        return possible[0]
    if hash_ is None:
        return None
    return balance.choose_target(route, hash_, random.Random(0))


def _undecided(route: Route, clusters: dict[str, ClusterSpec]) -> Answer:
    shares = ", ".join(f"{target.cluster} {target.weight:g}%" for target in route.targets)
    balancer = clusters[route.targets[0].cluster].load_balancer
    return Answer(
        route=route.name,
        policy=balancer.policy,
        reason=f"no key in the request, so a random cluster: {shares}",
    )


# --- words ----------------------------------------------------------------------------------------


def _key_reason(policy: HashPolicy | None, key: Key) -> str:
    if policy is None:
        return ""
    name = "source ip" if policy.kind == "source_ip" else f"{policy.kind} {policy.name}"
    if key.hash is not None:
        return f"key from {name}"
    if _will_make_cookie(policy, key):
        return f"no {name} yet: one is made for the connection and decides from then on"
    if policy.kind == "source_ip":
        return "no source address was given (--source-ip)"
    return f"the request has no {name}"


def _will_make_cookie(policy: HashPolicy | None, key: Key) -> bool:
    return policy is not None and policy.ttl is not None and key.hash is None


def _walked(keys: Sequence[str], against: dict[str, str]) -> str:
    return ", ".join(f"not {key} ({against.get(key, 'not ready')})" for key in keys)


def _others(cluster: Cluster, chosen: Endpoint | None, against: dict[str, str]) -> str:
    keys = [endpoint.key for endpoint in cluster.endpoints]
    if chosen is not None:
        return f"one of {len(keys)}" if len(keys) > 1 else ""
    out = [key for key in keys if key in against or key in cluster.inadmissible]
    return "; ".join(
        part for part in (", ".join(k for k in keys if k not in out), _walked(out, against)) if part
    )


def _rewritten(target: Target, route: Route, headers: Headers) -> str:
    path = dict(headers)[b":path"]
    sent = rewrite_path(target, route.match, path)
    return "" if sent == path else f"path sent {sent.decode('utf-8', 'backslashreplace')}"


# --- the request ----------------------------------------------------------------------------------


def head_of(request: Request) -> Headers:
    """The request head that the proxy would see. `ValueError` says what is wrong."""
    grpc = request.grpc_method is not None
    path = f"/{(request.grpc_method or '').removeprefix('/')}" if grpc else request.path or "/"
    if grpc and path.count("/") != 2:
        raise ValueError(f"--method: `{request.grpc_method}` is not pkg.Service/Method")
    if not path.startswith("/"):
        raise ValueError(f"--path: `{path}` does not begin with /; right would be /{path}")
    if request.source_ip and not is_ip(request.source_ip):
        raise ValueError(f"--source-ip: `{request.source_ip}` is no IP address")
    headers = [
        (b":method", (request.http_method or ("POST" if grpc else "GET")).encode()),
        (b":scheme", b"http"),
        (b":authority", (request.authority or "localhost").encode()),
        (b":path", path.encode()),
    ]
    if grpc:
        headers += [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
    return headers + [_header(text) for text in request.headers]


def _header(text: str) -> tuple[bytes, bytes]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ValueError(f"--header: `{text}` is not NAME:VALUE; right would be x-user:alice")
    return name.strip().lower().encode(), value.strip().encode()


def _no_entropy() -> int:
    return 0
