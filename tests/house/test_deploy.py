"""What is under deploy/ agrees with itself and with the code; no cluster is asked.

`./dev conformance deploy` and `./dev conformance image` ask the tools, `./dev conformance kube` a real API
server.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from stickyproxy.cli import main
from stickyproxy.cli.arguments import flags_of, parse
from stickyproxy.cli.settings import read_settings
from stickyproxy.config.cluster.objects import decode_object
from stickyproxy.config.process.layers import OPTIONS
from stickyproxy.config.process.settings import ProcessSettings
from stickyproxy.config.schema import crds
from stickyproxy.control.admin.app import PROBES
from stickyproxy.control.cluster import WRITTEN_KINDS
from stickyproxy.control.discovery.kube_resources import GROUP_KINDS, INGRESSES, SERVICES
from support import manifests
from support.manifests import CHART, DEPLOY, KUBERNETES, ROOT, Object
from support.toolbox import find

ALL_DEPLOYMENTS = manifests.objects("Deployment")
DEPLOYMENTS = [(path, one) for path, one in ALL_DEPLOYMENTS if manifests.has_proxy(one)]
NAMES = [str(path.relative_to(KUBERNETES)) for path, _ in DEPLOYMENTS]
every_deployment = pytest.mark.parametrize("deployment", [o for _, o in DEPLOYMENTS], ids=NAMES)

DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def settings_of(container: Object) -> ProcessSettings:
    """What the container's arguments and variables mean to the real command line."""
    command, *arguments = container["args"]
    options = parse(command, arguments)
    return read_settings([], flags_of(options), manifests.environment(container)).process


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", manifests.files(), ids=lambda p: str(p.relative_to(DEPLOY)))
def test_every_manifest_parses(path: Path) -> None:
    assert all(isinstance(one, dict) for one in manifests.documents(path))


@pytest.mark.parametrize("path", sorted(KUBERNETES.rglob("kustomization.yaml")), ids=str)
def test_a_kustomization_names_every_file_beside_it_and_nothing_else(path: Path) -> None:
    found = manifests.documents(path)[0]
    named = [*found.get("resources", ()), *found.get("components", ())]
    named += [one["path"] for one in found.get("patches", ()) if "path" in one]

    assert [name for name in named if not (path.parent / name).exists()] == []
    assert {one.name for one in path.parent.glob("*.yaml")} - {path.name} <= set(named)


def test_the_definitions_are_made_from_the_schema_as_it_is() -> None:
    assert manifests.CRDS.read_text() == crds.definitions(), "make it anew: ./dev manifests"


def test_the_plain_manifest_is_the_base_as_it_is() -> None:
    kubectl = find("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl")

    assert yaml_of(manifests.plain(kubectl)) == yaml_of(manifests.PLAIN.read_text())


def yaml_of(text: str) -> list[object]:
    """What it says: versions of kustomize lay it out differently."""
    return list(yaml.safe_load_all(text))


# --- arguments ------------------------------------------------------------------------------------


@every_deployment
def test_arguments_and_variables_are_what_the_command_takes(deployment: Object) -> None:
    assert settings_of(manifests.proxy(deployment)).kubernetes


@pytest.mark.parametrize("patch", list(manifests.patches()))
def test_variables_of_components_are_options(patch: Object) -> None:
    names = manifests.environment(manifests.proxy(patch))

    assert {variable_of(name) for name in OPTIONS} >= names.keys()


def variable_of(option: str) -> str:
    return f"STICKYPROXY_{option.replace('-', '_').upper()}"


def test_flags_of_the_chart_and_the_image_exist() -> None:
    template = (CHART / "templates" / "deployment.yaml").read_text()
    flags = re.findall(r"- --([a-z-]+)=", template)
    variables = re.findall(r"\b(STICKYPROXY_\w+)=", DOCKERFILE)

    assert set(flags) <= set(OPTIONS)
    assert set(variables) <= {variable_of(name) for name in OPTIONS}
    assert {"kubernetes", "health"} <= set(flags)


@every_deployment
def test_the_hook_before_the_end_is_a_command(deployment: Object) -> None:
    hook = manifests.proxy(deployment).get("lifecycle", {}).get("preStop")
    if hook is not None:
        program, command, *arguments = hook["exec"]["command"]
        assert program == "stickyproxy"
        parse(command, arguments)


@every_deployment
def test_the_drain_fits_into_the_time_that_a_pod_gets(deployment: Object) -> None:
    given = manifests.pod(deployment)["terminationGracePeriodSeconds"]

    assert settings_of(manifests.proxy(deployment)).drain_timeout < given


