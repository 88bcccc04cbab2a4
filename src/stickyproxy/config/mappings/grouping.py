"""Drafts of Mappings into routes and named clusters: groups, weights, what is implied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from zlib import crc32

from stickyproxy.config.mappings.draft import Draft
from stickyproxy.config.mappings.roles import split
from stickyproxy.config.process.settings import IMPLICIT_PRECEDENCE
from stickyproxy.config.steps import Steps
from stickyproxy.config.text.decode import Report
from stickyproxy.model import ClusterSpec, LoadBalancer, Route, RouteMatch
from stickyproxy.rules import Shadow, Upkeep

FOLLOWING = {
    "/grpc.reflection.v1.ServerReflection/": "grpc-reflection-v1",
    "/grpc.reflection.v1alpha.ServerReflection/": "grpc-reflection-v1alpha",
    "/grpc.health.v1.Health/": "grpc-health-v1",
}
"""Services that follow the gRPC Mappings, so that `grpcurl list` works with one Service mapped."""


def assemble(
    drafts: Sequence[Draft], default: LoadBalancer, taken: Iterable[str], report: Report
) -> Steps[tuple[list[Route], list[ClusterSpec]]]:
    """Routes (not in match order) and clusters. The result does not depend on the drafts' order.

    `taken` are names that no cluster may have.
    """
    groups: dict[RouteMatch, list[Draft]] = {}
    for draft in sorted(drafts, key=_by_name):
        groups.setdefault(draft.match, []).append(draft)
    settled: list[Draft] = []
    shadows: dict[RouteMatch, Draft] = {}
    for match, group in groups.items():
        mains, shadow = split(group, default, report)
        settled += _settled(mains, default, report) if mains else ()
        if shadow is not None:
            shadows[match] = shadow
        yield
    used = (draft.cluster for draft in (*settled, *shadows.values()))
    clusters = yield from name_clusters((spec for spec in used if spec is not None), taken)
    names = _route_names(settled)
    by_match: dict[RouteMatch, list[Draft]] = {}
    for draft in settled:
        cluster = "" if draft.cluster is None else clusters[draft.cluster].name
        target = replace(draft.target, name=names[_by_name(draft)], cluster=cluster)
        by_match.setdefault(draft.match, []).append(replace(draft, target=target))
        yield
    routes = [
        Route(
            group[0].target.name,
            match,
            tuple(draft.target for draft in group),
            _shadow(shadows.get(match), clusters),
        )
        for match, group in by_match.items()
    ]
    yield
    implied = _following([d for group in by_match.values() for d in group])
    return routes + implied, list(clusters.values())


def _shadow(draft: Draft | None, clusters: Mapping[ClusterSpec, ClusterSpec]) -> Shadow | None:
    if draft is None or draft.cluster is None:
        return None
    percent = 100.0 if draft.weight is None else float(draft.weight)
    return Shadow(draft.entry.name, clusters[draft.cluster].name, percent, draft.entry.origin)


def _by_name(draft: Draft) -> tuple[str, str]:
    return draft.entry.name, draft.entry.namespace or ""


def _route_names(drafts: Iterable[Draft]) -> dict[tuple[str, str], str]:
    """Mapping names, with the namespace where two namespaces have the same."""
    keys = {_by_name(draft) for draft in drafts}
    names = Counter(name for name, _ in keys)
    return {
        (name, space): f"{name}.{space}" if space and names[name] > 1 else name
        for name, space in keys
    }


# --- groups ---------------------------------------------------------------------------------------


def _settled(group: list[Draft], default: LoadBalancer, report: Report) -> list[Draft]:
    """The group's members with one balancer and their final weights."""
    said = [draft for draft in group if draft.balancer is not None]
    for other in said[1:]:
        if other.balancer != said[0].balancer:
            refuse_balancer(other, said[0], report)
    balancer = said[0].balancer if said and said[0].balancer else default
    weights = _weights(group, report)
    return [
        replace(
            draft,
            cluster=None
            if draft.cluster is None
            else replace(draft.cluster, load_balancer=balancer),
            target=replace(draft.target, weight=weight),
        )
        for draft, weight in zip(group, weights, strict=True)
    ]


def _weights(group: list[Draft], report: Report) -> list[float]:
    """Percent of each member: those without a weight share what the others leave."""
    given = [draft.weight for draft in group]
    total = total_weight(group)
    sharing = given.count(None)
    heavy = next((draft for draft in group if draft.weight is not None), group[0])
    if total > 100:
        refuse_weights(group, heavy, total, report)
        return [100.0] * len(group)
    if sharing:
        rest = (100 - total) / sharing
        return [rest if weight is None else float(weight) for weight in given]
    if total == 0:
        refuse_weights(group, heavy, total, report)
        return [100.0] * len(group)
    if total < 100:
        names = ", ".join(draft.entry.name for draft in group)
        message = f"of {names} add up to {total:g}; they are taken as parts of that"
        heavy.entry.warn(report, message, "weight")
    return [(weight or 0) * 100 / total for weight in given]


def total_weight(group: Iterable[Draft]) -> float:
    """Of those that answer; a shadow's weight is another thing."""
    return sum(d.weight for d in group if d.weight is not None and not d.is_shadow)


def refuse_balancer(draft: Draft, first: Draft, report: Report) -> None:
    draft.entry.problem(
        report,
        f"differs from that of {first.entry.name} ({first.entry.origin}), which has the same match; "
        "give both the same, or one another match",
        "load_balancer",
    )


