"""What stands under deploy/, read as data. As a program: make the plain manifest anew."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
CHART = DEPLOY / "helm" / "stickyproxy"
CRDS = DEPLOY / "crds" / "getambassador.io.yaml"
PLAIN = KUBERNETES / "stickyproxy.yaml"
KUSTOMIZATION = "kustomization.yaml"

PLAIN_INTRO = """\
# Made by `just manifests` from deploy/kubernetes/base; change that, not this file.
#
#   kubectl apply -f deploy/kubernetes/stickyproxy.yaml
"""

Object = Mapping[str, Any]


def files() -> list[Path]:
    """All plain YAML: what Helm makes is none before it is rendered."""
    found = [*KUBERNETES.rglob("*.yaml"), *(DEPLOY / "crds").glob("*.yaml")]
    return sorted([*found, CHART / "Chart.yaml", CHART / "values.yaml"])


def kustomizations() -> list[Path]:
    """The folders that can be built, components not among them."""
    found = [path.parent for path in KUBERNETES.rglob(KUSTOMIZATION)]
    return sorted(path for path in found if "components" not in path.parts)


def documents(path: Path) -> list[Object]:
    return [one for one in yaml.safe_load_all(path.read_text()) if one is not None]


def objects(*kinds: str) -> list[tuple[Path, Object]]:
    """All objects of these kinds (all, if none is named), with their files; patches are none."""
    found = []
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        if path == PLAIN or path.name == KUSTOMIZATION or is_patch(path):
            continue
        found += [(path, one) for one in documents(path) if not kinds or one["kind"] in kinds]
    return found


def is_patch(path: Path) -> bool:
    kustomization = path.parent / KUSTOMIZATION
    patches = documents(kustomization)[0].get("patches", ()) if kustomization.exists() else ()
    return any(one.get("path") == path.name for one in patches)


def patches() -> Iterator[Object]:
    """What components and overlays change in a Deployment, as far as it is written as one."""
    for path in sorted(KUBERNETES.rglob(KUSTOMIZATION)):
        for patch in documents(path)[0].get("patches", ()):
            found = yaml.safe_load(patch["patch"]) if "patch" in patch else {}
            if isinstance(found, Mapping) and found.get("kind") == "Deployment":
                yield found


def pod(deployment: Object) -> Object:
    found: Object = deployment["spec"]["template"]["spec"]
    return found


def containers(deployment: Object) -> Sequence[Object]:
    """Those of init too."""
    spec = pod(deployment)
    return [*spec.get("initContainers", ()), *spec["containers"]]


def has_proxy(deployment: Object) -> bool:
    return any(one["name"] == "stickyproxy" for one in containers(deployment))


def proxy(deployment: Object) -> Object:
    """The container that is ours."""
    return next(one for one in containers(deployment) if one["name"] == "stickyproxy")


def environment(container: Object) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container.get("env", ())}


def rules(role: Object) -> dict[tuple[str, str], frozenset[str]]:
    """(API group, resource) to verbs."""
    return {
        (group, resource): frozenset(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def plain(kubectl: Path) -> str:
    """The base as one file, for those who do without kustomize."""
    built = subprocess.run(
        [kubectl, "kustomize", KUBERNETES / "base"], capture_output=True, text=True, check=True
    )
    return PLAIN_INTRO + built.stdout


if __name__ == "__main__":
    PLAIN.write_text(plain(Path("kubectl")))
