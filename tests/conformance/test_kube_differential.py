"""The project's API server against a real kube-apiserver: the same script, the same transcript.

Opt-in: `CONFORMANCE=kube python -m pytest tests/conformance`. What unit tests learn from the fake
holds on the real one only as long as this passes.
"""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import trio

from stickyproxy.control.discovery.kube_client import ApiError, KubeClient
from stickyproxy.control.discovery.kube_server import with_alpn
from support import kube_apiserver
from support.fake_kube import FakeKube
from support.kube_apiserver import ADMIN, NOBODY, ApiServerProcess
from support.kube_entry import GivenAccess
from support.kube_objects import Object, service, slice_of

pytestmark = [
    pytest.mark.skipif(
        "kube" not in os.environ.get("CONFORMANCE", ""), reason="opt-in: CONFORMANCE=kube"
    ),
    pytest.mark.timeout(180),
]

SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
SERVICES = "/api/v1/namespaces/default/services"
SELECTOR = "kubernetes.io/service-name=qotm"
WATCH_SECONDS = 4

Transcript = list[Any]


@dataclass
class Site:
    """One of the two servers. `forget` makes it know no version before now."""

    client: KubeClient
    stranger: KubeClient
    nobody: KubeClient
    forget: Callable[[], Awaitable[None]]

    async def create(self, found: Object) -> Object:
        path = SLICES if "addressType" in found else SERVICES
        answer: Object = await self.client.send("POST", path, body=found)
        return answer

    async def change(self, found: Object) -> Object:
        path = f"{SLICES}/{found['metadata']['name']}"
        answer: Object = await self.client.send("PUT", path, body=found)
        return answer

    async def delete(self, name: str) -> None:
        await self.client.send("DELETE", f"{SLICES}/{name}")

    async def version(self) -> str:
        listed = await self.client.get(SLICES)
        return str(listed["metadata"]["resourceVersion"])

    async def refused(self, client: KubeClient, path: str, **query: str) -> list[Any]:
        """What an answer that is none says, without its numbers."""
        with pytest.raises(ApiError) as refused:
            await client.get(path, query)
        error = refused.value
        large = "Too large resource version" in error.message
        return [error.status, error.reason, error.retry_after, large]

    async def watch(self, **query: str) -> Transcript:
        """All events until the server ends the watch."""
        wish = {"watch": "true", "timeoutSeconds": str(WATCH_SECONDS), **query}
        async with self.client.request("GET", SLICES, wish) as answer:
            body = await answer.body()
        assert body.endswith(b"\n") or not body
        return told([msgspec.json.decode(line) for line in body.splitlines()])


def told(events: list[Any]) -> Transcript:
    """What matters of events; of versions only whether each is newer than the one before."""
    found, last = [], 0
    for event in events:
        thing = event["object"]
        if event["type"] == "ERROR":
            message = re.sub(r"\d+", "N", thing["message"])
            found.append(["ERROR", thing["kind"], thing["code"], thing["reason"], message])
            continue
        version = int(thing["metadata"]["resourceVersion"])
        addresses = [one["addresses"] for one in thing["endpoints"] or ()]
        name, newer = thing["metadata"]["name"], version > last
        found.append([event["type"], thing["kind"], thing["apiVersion"], name, addresses, newer])
        last = version
    return found


# --- the script ---


async def objects(site: Site) -> Transcript:
    await site.create(service("qotm"))
    for name in ("a", "b", "empty"):
        addresses = [] if name == "empty" else [f"10.0.0.{ord(name)}"]
        await site.create(
            slice_of("qotm", name, *addresses, ports=() if not addresses else (("", 1),))
        )
    listed = await site.client.get(SLICES, {"labelSelector": SELECTOR})
    keys = sorted(listed) + sorted(listed["items"][0])
    empty = next(one for one in listed["items"] if one["metadata"]["name"] == "empty")
    names = [one["metadata"]["name"] for one in listed["items"]]
    absent = await site.client.get(SLICES, {"labelSelector": "no=thing"})
    return [keys, names, listed["kind"], empty["endpoints"], empty["ports"], absent["items"]]


async def refusals(site: Site) -> Transcript:
    found: Transcript = [
        await site.refused(site.stranger, SLICES),
        (await site.refused(site.nobody, SLICES))[:2],
        (await site.refused(site.client, f"{SLICES}/none"))[:2],
        (await site.refused(site.client, "/apis/none.example/v1/things"))[:1],
        await site.refused(site.client, SLICES, resourceVersion="999999999"),
    ]
    with pytest.raises(ApiError) as twice:
        await site.create(slice_of("qotm", "a", "10.0.0.1"))
    found.append([twice.value.status, twice.value.reason])
    stale = await site.client.get(f"{SLICES}/a")
    await site.change(stale | {"endpoints": [{"addresses": ["10.0.0.97"]}]})
    with pytest.raises(ApiError) as conflict:
        await site.change(stale | {"endpoints": [{"addresses": ["10.0.0.98"]}]})
    return [*found, [conflict.value.status, conflict.value.reason]]


