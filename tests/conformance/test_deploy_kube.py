"""Manifests and definitions on a real kube-apiserver: it takes them, and they give what is asked for.

Opt-in: `./dev conformance kube`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from stickyproxy.config.schema import crds
from support import kube_apiserver, manifests
from support.kubectl import Kubectl, kubeconfig
from support.manifests import CRDS, PLAIN
from support.proxy_process import running_proxy
from support.toolbox import missing

pytestmark = [
    pytest.mark.skipif(
        "kube" not in os.environ.get("CONFORMANCE", ""), reason="opt-in: CONFORMANCE=kube"
    ),
    pytest.mark.timeout(240),
]

ACCOUNT = "system:serviceaccount:default:stickyproxy"
MAPPING = {
    "kind": "Mapping",
    "spec": {
        "prefix": "/qotm/",
        "service": "qotm",
        "host": "qotm.example",
        "only_emissary_knows": {"this": [1, 2]},
        "load_balancer": {"policy": "ring_hash", "cookie": {"name": "sticky", "ttl": "60s"}},
    },
}


@pytest.fixture(scope="module")
def kubectl() -> Iterator[Kubectl]:
    if reason := kube_apiserver.missing() or missing("kubectl"):
        pytest.fail(reason)
    with kube_apiserver.running() as server:
        found = Kubectl(server)
        found("apply", "--server-side", "-f", CRDS)
        found("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        yield found


@pytest.mark.parametrize("folder", manifests.kustomizations(), ids=lambda p: p.name)
def test_a_kustomization_is_taken_strictly(kubectl: Kubectl, folder: Path) -> None:
    told = kubectl("apply", "-k", folder, "--dry-run=server", "--validate=strict")

    assert "created (server dry run)" in told


def test_the_role_gives_the_account_what_the_proxy_does_and_no_more(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", PLAIN)

    def may(verb: str, resource: str, *more: str) -> bool:
        asked = kubectl.tried("auth", "can-i", verb, resource, f"--as={ACCOUNT}", *more)
        return asked.stdout.strip() == "yes"

    for kind in crds.kinds():
        assert may("watch", f"{kind.plural}.{crds.GROUP}")
    for resource in ("services", "endpointslices.discovery.k8s.io", "ingresses.networking.k8s.io"):
        assert may("list", resource)
    assert may("update", "mappings.getambassador.io", "--subresource=status")
    assert not may("update", "mappings.getambassador.io")
    assert not may("list", "secrets")
    assert not may("list", "pods")
    assert not may("list", "services", "--namespace=kube-system")


def test_the_role_is_enough_for_the_proxy_with_the_arguments_of_the_manifest(
    kubectl: Kubectl, tmp_path: Path
) -> None:
    """It becomes ready, routes the demo's annotation, writes a status, and misses no right."""
    kubectl("apply", "-f", PLAIN)
    kubectl("apply", "-k", manifests.KUBERNETES / "demo")
    said = {**MAPPING, "apiVersion": f"{crds.GROUP}/{crds.STORED}", "metadata": {"name": "asked"}}
    kubectl("apply", "-f", "-", given=said)
    token = kubectl("create", "token", "stickyproxy").strip()
    (_, ours), *_ = manifests.objects("Deployment")
    container = manifests.proxy(ours)
    arguments = [one for one in container["args"][1:] if not one.startswith("--health")]
    access = f"--kubeconfig={kubeconfig(kubectl.server, token, tmp_path)}"

    with running_proxy(*arguments, access, environment=manifests.environment(container)) as proxy:
        admin = f"http://127.0.0.1:{proxy.admin_port}"
        proxy.wait_until(lambda: httpx.get(f"{admin}/ready").status_code == 200, 60)
        proxy.wait_until(lambda: "Running" in kubectl("get", "mappings", "asked"), 60)
        routes = httpx.get(f"{admin}/config_dump").json()["routes"]
        told = [one for one in proxy.events if one["level"] != "info"]

    assert "/stickyproxy.demo.Echo/" in {one["match"]["path"] for one in routes}
    assert [one for one in told if one["event"].startswith("kubernetes_")] == [
        one
        for one in told
        if one["event"] == "kubernetes_service"  # there are no controllers
    ]


@pytest.mark.parametrize("version", [crds.STORED, *crds.OLDER])
def test_a_mapping_of_any_version_keeps_every_field_in_all(kubectl: Kubectl, version: str) -> None:
    name = f"of-{version}"
    said = {**MAPPING, "apiVersion": f"{crds.GROUP}/{version}", "metadata": {"name": name}}
    kubectl("apply", "-f", "-", given=said)

    for other in (crds.STORED, *crds.OLDER):
        got = json.loads(kubectl("get", f"mappings.{other}.{crds.GROUP}", name, "-o", "json"))
        assert got["spec"] == MAPPING["spec"]


def test_a_wrong_value_is_refused_with_what_would_be_right(kubectl: Kubectl) -> None:
    wrong = {
        "kind": "Mapping",
        "apiVersion": f"{crds.GROUP}/{crds.STORED}",
        "metadata": {"name": "wrong"},
        "spec": {"prefix": "/", "service": "a", "load_balancer": {"policy": "ring"}},
    }

    refused = kubectl.tried("apply", "-f", "-", given=wrong)

    assert refused.returncode != 0
    assert "spec.load_balancer.policy" in refused.stderr
    assert '"ring_hash"' in refused.stderr


def test_the_status_of_a_mapping_can_be_written_apart(kubectl: Kubectl) -> None:
    said = {
        **MAPPING,
        "apiVersion": f"{crds.GROUP}/{crds.STORED}",
        "metadata": {"name": "with-status"},
    }
    kubectl("apply", "-f", "-", given=said)
    patch = json.dumps({"status": {"state": "Running", "reason": "because"}})
    change = ["--subresource=status", "--type=merge", f"--patch={patch}"]
    kubectl("patch", "mappings.getambassador.io", "with-status", *change)

    shown = kubectl("get", "mappings.getambassador.io", "with-status")
    assert shown.splitlines()[1].split() == ["with-status", "/qotm/", "qotm", "Running", "because"]


def test_fields_explain_themselves(kubectl: Kubectl) -> None:
    told = kubectl("explain", "mapping.spec.load_balancer.cookie")

    assert "ttl" in told
    assert "securityModel" in kubectl("explain", "listener.spec")
