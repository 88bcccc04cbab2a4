"""Which requests are mirrored, and by what name their copies go."""

from __future__ import annotations

from random import Random

from stickyproxy.rules import Shadow

_SUFFIX = b"-shadow"


def is_mirrored(shadow: Shadow, rng: Random) -> bool:
    """A draw for each request, as in Envoy: what a session's hash says has no part in it."""
    return shadow.percent >= 100 or rng.random() * 100 < shadow.percent


def shadow_authority(authority: bytes) -> bytes:
    """`shop.example:8080` becomes `shop.example-shadow:8080`, so that logs tell copies apart (Envoy).

    An IPv6 literal stays as it is: with anything behind its brackets it is no authority.
    """
    if authority.startswith(b"[") or not authority:
        return authority
    host, colon, port = authority.partition(b":")
    return host + _SUFFIX + colon + port
