"""`load_balancer` as Emissary validates it (strictly), into the model's LoadBalancer."""

from __future__ import annotations

import re
from collections.abc import Callable

from stickyproxy.config.schema.mapping import HASH_POLICIES, POLICIES, CookieSpec, LoadBalancerSpec
from stickyproxy.model import HashPolicy, LoadBalancer

Complain = Callable[..., None]
"""Called with a message and the keys below `load_balancer` that it is about."""

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_TTL = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")  # protobuf's Duration, without a sign
_COOKIE_PATH = re.compile(r"[ -:<-~]*")  # RFC 6265 §4.1.1: no control characters, no `;`
_EXAMPLE = "cookie: {name: sticky-cookie, ttl: 60s}"


def parse_ttl(text: str) -> float | None:
    """Seconds of a duration like `60s` or `1.5s`; None if it is not one."""
    found = _TTL.fullmatch(text)
    return float(found[1]) if found else None


def load_balancer(spec: LoadBalancerSpec, complain: Complain) -> LoadBalancer | None:
    """The balancer, or None after complaining.

    `source_ip: false` is a hash policy without a key, as in Emissary: random picks.
    """
    given = [key for key in ("cookie", "header", "source_ip") if getattr(spec, key) is not None]
    if spec.policy not in HASH_POLICIES:
        if given:
            complain(
                f"{spec.policy} takes no other key; remove {', '.join(given)} or write "
                "policy: ring_hash or maglev",
                given[0],
            )
            return None
        return LoadBalancer(spec.policy)
    if len(given) != 1:
        has = f"not {len(given)} ({', '.join(given)})" if given else "and has none"
        complain(
            f"{spec.policy} needs exactly one of cookie, header, source_ip, {has}; right would "
            f"be {_EXAMPLE}"
        )
        return None
    return _hashed(spec, complain)


def _hashed(spec: LoadBalancerSpec, complain: Complain) -> LoadBalancer | None:
    if spec.cookie is not None:
        policy = _cookie(spec.cookie, complain)
        return LoadBalancer(spec.policy, policy) if policy else None
    if spec.header is not None:
        if not TOKEN.fullmatch(spec.header):
            complain(f"`{spec.header}` is no header name; right would be x-user", "header")
            return None
        return LoadBalancer(spec.policy, HashPolicy("header", spec.header.lower()))
    return LoadBalancer(spec.policy, HashPolicy("source_ip") if spec.source_ip else None)


def _cookie(spec: CookieSpec, complain: Complain) -> HashPolicy | None:
    wrong = False
    if not TOKEN.fullmatch(spec.name):
        complain(f"`{spec.name}` is no cookie name; right would be session", "cookie", "name")
        wrong = True
    ttl = None if spec.ttl is None else parse_ttl(spec.ttl)
    if spec.ttl is not None and ttl is None:
        complain(
            f"`{spec.ttl}` is no number of seconds with an s; right would be 60s", "cookie", "ttl"
        )
        wrong = True
    if not _COOKIE_PATH.fullmatch(spec.path or ""):
        complain("has a character that no cookie path has; right would be /", "cookie", "path")
        wrong = True
    return None if wrong else HashPolicy("cookie", spec.name, ttl, spec.path or "")


def parse_sticky(policy: str | None, sticky: str | None) -> LoadBalancer:
    """`--policy` and `--sticky` together; sticky without a policy is maglev.

    Raises `ValueError`, its text beginning with the option that is wrong.
    """
    if policy is not None and policy not in POLICIES:
        raise ValueError(f"policy: `{policy}` is not one of {', '.join(POLICIES)}")
    if sticky is None:
        if policy in HASH_POLICIES:
            raise ValueError(
                f"policy: {policy} needs a key; add sticky header:NAME, cookie:NAME[:TTL] or "
                "source-ip"
            )
        return LoadBalancer(policy or "round_robin")
    if policy is not None and policy not in HASH_POLICIES:
        raise ValueError(
            f"sticky: {policy} spreads and cannot stick; use policy maglev or ring_hash"
        )
    return LoadBalancer(policy or "maglev", _sticky_key(sticky))


def _sticky_key(text: str) -> HashPolicy:
    kind, _, rest = text.partition(":")
    if kind == "source-ip" and not rest:
        return HashPolicy("source_ip")
    if kind == "header" and TOKEN.fullmatch(rest):
        return HashPolicy("header", rest.lower())
    name, _, ttl = rest.partition(":")
    if kind == "cookie" and TOKEN.fullmatch(name):
        seconds = parse_ttl(ttl if ttl.endswith("s") else ttl + "s") if ttl else None
        if not ttl or seconds is not None:
            return HashPolicy("cookie", name, seconds)
        raise ValueError(f"sticky: `{ttl}` is no lifetime in seconds; right would be {name}:60s")
    raise ValueError(
        f"sticky: `{text}` is not header:NAME, cookie:NAME[:TTL] or source-ip; right would be "
        "header:x-user"
    )
