"""A Service with some pods in a cluster, a proxy before them, and what can be done to them under load."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from support.fake_kube_store import SERVICES
from support.figures import note
from support.grpc_backends import SERVICE, Fleet, running_backends
from support.kube_cluster import Cluster, kube_flags, pod_kind, running_cluster
from support.kube_objects import service
from support.plain_tables import endpoint_of
from support.proxy_process import ProxyProcess, running_proxy
from support.sticky_load import StickyLoad

USERS = [f"user-{number}" for number in range(60)]
MAPPING = f"""\
apiVersion: ambassador/v1
kind: Mapping
name: calls
prefix: /{SERVICE}/
service: pods:80
grpc: true
load_balancer: {{policy: POLICY, header: x-user}}
"""


Configure = Callable[[Path, Cluster, str], Sequence[str]]
"""Say what is to be done (in a file, in the cluster), and what the proxy is to be told."""


def by_file(folder: Path, kube: Cluster, policy: str) -> Sequence[str]:
    """A Service, and a Mapping in a file: sticky by header."""
    kube.service("pods")
    mapping = folder / "mapping.yaml"
    mapping.write_text(MAPPING.replace("POLICY", policy))
    return [str(mapping)]


class World:
    """A cluster with one Service, a proxy before it, and users; `members` is who should be chosen."""

    proxy: ProxyProcess

    def __init__(self, kube: Cluster, fleet: Fleet, policy: str, members: Sequence[str]) -> None:
        self.kube = kube
        self.fleet = fleet
        self.policy = policy
        self.members = list(members)
        self.keys = {user: user for user in USERS}
        """What of each user is hashed."""

    def homes(self, members: Sequence[str]) -> dict[str, str]:
        """From a table that shares no code with the proxy."""
        pairs = sorted((self.fleet[name].key, 1) for name in members)
        home = endpoint_of(self.policy, pairs)
        return {user: self.fleet.names[home(key)] for user, key in self.keys.items()}

    def pod(self, name: str, **conditions: bool) -> float:
        host, _, port = self.fleet[name].key.rpartition(":")
        return self.kube.pod("pods", name, int(port), host=host, **conditions)


def by_annotation(*documents: str) -> Configure:
    """The same by the cluster alone: the Service's annotation."""

    def configure(_: Path, kube: Cluster, __: str) -> Sequence[str]:
        noted = service("pods")
        text = "".join(f"---\n{document}" for document in documents)
        noted["metadata"]["annotations"] = {"getambassador.io/config": text}
        kube.put(SERVICES, noted)
        return []

    return configure


@contextmanager
def running_world(
    folder: Path,
    *names: str,
    members: Sequence[str],
    policy: str = "maglev",
    configure: Configure = by_file,
) -> Iterator[World]:
    """Backends for all `names`; those of `members` are pods already."""
    with ExitStack() as stack:
        kube = stack.enter_context(running_cluster(folder))
        fleet = stack.enter_context(running_backends(*names, kind=pod_kind(len(names))))
        world = World(kube, fleet, policy, members)
        flags = configure(folder, kube, policy)
        for name in members:
            world.pod(name)
        world.proxy = stack.enter_context(running_proxy(*kube_flags(kube), *flags))
        yield world


def moved_only_those_who_had_to(
    load: StickyLoad, since: float, before: Mapping[str, str], after: Mapping[str, str], gone: str
) -> None:
    """Of the calls since: at the home of before or after. Whose home is gone may be anywhere for the

    moment until the table is there, but not there.
    """
    for call in load.since(since):
        here, there = before[call.user], after[call.user]
        if here != gone:
            assert call.backend in {here, there}, call


def add(world: World, load: StickyLoad, coming: str) -> None:
    before = world.homes(world.members)
    world.members = [*world.members, coming]
    after = world.homes(world.members)
    moment = time.perf_counter()
    known = world.pod(coming)
    settled = load.settle(after) - known
    note(f"{coming} added: all users at home after {settled * 1e3:.0f} ms")
    moved_only_those_who_had_to(load, moment, before, after, "")


def take_out(world: World, load: StickyLoad, leaving: str) -> None:
    before = world.homes(world.members)
    world.members = [name for name in world.members if name != leaving]
    after = world.homes(world.members)
    moment = time.perf_counter()
    known = world.pod(leaving, ready=False, serving=True, terminating=True)
    load.settle(after)
    moved_only_those_who_had_to(load, moment, before, after, leaving)
    late = [call.began - known for call in load.since(known) if call.backend == leaving]
    last = max(late, default=0) * 1e3
    note(f"{leaving} removed: its last call began after {last:.1f} ms")
