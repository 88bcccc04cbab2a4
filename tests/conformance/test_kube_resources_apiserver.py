"""Ambassador's resources and their status on a real kube-apiserver, with the definitions that we ship.

Opt-in: `CONFORMANCE=kube python -m pytest tests/conformance`.
"""

from __future__ import annotations

import copy
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml

from stickyproxy.control.discovery import kube_resources
from stickyproxy.control.discovery.kube_client import ApiError, KubeClient
from stickyproxy.control.discovery.kube_resources import KubeResources
from stickyproxy.control.discovery.kube_server import with_alpn
from stickyproxy.control.discovery.kube_status import StatusWriter, Subject, Wish
from support import kube_apiserver
from support.cluster_objects import annotated, mapping_object
from support.kube_apiserver import ADMIN, NOBODY, ApiServerProcess
from support.kube_entry import GivenAccess
from support.kube_objects import service

pytestmark = [
    pytest.mark.skipif(
        "kube" not in os.environ.get("CONFORMANCE", ""), reason="opt-in: CONFORMANCE=kube"
    ),
    pytest.mark.timeout(240),
]

CRDS = Path(__file__).parents[2] / "deploy" / "crds" / "getambassador.io.yaml"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MAPPINGS = "/apis/getambassador.io/{}/namespaces/default/mappings"
PATIENCE = 90.0


@pytest.fixture(scope="module")
def real() -> Iterator[ApiServerProcess]:
    if reason := kube_apiserver.missing():
        pytest.fail(reason)
    with kube_apiserver.running() as server:
        yield server


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody wants to wait for half a minute to see that a definition is noticed."""
    monkeypatch.setattr(kube_resources, "ASK_AGAIN", 1.0)


class World:
    def __init__(self, server: ApiServerProcess, token: str = ADMIN) -> None:
        self.server = server
        self.admin = self.client(ADMIN)
        self.own = self.client(token)
        self.resources = KubeResources(self.own, "default")
        self.writer = StatusWriter(self.own, self.resources)

    def client(self, token: str) -> KubeClient:
        tls = with_alpn(ssl.create_default_context(cafile=str(self.server.ca)))
        return KubeClient(GivenAccess(token, port=self.server.port, tls=tls))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[World]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.admin.run)
            await nursery.start(self.own.run)
            await nursery.start(self.resources.run)
            nursery.start_soon(self.writer.run)
            yield self
            nursery.cancel_scope.cancel()

    async def until(self, holds: Callable[[], Any]) -> None:
        with trio.fail_after(PATIENCE):
            while not holds():  # noqa: ASYNC110 - another process is at work
                await trio.sleep(0.05)

    async def define(self, change: Callable[[Any], None] | None = None) -> None:
        """Our definitions, new or in place of those that are there."""
        for found in yaml.safe_load_all(CRDS.read_text()):
            if change is not None and found["spec"]["names"]["plural"] == "mappings":
                change(found)
            await self._apply(found)

    async def _apply(self, found: Any) -> None:
        name = found["metadata"]["name"]
        try:
            await self.admin.send("POST", DEFINITIONS, body=found)
        except ApiError as error:
            if error.status != 409:
                raise
            known = await self.admin.get(f"{DEFINITIONS}/{name}")
            fresh = {**copy.deepcopy(known), "spec": found["spec"]}
            await self.admin.send("PUT", f"{DEFINITIONS}/{name}", body=fresh)

    async def create(self, name: str, version: str = "v3alpha1", **spec: Any) -> Subject:
        body = mapping_object(name, version=version, **spec)
        body["metadata"] = {"name": name}
        path = MAPPINGS.format(version)
        with trio.fail_after(PATIENCE):
            while True:
                try:
                    made = await self.admin.send("POST", path, body=body)
                except ApiError as error:  # not established yet
                    if error.status not in (404, 500, 503):
                        raise
                    await trio.sleep(0.2)
                else:
                    return Subject("Mapping", "default", name, made["metadata"]["uid"])

    async def found(self, name: str) -> Any:
        return await self.admin.get(f"{MAPPINGS.format('v3alpha1')}/{name}")

    async def until_status(self, name: str, wanted: dict[str, str]) -> Any:
        with trio.fail_after(PATIENCE):
            while True:
                found = await self.found(name)
                said = found.get("status") or {}
                if {key: said.get(key, "") for key in wanted} == wanted:
                    return found
                await trio.sleep(0.1)

    def names(self) -> set[str]:
        return {found["metadata"]["name"] for found in self.resources.objects()}


async def test_definitions_come_later_and_every_version_is_read_and_written_to(
    real: ApiServerProcess,
) -> None:
    async with World(real).running() as world:
        with trio.fail_after(PATIENCE):
            await world.resources.wait_settled()
        assert world.names() == set()

        await world.define()
        first = await world.create("first")
        second = await world.create("second", version="v2", host="a.example.com")
        await world.until(lambda: world.names() == {"first", "second"})
        assert {one["kind"] for one in world.resources.objects()} == {"Mapping"}

        before = await world.found("first")
        world.writer.wish({first: Wish("Error", "spec.x: wrong"), second: Wish("Running", "")})
        after = await world.until_status("first", {"state": "Error", "reason": "spec.x: wrong"})
        await world.until_status("second", {"state": "Running"})
        assert after["spec"] == before["spec"]
        assert after["metadata"]["generation"] == before["metadata"]["generation"]
        assert world.writer.problem == ""


async def test_emissarys_definition_refuses_error_and_takes_inactive(
    real: ApiServerProcess,
) -> None:
    def narrow(found: Any) -> None:
        for version in found["spec"]["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            state = {"type": "string", "enum": ["", "Inactive", "Running"]}
            reason = {"type": "string"}
            schema.setdefault("properties", {})["status"] = {
                "type": "object",
                "properties": {"state": state, "reason": reason},
            }

    async with World(real).running() as world:
        await world.define(narrow)
        subject = await world.create("narrow")
        await world.until(lambda: "narrow" in world.names())
        world.writer.wish({subject: Wish("Error", "why")})
        await world.until_status("narrow", {"state": "Inactive", "reason": "why"})


async def test_annotation_is_seen_and_a_status_of_ours_is_no_change(
    real: ApiServerProcess,
) -> None:
    async with World(real).running() as world:
        await world.define()
        subject = await world.create("quiet")
        noted = service("noted")
        noted["metadata"]["annotations"] = annotated("x", "kind: Mapping\n")["metadata"][
            "annotations"
        ]
        await world.admin.send("POST", "/api/v1/namespaces/default/services", body=noted)
        await world.until(lambda: {"quiet", "noted"} <= world.names())
        before = {id(one) for one in world.resources.objects()}
        world.writer.wish({subject: Wish("Running", "")})
        await world.until_status("quiet", {"state": "Running"})

        def live() -> Any:
            return (world.resources.live(*subject[:3]) or {}).get("status")

        await world.until(live)
        assert {id(one) for one in world.resources.objects()} == before


async def test_who_may_nothing_is_told_which_verb_on_which_resource(
    real: ApiServerProcess,
) -> None:
    async with World(real, NOBODY).running() as world:
        await world.define()
        states = world.resources.states

        def refused() -> bool:
            return any("mappings" in path and s.refused for path, s in states().items())

        await world.until(refused)
        (problem,) = (s.problem for path, s in states().items() if "mappings" in path)
        assert 'cannot list resource "mappings" in API group "getambassador.io"' in problem
        assert 'in the namespace "default"' in problem
        assert not world.resources.settled