# --- ports ----------------------------------------------------------------------------------------


@every_deployment
def test_ports_that_are_named_are_ports_that_are_opened(deployment: Object) -> None:
    container = manifests.proxy(deployment)
    process = settings_of(container)
    named = {one["name"]: one["containerPort"] for one in container["ports"]}

    assert process.health is not None
    assert named["health"] == process.health.port
    if "traffic" in named:
        assert named["traffic"] == process.binds[0].port
    else:  # a sidecar is for its own pod
        assert process.binds[0].host == "127.0.0.1"


@every_deployment
def test_probes_ask_pages_that_the_health_port_has(deployment: Object) -> None:
    container = manifests.proxy(deployment)
    probes = [container[name]["httpGet"] for name in container if name.endswith("Probe")]

    assert {probe["port"] for probe in probes} == {"health"}
    assert {probe["path"] for probe in probes} <= PROBES
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"


def services() -> list[Object]:
    """Those of the proxy."""
    found = [one for _, one in manifests.objects("Service")]
    return [one for one in found if one["metadata"]["name"].startswith("stickyproxy")]


def test_services_and_policies_name_ports_of_the_pod() -> None:
    base = next(o for _, o in DEPLOYMENTS if o["metadata"]["name"] == "stickyproxy")
    named = {one["name"] for one in manifests.proxy(base)["ports"]}
    asked = [port["targetPort"] for one in services() for port in one["spec"]["ports"]]
    asked += [
        port["port"]
        for _, one in manifests.objects("NetworkPolicy")
        for rule in one["spec"]["ingress"]
        for port in rule["ports"]
    ]

    assert set(asked) == named | {8443}  # where a Listener for TLS is