def refuse_weights(group: Sequence[Draft], blamed: Draft, total: float, report: Report) -> None:
    names = ", ".join(draft.entry.name for draft in group)
    if total:
        message = f"of {names} add up to {total:g}; right would be 100 at most"
    else:
        message = f"of {names} are all 0; right would be 100"
    blamed.entry.problem(report, message, "weight")


# --- names of clusters ----------------------------------------------------------------------------


def name_clusters(
    specs: Iterable[ClusterSpec], reserved: Iterable[str] = ()
) -> Steps[dict[ClusterSpec, ClusterSpec]]:
    """Each distinct spec with a name of its own, as short as tells them apart.

    Its `stats_name`, else the service as written; where that is not enough, with its policy and key;
    then all that tells it apart, so that the name never depends on order.
    """
    full: dict[ClusterSpec, str] = {}
    for spec in set(specs):
        full[spec] = _fullest(spec)
        yield
    unnamed = sorted(full, key=full.__getitem__)
    named: dict[ClusterSpec, ClusterSpec] = {}
    taken = set(reserved)
    for spelling in (_service_of, _with_policy, full.__getitem__):
        spelled = [spelling(spec) for spec in unnamed]
        times = Counter(spelled)
        for spec, name in zip(unnamed, spelled, strict=True):
            if times[name] == 1 and name not in taken:
                named[spec] = replace(spec, name=name)
                taken.add(name)
            yield
        unnamed = [spec for spec in unnamed if spec not in named]
    for number, spec in enumerate(unnamed, 2):  # equal in all that names say: TLS files
        named[spec] = replace(spec, name=f"{full[spec]} #{number}")
    return dict(sorted(named.items(), key=lambda item: item[1].name))


def _service_of(spec: ClusterSpec) -> str:
    return spec.stats_name or (f"{spec.service}|{spec.tag}" if spec.tag else spec.service)


def _with_policy(spec: ClusterSpec) -> str:
    return f"{_service_of(spec)}|{show_balancer(spec.load_balancer)}"


def _fullest(spec: ClusterSpec) -> str:
    places = show_places(spec)
    weights = "*" + ",".join(map(str, spec.weights)) if spec.weights else ""
    name = f"{_with_policy(spec)}|{spec.protocol.value}|{places}{weights}|{spec.connect_timeout:g}s"
    more = [f"{what}={value}" for what, value in _distinctions(spec) if value]
    return "|".join([name, *more])


def _distinctions(spec: ClusterSpec) -> list[tuple[str, object]]:
    """What else makes two clusters of one; most have none of it."""
    upkeep = spec.upkeep
    other = replace(upkeep, idle_timeout=None, max_lifetime=None, families="")
    return [
        ("service", spec.service if spec.stats_name else ""),
        ("tag", spec.tag if spec.stats_name else ""),
        ("idle", upkeep.idle_timeout),
        ("lifetime", upkeep.max_lifetime),
        ("families", upkeep.families),
        ("upkeep", "" if other == Upkeep() else f"{crc32(repr(other).encode()):08x}"),
    ]


def show_places(spec: ClusterSpec) -> str:
    """Where its members are: addresses, or the Service whose pods they are."""
    if spec.kube is None:
        return ",".join(f"{host}:{port}" for host, port in spec.targets)
    service = ".".join(part for part in (spec.kube.service, spec.kube.namespace) if part)
    port = "" if spec.kube.port is None else f":{spec.kube.port}"
    return f"pods of {service}{port}"


def show_balancer(balancer: LoadBalancer) -> str:
    """`ring_hash cookie:session:60s`, as `--policy` and `--sticky` would say it."""
    key = balancer.hash
    if key is None:
        return balancer.policy
    if key.kind == "source_ip":
        return f"{balancer.policy} source-ip"
    ttl = "" if key.ttl is None else f":{key.ttl:g}s"
    return f"{balancer.policy} {key.kind}:{key.name}{ttl}{key.path}"


# --- implied routes -------------------------------------------------------------------------------


def _following(drafts: Sequence[Draft]) -> list[Route]:
    """Reflection and health to the first gRPC Mapping (by name) of each hostname.

    They stand below everything that people wrote, so a Mapping that takes such a path keeps it;
    where one certainly does, no route is made.
    """
    first: dict[tuple[str, bool], Draft] = {}
    for draft in sorted(drafts, key=lambda d: d.target.name):
        if draft.target.grpc:
            first.setdefault((draft.match.hostname, draft.match.hostname_regex), draft)
    return [
        _implied(draft, prefix, name, several=len(first) > 1)
        for draft in first.values()
        for prefix, name in FOLLOWING.items()
        if not any(_claims(other.match, prefix, draft.match) for other in drafts)
    ]


def _claims(match: RouteMatch, prefix: str, like: RouteMatch) -> bool:
    """Whether a Mapping takes every request for that prefix on the host of `like`."""
    plain = not (match.method or match.headers or match.query_parameters)
    same_host = match.hostname in ("*", like.hostname)
    return plain and same_host and match.path_kind == "prefix" and prefix.startswith(match.path)


def _implied(draft: Draft, prefix: str, name: str, *, several: bool) -> Route:
    target = replace(
        draft.target,
        weight=100.0,
        rewrite=None,
        regex_rewrite=None,
        timeout=None,
    )
    match = RouteMatch(
        path=prefix,
        hostname=draft.match.hostname,
        hostname_regex=draft.match.hostname_regex,
        precedence=IMPLICIT_PRECEDENCE,
    )
    return Route(f"{name}@{match.hostname}" if several else name, match, (target,))
