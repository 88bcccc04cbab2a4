"""The whole proxy configured by the cluster alone: annotations, Mappings, their status."""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.cluster_objects import annotated, mapping_object
from support.exposed import Exposed
from support.fake_kube_store import MAPPINGS, SERVICES, SLICES, Object
from support.grpc_backends import SERVICE, Fleet, Kind, connected, running_backends, wait_until
from support.http_backends import EchoBackend, echo_backends
from support.http_clients import curl
from support.kube_cluster import POD_HOST, Cluster, kube_flags, running_cluster
from support.kube_objects import endpoint, service, slice_of
from support.proxy_process import ProxyProcess, running_proxy
from support.written import DATA

pytestmark = pytest.mark.timeout(180)

USERS = [f"user-{number}" for number in range(80)]
STICKY = {"policy": "maglev", "header": "x-user"}


class World:
    """A cluster, and a proxy that knows nothing but the cluster."""

    def __init__(self, kube: Cluster, proxy: ProxyProcess) -> None:
        self.kube = kube
        self.proxy = proxy

    def mapping(self, name: str, **given: Any) -> None:
        self.kube.put(MAPPINGS, mapping_object(name, **given))

    def status(self, name: str) -> Any:
        return self.kube.get(MAPPINGS, name).get("status") or {}

    def wait_for_state(self, name: str, state: str) -> str:
        """The reason that stands beside it."""
        wait_until(lambda: self.status(name).get("state") == state, f"{name} {state}")
        return str(self.status(name).get("reason"))

    def answer(self, path: str) -> int:
        return curl(f"http://127.0.0.1:{self.proxy.port}{path}").status

    def wait_for_answer(self, path: str, status: int) -> None:
        wait_until(lambda: self.answer(path) == status, f"{status} for {path}")

    def ready(self) -> bool:
        return curl(f"http://127.0.0.1:{self.proxy.admin_port}/ready").status == 200

    def page(self, name: str) -> Any:
        url = f"http://127.0.0.1:{self.proxy.admin_port}/{name}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def running_world(
    folder: Path, *flags: str, versions: tuple[str, ...] = ("v3alpha1",), before: Any = ()
) -> Iterator[World]:
    """`before` are (kind, object) that are there before the proxy starts."""
    with ExitStack() as stack:
        kube = stack.enter_context(running_cluster(folder, *versions))
        for kind, found in before:
            kube.put(kind, found)
        proxy = stack.enter_context(running_proxy(*kube_flags(kube, *flags)))
        yield World(kube, proxy)


def pods_of(name: str, *ports: int, namespace: str = "default") -> list[tuple[Any, Object]]:
    """A Service of port 80 and a slice for each of its pods, which are local servers."""
    found: list[tuple[Any, Object]] = [(SERVICES, service(name, namespace=namespace))]
    for port in ports:
        pod = endpoint(POD_HOST, pod=f"{name}-{port}")
        made = slice_of(name, f"{name}-{port}", pod, ports=(("", port),), namespace=namespace)
        found.append((SLICES, made))
    return found


@pytest.fixture
def backend() -> Iterator[EchoBackend]:
    with echo_backends(host=POD_HOST) as (made,):
        yield made


# --- annotations ----------------------------------------------------------------------------------


def test_annotation_of_the_article_on_a_service_routes_traffic(
    tmp_path: Path, backend: EchoBackend
) -> None:
    text = (DATA / "service_annotation.yaml").read_text().partition("|\n")[2].partition("spec:")[0]
    noted = service("qotm", namespace="shop")
    noted["metadata"]["annotations"] = annotated("qotm", text)["metadata"]["annotations"]
    before = [*pods_of("qotm", backend.port, namespace="shop"), (SERVICES, noted)]
    with running_world(tmp_path, "--kube-namespace", "all", versions=(), before=before) as world:
        answer = curl(f"http://127.0.0.1:{world.proxy.port}/qotm/hello")

        assert answer.status == 200
        assert answer.json()["target"] == "/hello"
        assert world.answer("/elsewhere") == 404
        warnings = [line["problem"] for line in world.proxy.events if "problem" in line]
        assert any("unknown_key: is unknown and has no effect" in one for one in warnings)


