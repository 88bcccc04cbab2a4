"""Objects of a cluster as the API server's JSON has them, and what becomes of them."""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from stickyproxy.config.cluster.load import combine
from stickyproxy.config.cluster.status import Combined, Memory, Status
from stickyproxy.config.load import Files, load
from stickyproxy.model import ClusterSpec, Route

Object = dict[str, Any]

GROUP = "getambassador.io"
KUBERNETES = {"kubernetes": ["on"]}


def resource(
    kind: str,
    name: str,
    spec: Mapping[str, Any] | None,
    *,
    namespace: str = "default",
    version: str = "v3alpha1",
    created: int = 0,
    generation: int = 1,
    uid: str = "",
) -> Object:
    """A custom resource. `created` is its age in seconds of one fixed minute."""
    found: Object = {
        "apiVersion": f"{GROUP}/{version}",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid or f"uid-{kind}-{namespace}-{name}",
            "creationTimestamp": f"2026-01-01T00:00:{created:02}Z",
            "generation": generation,
        },
    }
    return found if spec is None else {**found, "spec": dict(spec)}


def mapping_object(name: str = "qotm", **given: Any) -> Object:
    """A Mapping of `/NAME/` to the service NAME; what `resource` takes goes there."""
    about = {
        key: given.pop(key)
        for key in ("namespace", "version", "created", "generation", "uid")
        if key in given
    }
    spec = {"prefix": f"/{name}/", "service": name, **given}
    return resource("Mapping", name, {k: v for k, v in spec.items() if v is not None}, **about)


def annotated(
    name: str, text: str, *, kind: str = "Service", namespace: str = "default", created: int = 0
) -> Object:
    """A Service (or Ingress) with Ambassador's documents in its annotation."""
    found = resource(kind, name, None, namespace=namespace, created=created)
    found["apiVersion"] = "v1" if kind == "Service" else "networking.k8s.io/v1"
    found["metadata"]["annotations"] = {"getambassador.io/config": textwrap.dedent(text)}
    return found


def files(
    *paths: Any,
    flags: Mapping[str, list[str]] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Files:
    """What is said besides the cluster: that there is one."""
    found = load(list(paths), {**KUBERNETES, **(flags or {})}, environ).files
    if found is None:
        raise ValueError("no files")
    return found


class Cluster:
    """Objects by name, loaded again after each change as a process would."""

    def __init__(self, *objects: Object, beside: Files | None = None) -> None:
        self.beside = beside or files()
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.memory = Memory()
        self.put(*objects)

    def put(self, *objects: Object) -> Combined:
        for found in objects:
            metadata = found["metadata"]
            key = found["kind"], metadata["namespace"], metadata["name"]
            self.objects[key] = copy.deepcopy(found)
        return self.load()

    def delete(self, name: str, kind: str = "Mapping", namespace: str = "default") -> Combined:
        del self.objects[kind, namespace, name]
        return self.load()

    def load(self) -> Combined:
        self.now = combine(self.beside, self.objects.values(), self.memory)
        self.memory = self.now.memory
        return self.now

    def restarted(self) -> Combined:
        """What a replica says that has no memory."""
        return combine(self.beside, self.objects.values(), Memory())

    # --- what is asked of it ---

    def status(self, name: str, kind: str = "Mapping") -> Status:
        (found,) = (s for s in self.now.statuses if (s.key.kind, s.key.name) == (kind, name))
        return found

    def route(self, name: str) -> Route:
        (found,) = (one for one in self.now.settings.routes if one.name == name)
        return found

    def routes(self) -> set[str]:
        return {one.name for one in self.now.settings.routes}

    def cluster(self, name: str) -> ClusterSpec:
        """Of a route's only target."""
        (target,) = self.route(name).targets
        return cluster_named(self.now, target.cluster)

    def shares(self, name: str) -> dict[str, float]:
        """Percent by target of the route that this Mapping is a target of."""
        (found,) = (
            one for one in self.now.settings.routes if name in {t.name for t in one.targets}
        )
        return {target.name: target.weight for target in found.targets}


def cluster_named(combined: Combined, name: str) -> ClusterSpec:
    (found,) = (spec for spec in combined.settings.clusters if spec.name == name)
    return found


def is_unserved(combined: Combined, route: Route) -> bool:
    """Whether it answers 503 because its cluster is not there."""
    known = {spec.name for spec in combined.settings.clusters}
    return all(target.cluster not in known for target in route.targets)


def reasons(combined: Combined) -> Iterable[str]:
    return [status.reason for status in combined.statuses if status.reason]
