"""The members of a cluster, wherever they are from, as Snapshots are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from stickyproxy.control.discovery.kube_members import Members
from stickyproxy.model import Endpoint


class ClusterMembers(NamedTuple):
    """`endpoints` sorted by key; `inadmissible` as in `model.Cluster`."""

    endpoints: tuple[Endpoint, ...] = ()
    inadmissible: frozenset[str] = frozenset()


NOBODY = ClusterMembers()

MembersOf = Mapping[str, ClusterMembers]
"""By the cluster's name."""


def following(before: ClusterMembers, now: Members) -> ClusterMembers:
    """What a Service's pods are as members, after they were `before`; that itself if nothing changed.

    A pod that stops being ready stays a member, walked past: when it is back nobody else's session
    has moved. One that never was ready is none yet: its share of the sessions moves once, when it
    is ready, and not to somebody else first.
    """
    known = {endpoint.key for endpoint in before.endpoints}
    waiting = tuple(endpoint for endpoint in now.resting if endpoint.key in known)
    endpoints = now.pickable
    if waiting:
        endpoints = tuple(sorted((*endpoints, *waiting), key=lambda endpoint: endpoint.key))
    if endpoints == before.endpoints:  # the same object, so that it is seen at a glance
        endpoints = before.endpoints
    fresh = ClusterMembers(endpoints, frozenset(endpoint.key for endpoint in waiting))
    return before if fresh == before else fresh