def test_annotation_that_comes_changes_and_goes(tmp_path: Path, backend: EchoBackend) -> None:
    with running_world(tmp_path, before=pods_of("qotm", backend.port), versions=()) as world:
        assert world.answer("/a/") == 404

        noted = service("qotm")
        text = "kind: Mapping\nname: a\nprefix: {}\nservice: qotm\n"
        for prefix, other in (("/a/", "/b/"), ("/b/", "/a/")):
            noted["metadata"]["annotations"] = {"getambassador.io/config": text.format(prefix)}
            world.kube.put(SERVICES, noted)
            world.wait_for_answer(prefix, 200)
            assert world.answer(other) == 404

        world.kube.put(SERVICES, service("qotm"))
        world.wait_for_answer("/b/", 404)


# --- Mappings and their status --------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v2", "v3alpha1"])
def test_mapping_is_served_in_whatever_version_it_is_installed(
    tmp_path: Path, backend: EchoBackend, version: str
) -> None:
    kind = MAPPINGS._replace(group=f"getambassador.io/{version}")
    before = [*pods_of("qotm", backend.port), (kind, mapping_object(version=version))]
    with running_world(tmp_path, versions=(version,), before=before) as world:
        assert world.answer("/qotm/") == 200


def test_broken_update_keeps_serving_and_its_status_says_why(
    tmp_path: Path, backend: EchoBackend
) -> None:
    before = [*pods_of("qotm", backend.port), (MAPPINGS, mapping_object())]
    with running_world(tmp_path, before=before) as world:
        assert world.wait_for_state("qotm", "Running") == ""

        world.mapping("qotm", resolver="nowhere")  # what no definition of a resource can refuse
        reason = world.wait_for_state("qotm", "Error")
        assert reason.startswith("spec.resolver: resolver nowhere is not there")
        assert world.answer("/qotm/") == 200

        (shown,) = world.page("config_dump")["objects"]
        assert (shown["name"], shown["state"]) == ("default/qotm", "Error")
        assert (shown["serves"], shown["served_generation"]) == ("last good", 1)
        assert shown["generation"] == 2
        told = world.proxy.wait_for_event("configuration_refused")
        assert told["problem"] == f"Mapping default/qotm: {reason}"
        states = Exposed(world.proxy).by("state", "stickyproxy_config_objects", kind="Mapping")
        assert states == {"error": 1}

        world.mapping("qotm", prefix="/mended/")
        assert world.wait_for_state("qotm", "Running") == ""
        assert (world.answer("/mended/"), world.answer("/qotm/")) == (200, 404)
        assert world.page("config_dump")["objects"] == []


def test_broken_mapping_without_a_past_is_503_and_harms_nobody(
    tmp_path: Path, backend: EchoBackend
) -> None:
    before = [
        *pods_of("qotm", backend.port),
        (MAPPINGS, mapping_object("all", prefix="/", service="qotm")),
        (MAPPINGS, mapping_object("broken", prefix="/broken/", resolver="nowhere")),
    ]
    with running_world(tmp_path, before=before) as world:
        assert world.answer("/anything") == 200
        assert world.answer("/broken/x") == 503
        world.wait_for_state("broken", "Error")
        world.wait_for_state("all", "Running")

        world.mapping("broken", prefix="/broken/", service="qotm")
        world.wait_for_answer("/broken/x", 200)


def test_deleted_and_made_again(tmp_path: Path, backend: EchoBackend) -> None:
    before = [*pods_of("qotm", backend.port), (MAPPINGS, mapping_object())]
    with running_world(tmp_path, before=before) as world:
        assert world.answer("/qotm/") == 200
        world.kube.delete(MAPPINGS, "qotm")
        world.wait_for_answer("/qotm/", 404)

        world.mapping("qotm")
        world.wait_for_answer("/qotm/", 200)
        world.wait_for_state("qotm", "Running")


