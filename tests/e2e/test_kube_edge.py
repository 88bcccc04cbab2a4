"""Hosts, Listeners and Secrets of a cluster act in the running proxy, and change without a break."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.cluster_objects import mapping_object, resource
from support.edge_clients import ask, context, free_port, plainly, refuses, secured, securely
from support.edge_files import pair
from support.fake_kube_store import HOSTS, MAPPINGS, SECRETS, SERVICES, SLICES, ambassador
from support.grpc_backends import wait_until
from support.http_backends import EchoBackend, echo_backends
from support.kube_cluster import POD_HOST, Cluster, kube_flags, running_cluster
from support.kube_objects import endpoint, service, slice_of
from support.proxy_process import ProxyProcess, running_proxy

pytestmark = pytest.mark.timeout(180)

LISTENERS = ambassador("listeners", "Listener")
CONTEXTS = ambassador("tlscontexts", "TLSContext")


@pytest.fixture
def backend() -> Iterator[EchoBackend]:
    with echo_backends(host=POD_HOST) as [made]:
        yield made


@contextmanager
def running(
    folder: Path, backend: EchoBackend, *flags: str, binds: tuple[str, ...] = ("127.0.0.1:0",)
) -> Iterator[tuple[Cluster, ProxyProcess]]:
    """A cluster with one Service and its Mapping `/web/`, and a proxy in it."""
    with running_cluster(folder, "v3alpha1") as kube:
        kube.put(SERVICES, service("web"))
        pod = endpoint(POD_HOST, pod="web-1")
        kube.put(SLICES, slice_of("web", "web-1", pod, ports=(("", backend.port),)))
        kube.put(MAPPINGS, mapping_object("web", hostname="*"))
        with running_proxy(*kube_flags(kube, *flags), binds=binds) as proxy:
            yield kube, proxy


def put_host(kube: Cluster, name: str, hostname: str, **spec: Any) -> None:
    kube.put(HOSTS, resource("Host", name, {"hostname": hostname, **spec}))


def put_secret(kube: Cluster, name: str, host: str) -> None:
    found = pair(host)
    data = {
        "tls.crt": base64.b64encode(found.chain.encode()).decode(),
        "tls.key": base64.b64encode(found.key.encode()).decode(),
    }
    made = {**resource("Secret", name, None), "apiVersion": "v1"}
    kube.put(SECRETS, {**made, "type": "kubernetes.io/tls", "data": data})


def put_listener(kube: Cluster, name: str, port: int) -> None:
    spec = {
        "port": port,
        "protocol": "HTTPS",
        "securityModel": "XFP",
        "hostBinding": {"namespace": {"from": "ALL"}},
    }
    kube.put(LISTENERS, resource("Listener", name, spec))


def test_a_secret_is_shown_and_its_renewal_breaks_no_connection(
    tmp_path: Path, backend: EchoBackend
) -> None:
    with running(tmp_path, backend) as (kube, proxy):
        put_secret(kube, "shop", "one.example")
        put_host(kube, "shop", "shop.example", tlsSecret={"name": "shop"})
        wait_until(lambda: plainly(proxy.port, "shop.example", "/web/").status == 301, "the Host")
        with secured(proxy.port, "shop.example") as (old, shown):
            assert shown == "one.example"
            assert ask(old, "shop.example", "/web/").status == 200
            put_secret(kube, "shop", "two.example")
            wait_until(
                lambda: securely(proxy.port, "shop.example", "/web/").shown == "two.example",
                "the new certificate",
            )
            assert ask(old, "shop.example", "/web/").status == 200
        kube.delete(HOSTS, "shop")
        wait_until(lambda: plainly(proxy.port, "any.name", "/web/").status == 200, "no Host left")
        body = pair("two.example").key.splitlines()[1]
        assert body not in json.dumps(proxy.events)


def test_a_tls_context_of_the_cluster_says_which_versions_are_spoken(
    tmp_path: Path, backend: EchoBackend
) -> None:
    with running(tmp_path, backend) as (kube, proxy):
        put_secret(kube, "shop", "shop.example")
        put_host(
            kube,
            "shop",
            "shop.example",
            tlsSecret={"name": "shop"},
            tlsContext={"name": "modern"},
        )
        kube.put(CONTEXTS, resource("TLSContext", "modern", {"min_tls_version": "v1.3"}))
        old = context()
        old.maximum_version = ssl.TLSVersion.TLSv1_2

        def refused() -> bool:
            try:
                securely(proxy.port, "shop.example", "/web/", by=old)
            except ssl.SSLError as error:
                return "PROTOCOL_VERSION" in str(error)
            except OSError:
                return False
            return False

        wait_until(refused, "TLS 1.2 is refused")
        assert securely(proxy.port, "shop.example", "/web/").status == 200
        kube.put(CONTEXTS, resource("TLSContext", "modern", {"min_tls_version": "v1.2"}))
        wait_until(lambda: not refused(), "TLS 1.2 is spoken")
        assert securely(proxy.port, "shop.example", "/web/", by=old).status == 200


def test_a_broken_secret_harms_only_its_host(tmp_path: Path, backend: EchoBackend) -> None:
    with running(tmp_path, backend) as (kube, proxy):
        put_secret(kube, "good", "good.example")
        put_host(kube, "good", "good.example", tlsSecret={"name": "good"})
        torn = resource("Secret", "torn", None)
        found = pair("torn.example")
        data = {"tls.crt": found.chain, "tls.key": pair("x").key}
        coded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
        kube.put(SECRETS, {**torn, "apiVersion": "v1", "type": "Opaque", "data": coded})
        put_host(kube, "torn", "torn.example", tlsSecret={"name": "torn"})
        said = proxy.wait_for_event("certificate_refused")["problem"]
        assert said.startswith("Host torn.default: its private key is not that of its certificate")
        wait_until(lambda: plainly(proxy.port, "good.example", "/web/").status == 301, "the Host")
        assert securely(proxy.port, "good.example", "/web/").status == 200
        put_secret(kube, "good", "renewed.example")
        wait_until(
            lambda: securely(proxy.port, "good.example", "/web/").shown == "renewed.example",
            "the new certificate",
        )
        told = [one for one in proxy.events if one["event"] == "certificate_refused"]
        assert len(told) == 1


def test_listeners_of_the_cluster_open_and_close_their_ports(
    tmp_path: Path, backend: EchoBackend
) -> None:
    first, second = free_port(), free_port()
    with running(tmp_path, backend) as (kube, proxy):
        put_listener(kube, "one", first)
        wait_until(lambda: not refuses(first), "the first port")
        assert plainly(first, "any.name", "/web/").status == 200
        put_listener(kube, "one", second)
        wait_until(lambda: not refuses(second), "the second port")
        wait_until(lambda: refuses(first), "the first is closed")
        assert plainly(second, "any.name", "/web/").status == 200
        kube.delete(LISTENERS, "one")
        wait_until(lambda: refuses(second), "the second is closed")
        assert plainly(proxy.port, "any.name", "/web/").status == 200


def test_without_secrets_there_is_no_certificate_but_all_else(
    tmp_path: Path, backend: EchoBackend
) -> None:
    with running(tmp_path, backend, "--kube-secrets", "off") as (kube, proxy):
        put_secret(kube, "shop", "shop.example")
        put_host(kube, "shop", "shop.example", tlsSecret={"name": "shop"})
        wait_until(lambda: plainly(proxy.port, "shop.example", "/web/").status == 301, "the Host")
        warned = proxy.wait_for_event("configuration")["problem"]
        assert "Secret default/shop is not read, --kube-secrets is off" in warned