def test_the_monitor_finds_the_port_and_the_labels_of_its_service() -> None:
    ((_, monitor),) = manifests.objects("ServiceMonitor")
    found = [
        one["spec"]["ports"]
        for one in services()
        if monitor["spec"]["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()
    ]

    assert [[port["name"] for port in ports] for ports in found] == [["health"]]
    assert monitor["spec"]["endpoints"][0]["port"] == "health"


def test_whatever_selects_pods_selects_those_of_the_deployment() -> None:
    base = next(o for _, o in DEPLOYMENTS if o["metadata"]["name"] == "stickyproxy")
    labels = base["spec"]["template"]["metadata"]["labels"].items()
    selectors = [one["spec"]["selector"] for one in services()]
    selectors += [
        one["spec"]["selector"]["matchLabels"]
        for _, one in manifests.objects("PodDisruptionBudget", "Deployment")
        if one["metadata"]["name"] == "stickyproxy"
    ]
    selectors += [
        one["spec"]["podSelector"]["matchLabels"] for _, one in manifests.objects("NetworkPolicy")
    ]
    selectors += [
        one["labelSelector"]["matchLabels"]
        for one in manifests.pod(base)["topologySpreadConstraints"]
    ]

    assert len(selectors) >= 6
    assert [one for one in selectors if not one.items() <= labels] == []


def test_the_demo_is_served_where_it_listens() -> None:
    """The Mapping of its annotation loads without a warning, and names the Service's own port."""
    (echo,) = [o for _, o in manifests.objects("Service") if o["metadata"]["name"] == "echo"]
    decoded = decode_object(echo, "default")
    (mapping,) = decoded.resources.mappings
    (port,) = echo["spec"]["ports"]

    assert (decoded.report.problems, decoded.report.warnings) == ([], [])
    assert mapping.spec.service == f"echo:{port['port']}"


def test_the_documents_of_the_page_load_without_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    ours = [block for block in blocks if "getambassador.io" in block]
    file = tmp_path / "page.yaml"
    file.write_text("---\n".join(ours))

    assert main(["check", str(file), "--kubernetes", "on"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "ok"
    assert len(ours) >= 2


# --- rights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("deployment", [o for _, o in ALL_DEPLOYMENTS])
def test_every_container_has_no_more_rights_than_it_needs(deployment: Object) -> None:
    whole = manifests.pod(deployment)["securityContext"]
    assert whole["runAsNonRoot"]
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in manifests.containers(deployment):
        own = {**whole, **container["securityContext"]}
        assert own["readOnlyRootFilesystem"]
        assert not own["allowPrivilegeEscalation"]
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]
    if manifests.has_proxy(deployment):
        own = {**whole, **manifests.proxy(deployment)["securityContext"]}
        assert own["runAsUser"] == 65532


def test_a_role_for_one_namespace_and_one_for_all_give_the_same() -> None:
    roles = {one["metadata"]["name"]: one for _, one in manifests.objects("Role")}
    ((_, cluster_role),) = manifests.objects("ClusterRole")
    chart = (CHART / "templates" / "rbac.yaml").read_text()
    written = chart.partition("rules:\n")[2].partition("  {{- if .Values.watch.secrets }}")[0]

    assert roles["stickyproxy"]["rules"] == cluster_role["rules"]
    assert yaml.safe_load(written) == cluster_role["rules"]


def test_secrets_are_in_a_role_of_their_own() -> None:
    roles = {one["metadata"]["name"]: manifests.rules(one) for _, one in manifests.objects("Role")}

    assert ("", "secrets") not in roles["stickyproxy"]
    assert roles["stickyproxy-secrets"] == {("", "secrets"): frozenset(("get", "list", "watch"))}


def test_no_role_has_a_wildcard_or_writes_more_than_a_status() -> None:
    for _, role in manifests.objects("Role", "ClusterRole"):
        for (group, resource), verbs in manifests.rules(role).items():
            assert "*" not in {group, resource, *verbs}
            if not resource.endswith("/status"):
                assert verbs == {"get", "list", "watch"}


def test_bindings_bind_the_role_beside_them_to_the_account() -> None:
    ((_, account),) = manifests.objects("ServiceAccount")
    for path, binding in manifests.objects("RoleBinding", "ClusterRoleBinding"):
        roles = [o for p, o in manifests.objects("Role", "ClusterRole") if p == path]
        wanted = [(one["kind"], one["metadata"]["name"]) for one in roles]
        assert [(binding["roleRef"]["kind"], binding["roleRef"]["name"])] == wanted
        assert [one["name"] for one in binding["subjects"]] == [account["metadata"]["name"]]


def group_of(api_version: str) -> str:
    return api_version.rpartition("/")[0]


def test_the_role_covers_what_is_watched_and_written_and_no_more() -> None:
    """Endpoints are for clusters before 1.21, which have no EndpointSlices: there one adds them."""
    role = next(o for _, o in manifests.objects("Role") if o["metadata"]["name"] == "stickyproxy")
    watched = {(group_of(one.api_version), one.plural) for one in (SERVICES, INGRESSES)}
    watched |= {("discovery.k8s.io", "endpointslices")}
    watched |= {(crds.GROUP, plural) for plural in GROUP_KINDS}
    plurals = {kind: plural for plural, kind in GROUP_KINDS.items()}
    written = {
        (crds.GROUP, f"{plurals[kind]}/status"): frozenset(("update",)) for kind in WRITTEN_KINDS
    }

    rules = manifests.rules(role)

    assert rules == dict.fromkeys(watched, frozenset(("get", "list", "watch"))) | written


def test_whatever_is_watched_in_our_group_is_defined_but_consul() -> None:
    defined = {kind.plural: kind.name for kind in crds.kinds()}

    assert defined == {p: k for p, k in GROUP_KINDS.items() if k != "ConsulResolver"}


# --- image ----------------------------------------------------------------------------------------


def instructions(name: str) -> list[str]:
    """The arguments of every such instruction, continuation lines joined."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.partition(" ")[2].strip() for line in joined.splitlines() if line.startswith(name)]


def test_the_image_runs_as_nobody_from_nothing_without_a_shell() -> None:
    assert instructions("FROM")[-1] == "scratch"
    assert instructions("USER") == ["65532:65532"]
    assert instructions("ENTRYPOINT") == ['["stickyproxy"]']


def test_what_the_image_exposes_is_what_the_proxy_opens() -> None:
    default = ProcessSettings()
    assert default.admin is not None
    ports = {default.binds[0].port, default.admin.port, 8443, 8081}

    assert {int(port) for port in instructions("EXPOSE")[0].split()} == ports
    assert "STICKYPROXY_HEALTH=0.0.0.0:8081" in DOCKERFILE


def test_what_the_build_copies_is_there_and_not_ignored() -> None:
    copied = [
        source
        for line in instructions("COPY")
        if not line.startswith("--from")
        for source in line.split()[:-1]
    ]
    allowed = [
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]

    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert [s for s in copied if not any(Path(s).is_relative_to(a) for a in allowed)] == []


def test_nothing_names_a_registry() -> None:
    images = [c["image"] for _, one in ALL_DEPLOYMENTS for c in manifests.containers(one)]
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    images += [values["image"]["repository"], *(line.split()[0] for line in instructions("FROM"))]

    assert [image for image in images if "/" in image] == []
