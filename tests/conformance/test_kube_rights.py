"""The proxy with the rights that we ship, and with one of them missing, on a real kube-apiserver.

Opt-in: `./dev conformance kube`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support import kube_apiserver, manifests
from support.cluster_objects import mapping_object, resource
from support.fake_kube_store import MAPPINGS, MODULES, Kind, ambassador
from support.grpc_backends import wait_until
from support.kubectl import Kubectl, kubeconfig
from support.proxy_process import ProxyProcess, running_proxy
from support.real_kube import RealKube, running_real_kube
from support.toolbox import missing

pytestmark = [
    pytest.mark.skipif(
        "kube" not in os.environ.get("CONFORMANCE", ""), reason="opt-in: CONFORMANCE=kube"
    ),
    pytest.mark.timeout(240),
]

RBAC = "rbac.authorization.k8s.io/v1"
ROLES, BINDINGS = Kind(RBAC, "roles", "Role"), Kind(RBAC, "rolebindings", "RoleBinding")
ACCOUNTS = Kind("v1", "serviceaccounts", "ServiceAccount")
RESOLVERS = ambassador("kubernetesserviceresolvers", "KubernetesServiceResolver")
SOURCE = manifests.KUBERNETES / "rbac"
Object = dict[str, Any]


@pytest.fixture(scope="module")
def kube(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealKube]:
    if reason := kube_apiserver.missing() or missing("kubectl"):
        pytest.fail(reason)
    with running_real_kube(tmp_path_factory.mktemp("kube"), "v3alpha1", "v2", "v1") as made:
        yield made


def shipped(kind: str) -> Object:
    found = [one for path in SOURCE.glob("*.yaml") for one in manifests.documents(path)]
    (wanted,) = (one for one in found if one["kind"] == kind)
    return copy.deepcopy(dict(wanted))


def account(kube: RealKube, name: str, change: Callable[[Object], None] | None = None) -> str:
    """The token of one that is bound to the shipped Role, changed or not, and to nothing else."""
    role, binding = shipped("Role"), shipped("RoleBinding")
    if change is not None:
        change(role)
    for one in (role, binding):
        one["metadata"] = {"name": name, "namespace": "default"}
    binding["roleRef"]["name"] = binding["subjects"][0]["name"] = name
    binding["subjects"][0]["namespace"] = "default"
    kube.put(ROLES, role)
    kube.put(ACCOUNTS, {"metadata": {"name": name, "namespace": "default"}})
    kube.put(BINDINGS, binding)
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    path = f"/api/v1/namespaces/default/serviceaccounts/{name}/token"
    return str(kube.ask("POST", path, asked)["status"]["token"])


def troubles(proxy: ProxyProcess) -> list[str]:
    """What it missed of the API server."""
    told = [one for one in proxy.events if one["event"] in ("kubernetes_away", "kubernetes_status")]
    return [str(one.get("reason") or one.get("problem")) for one in told]


def ready(proxy: ProxyProcess) -> bool:
    return httpx.get(f"http://127.0.0.1:{proxy.admin_port}/ready").status_code == 200


def test_shipped_role_is_enough_and_statuses_show_in_kubectl(
    kube: RealKube, tmp_path: Path
) -> None:
    kubectl = Kubectl(kube.server)
    file = kubeconfig(kube.server, account(kube, "shipped"), tmp_path)
    kube.put(MODULES, resource("Module", "ambassador", {"config": {"server_name": "shop"}}))
    kube.put(RESOLVERS, resource("KubernetesServiceResolver", "direct", {}))
    kube.put(MAPPINGS, mapping_object("shown"))

    def shown() -> list[str]:
        return kubectl("get", "mappings", "shown", "--no-headers").split(maxsplit=4)

    flags = ["--kubernetes", "on", "--kubeconfig", str(file), "--kube-secrets", "off"]
    with running_proxy(*flags) as proxy:
        wait_until(lambda: ready(proxy), "readiness")
        wait_until(lambda: shown()[3:] == ["Running"], "Running")

        contradiction = {"policy": "maglev", "header": "x-user"}  # kube-proxy chooses, not we
        kube.put(MAPPINGS, mapping_object("shown", resolver="direct", load_balancer=contradiction))
        wait_until(lambda: shown()[3:4] == ["Error"], "Error")
        assert "resolver direct leaves them to kube-proxy" in shown()[4]

        kube.put(MAPPINGS, mapping_object("shown", resolver="nowhere"))
        wait_until(lambda: "resolver nowhere is not there" in shown()[-1], "another Error")

        kube.put(MAPPINGS, mapping_object("shown"))
        wait_until(lambda: shown()[3:] == ["Running"], "Running again")
        assert troubles(proxy) == []


@pytest.mark.parametrize(
    ("right", "starts"),
    [
        (("list", "services", ""), False),
        (("list", "endpointslices", "discovery.k8s.io"), False),
        (("watch", "endpointslices", "discovery.k8s.io"), True),
        (("list", "ingresses", "networking.k8s.io"), True),
        (("list", "mappings", "getambassador.io"), False),
        (("list", "hosts", "getambassador.io"), False),
        (("update", "mappings/status", "getambassador.io"), True),
    ],
)
def test_missing_right_is_told_by_verb_and_resource(
    kube: RealKube, tmp_path: Path, right: tuple[str, str, str], starts: bool
) -> None:
    verb, resource_name, group = right

    def without(role: Object) -> None:
        """Of this one resource."""
        (rule,) = (one for one in role["rules"] if resource_name in one["resources"])
        rule["resources"] = [one for one in rule["resources"] if one != resource_name]
        left = [one for one in rule["verbs"] if one != verb]
        role["rules"].append({**rule, "resources": [resource_name], "verbs": left or ["get"]})
        role["rules"] = [one for one in role["rules"] if one["resources"]]

    name = f"no-{verb}-{resource_name}".replace("/", "-")
    file = kubeconfig(kube.server, account(kube, name, without), tmp_path)
    kube.put(MAPPINGS, mapping_object(name, service="qotm"))
    flags = ["--kubernetes", "on", "--kubeconfig", str(file), "--kube-secrets", "off"]
    wanted = f'cannot {verb} resource "{resource_name}" in API group "{group}" in the namespace'
    with running_proxy(*flags) as proxy:
        proxy.wait_until(lambda: any(wanted in one for one in troubles(proxy)))
        assert all(wanted in one for one in troubles(proxy)), "and of nothing else"
        shown = httpx.get(f"http://127.0.0.1:{proxy.admin_port}/config_dump").text
        assert starts or wanted.replace('"', '\\"') in shown
        if starts:
            wait_until(lambda: ready(proxy), "readiness")
        else:
            assert not ready(proxy)
    kube.delete(MAPPINGS, name)


def test_right_that_is_given_later_is_used(kube: RealKube, tmp_path: Path) -> None:
    """Nobody has to restart it."""

    def nothing(role: Object) -> None:
        role["rules"] = []

    file = kubeconfig(kube.server, account(kube, "later", nothing), tmp_path)
    flags = ["--kubernetes", "on", "--kubeconfig", str(file), "--kube-secrets", "off"]
    with running_proxy(*flags) as proxy:
        proxy.wait_until(lambda: bool(troubles(proxy)))
        assert not ready(proxy)
        account(kube, "later")
        wait_until(lambda: ready(proxy), "readiness")