def test_file_and_cluster_are_one_configuration_and_reload_apart(
    tmp_path: Path, backend: EchoBackend
) -> None:
    file = tmp_path / "mappings.yaml"
    text = "apiVersion: ambassador/v1\nkind: Mapping\nname: f\nprefix: {}\nservice: qotm\n"
    file.write_text(text.format("/file/"))
    before = [*pods_of("qotm", backend.port), (MAPPINGS, mapping_object())]
    with running_world(tmp_path, str(file), before=before) as world:
        assert (world.answer("/file/"), world.answer("/qotm/")) == (200, 200)

        file.write_text(text.format("/moved/"))
        world.proxy.signal(signal.SIGHUP)
        world.wait_for_answer("/moved/", 200)
        assert (world.answer("/file/"), world.answer("/qotm/")) == (404, 200)

        world.kube.delete(MAPPINGS, "qotm")
        world.wait_for_answer("/qotm/", 404)
        assert world.answer("/moved/") == 200

        file.write_text("kind: [")
        world.proxy.signal(signal.SIGHUP)
        world.proxy.wait_for_event("reload_refused")
        world.mapping("qotm")
        world.wait_for_answer("/qotm/", 200)
        assert world.answer("/moved/") == 200


def test_api_server_that_is_away_at_the_start_leaves_files_to_act_and_to_reload(
    tmp_path: Path, backend: EchoBackend
) -> None:
    file = tmp_path / "mappings.yaml"
    text = "apiVersion: ambassador/v1\nkind: Mapping\nname: f\nprefix: {}\nservice: {}\n"
    file.write_text(text.format("/file/", backend.address))
    with running_cluster(tmp_path, "v3alpha1") as kube:
        for kind, found in pods_of("qotm", backend.port):
            kube.put(kind, found)
        kube.put(MAPPINGS, mapping_object())
        kube.kill()
        with running_proxy(*kube_flags(kube), str(file)) as proxy:
            world = World(kube, proxy)
            assert world.answer("/file/") == 200
            assert not world.ready()
            file.write_text(text.format("/moved/", backend.address))
            proxy.signal(signal.SIGHUP)
            world.wait_for_answer("/moved/", 200)

            kube.start()
            wait_until(world.ready, "readiness")
            assert (world.answer("/moved/"), world.answer("/qotm/")) == (200, 200)


# --- canary ---------------------------------------------------------------------------------------


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    names = ["main-1", "main-2", "canary-1", "canary-2"]
    with running_backends(*names, kind=Kind(host=POD_HOST)) as made:
        yield made


def test_weighted_canary_keeps_a_user_on_one_side(tmp_path: Path, fleet: Fleet) -> None:
    common = {"prefix": f"/{SERVICE}/", "grpc": True}
    before = [
        *pods_of("main", fleet["main-1"].port, fleet["main-2"].port),
        *pods_of("canary", fleet["canary-1"].port, fleet["canary-2"].port),
        (MAPPINGS, mapping_object("main", load_balancer=STICKY, **common)),
        (MAPPINGS, mapping_object("canary", weight=30, created=5, load_balancer=STICKY, **common)),
    ]
    with (
        running_world(tmp_path, before=before) as world,
        connected(world.proxy.target) as client,
    ):

        def homes() -> dict[str, str]:
            return {user: client.backend_of((("x-user", user),)) for user in USERS}

        first = homes()
        assert all(homes() == first for _ in range(3))
        on_canary = {user for user, home in first.items() if home.startswith("canary")}
        assert 5 < len(on_canary) < 50

        world.mapping("canary", weight=60, created=5, load_balancer=STICKY, **common)
        wait_until(lambda: homes() != first, "a larger canary")
        second = homes()
        moved_there = {user for user, home in second.items() if home.startswith("canary")}
        assert on_canary < moved_there, "nobody leaves the canary because it grows"
        assert all(homes() == second for _ in range(3))
