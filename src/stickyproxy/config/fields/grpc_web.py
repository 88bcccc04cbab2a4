"""What pages need to call gRPC by gRPC-Web, put into whatever CORS there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stickyproxy.config.fields.features import check_origin
from stickyproxy.model import HashPolicy
from stickyproxy.rules import Cors

METHODS = ("POST",)
HEADERS = ("content-type", "grpc-timeout", "x-grpc-web", "x-user-agent")
"""What a request has beyond what browsers allow by themselves (grpc/grpc doc/PROTOCOL-WEB.md)."""
EXPOSED = ("grpc-status", "grpc-message", "grpc-status-details-bin")
"""What a page must see of a head that has a status."""
MAX_AGE = "86400"
"""Seconds for which a preflight's answer holds: Firefox takes no more, Chromium two hours."""


def for_grpc_web(cors: Cors | None) -> Cors | None:
    """The same, and what gRPC-Web cannot do without."""
    if cors is None:
        return None
    return replace(
        cors,
        methods=_with(cors.methods, METHODS),
        headers=_with(cors.headers, HEADERS),
        exposed_headers=_with(cors.exposed_headers, EXPOSED),
    )


def _with(given: str, needed: Sequence[str]) -> str:
    names = [name.strip() for name in given.split(",") if name.strip()]
    if "*" in names:
        return given
    there = {name.lower() for name in names}
    return ", ".join([*names, *(name for name in needed if name.lower() not in there)])


def cors_of_backends(
    origins: Sequence[str], session: HashPolicy | None, *, web: bool
) -> Cors | None:
    """For `--backend` and the origins that were named; None for none.

    With a session in a cookie browsers are to send it, but not for an origin that nobody named.
    """
    if not origins:
        return None
    cookie = session is not None and session.kind == "cookie"
    found = Cors(
        tuple(origins),
        methods="*",
        headers="*",
        exposed_headers="*",
        credentials=cookie and "*" not in origins,
        max_age=MAX_AGE,
    )
    return for_grpc_web(found) if web else found


def parse_origin(text: str) -> str:
    """Raises ValueError for what no browser says."""
    fault = check_origin(text)
    if fault is not None:
        raise ValueError(fault)
    return text