async def pages(site: Site) -> Transcript:
    found: Transcript = []
    first = await site.client.get(SLICES, {"limit": "2", "labelSelector": SELECTOR})
    await site.create(slice_of("qotm", "zz", "10.0.0.9"))
    token = first["metadata"]["continue"]
    query = {"limit": "2", "labelSelector": SELECTOR, "continue": token}
    second = await site.client.get(SLICES, query)
    for page in (first, second):
        found.append([one["metadata"]["name"] for one in page["items"]])
        found.append("continue" in page["metadata"])
    versions = {page["metadata"]["resourceVersion"] for page in (first, second)}
    cached = await site.client.get(SLICES, {"limit": "1", "resourceVersion": "0"})
    await site.delete("zz")
    return [*found, len(versions), len(cached["items"]) > 1]


async def watching(site: Site) -> Transcript:
    """Changes under three watches: all, by label, and from the future."""
    version = await site.version()
    heard: dict[str, Transcript] = {}

    async def listen(name: str, **query: str) -> None:
        heard[name] = await site.watch(**query)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: listen("all", resourceVersion=version))
        nursery.start_soon(
            lambda: listen("labelled", resourceVersion=version, labelSelector=SELECTOR)
        )
        nursery.start_soon(lambda: listen("future", resourceVersion="999999999"))
        c = await site.create(slice_of("qotm", "c", "10.0.0.3"))
        c["metadata"]["labels"]["kubernetes.io/service-name"] = "other"
        c = await site.change(c)
        c["metadata"]["labels"]["kubernetes.io/service-name"] = "qotm"
        c["endpoints"].append({"addresses": ["10.0.0.4"]})
        await site.change(c)
        await site.delete("c")
    again = await site.watch(resourceVersion=version, labelSelector=SELECTOR)
    # Without a version a real server on an old etcd (3.4) answers 504 in the stream; we always say one.
    fresh = sorted(await site.watch(labelSelector=SELECTOR, resourceVersion="0"))
    return [heard["all"], heard["labelled"], heard["future"], again, [one[:5] for one in fresh]]


async def expiry(site: Site) -> Transcript:
    version = await site.version()
    await site.create(slice_of("qotm", "d", "10.0.0.5"))
    await site.delete("d")
    await site.forget()
    return await site.watch(resourceVersion=version)


SCRIPT = [objects, refusals, pages, watching, expiry]


# --- the two ---


@pytest.fixture(scope="module")
def real() -> Iterator[ApiServerProcess]:
    if reason := kube_apiserver.missing():
        pytest.fail(reason)
    with kube_apiserver.running() as server:
        yield server


@asynccontextmanager
async def site_of(
    port: int, tls: ssl.SSLContext | None, forget: Callable[[], Awaitable[None]]
) -> AsyncIterator[Site]:
    def client(token: str) -> KubeClient:
        return KubeClient(GivenAccess(token, port=port, tls=tls))

    site = Site(client(ADMIN), client("wrong"), client(NOBODY), forget)
    async with trio.open_nursery() as nursery:
        for one in (site.client, site.stranger, site.nobody):
            await nursery.start(one.run)
        yield site
        nursery.cancel_scope.cancel()


async def run_script(site: Site) -> dict[str, Transcript]:
    return {part.__name__: await part(site) for part in SCRIPT}


async def of_the_fake() -> dict[str, Transcript]:
    fake = FakeKube()
    fake.tokens = {ADMIN, NOBODY}
    fake.unprivileged = {NOBODY}

    async def forget() -> None:
        await trio.lowlevel.checkpoint()
        fake.store.compact()

    async with fake.running(), site_of(await fake.listen(), None, forget) as site:
        return await run_script(site)


async def of_the_real(server: ApiServerProcess) -> dict[str, Transcript]:
    async def forget() -> None:
        """A restarted server's cache begins with now."""

        def restart() -> None:
            server.kill()
            server.start()

        await trio.to_thread.run_sync(restart)

    tls = with_alpn(ssl.create_default_context(cafile=str(server.ca)))
    async with site_of(server.port, tls, forget) as site:
        return await run_script(site)


async def test_fake_and_real_api_server_tell_the_same(real: ApiServerProcess) -> None:
    fake = await of_the_fake()
    told_by_real = await of_the_real(real)
    for part, transcript in told_by_real.items():
        assert json.dumps(fake[part], indent=1) == json.dumps(transcript, indent=1), part
