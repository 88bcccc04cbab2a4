"""Hosts, Listeners, TLSContexts and Secrets of a cluster, where each stands alone."""

from __future__ import annotations

import base64
from typing import Any

from stickyproxy.config.cluster.status import CURRENT, ERROR, LAST_GOOD, RUNNING
from stickyproxy.edge import REDIRECT, ROUTE, Guard
from support.cluster_objects import Cluster, Object, cluster_named, mapping_object, resource
from support.edge_files import ca_pem, pair

ROUTED = {"insecure": {"action": "Route"}}


def secret_object(name: str, namespace: str = "default", **data: str) -> Object:
    coded = {
        key.replace("_", "."): base64.b64encode(text.encode()).decode()
        for key, text in data.items()
    }
    found = resource("Secret", name, None, namespace=namespace)
    return {**found, "apiVersion": "v1", "type": "kubernetes.io/tls", "data": coded}


def certificate(name: str, host: str, namespace: str = "default") -> Object:
    found = pair(host)
    return secret_object(name, namespace, tls_crt=found.chain, tls_key=found.key)


def host(name: str, namespace: str = "default", **spec: Any) -> Object:
    return resource("Host", name, spec, namespace=namespace)


def listener(name: str, port: Any = 8443, **spec: Any) -> Object:
    given = {"port": port, "protocol": "HTTPS", "securityModel": "XFP", **spec}
    return resource("Listener", name, {"hostBinding": {"namespace": {"from": "ALL"}}, **given})


def names(cluster: Cluster) -> list[str]:
    return [rule.name for rule in cluster.now.settings.front.hosts or ()]


def test_a_host_finds_the_secret_of_its_own_namespace() -> None:
    cluster = Cluster(
        host("a", "web", hostname="a.example", tlsSecret={"name": "shop"}),
        certificate("shop", "other.example", "elsewhere"),
        certificate("shop", "a.example", "web"),
    )
    (tls,) = cluster.now.settings.front.tls
    assert tls.name == "Host a.web"
    assert bytes(tls.chain).decode() == pair("a.example").chain
    assert not tls.strict, "broken it would harm others"


def test_a_secret_that_comes_later_or_changes_is_taken() -> None:
    wanting = host("a", hostname="a.example", tlsSecret={"name": "shop"})
    cluster = Cluster(wanting)
    assert not cluster.now.settings.front.tls
    assert any(
        "Secret default/shop is not there" in line for line in cluster.status("a", "Host").warnings
    )
    cluster.put(certificate("shop", "one.example"))
    (first,) = cluster.now.settings.front.tls
    cluster.put(certificate("shop", "two.example"))
    (second,) = cluster.now.settings.front.tls
    assert bytes(first.chain).decode() == pair("one.example").chain
    assert bytes(second.chain).decode() == pair("two.example").chain
    assert cluster.status("a", "Host").state == RUNNING


def test_a_secret_that_is_not_there_leaves_its_host_as_strict_as_it_was() -> None:
    """Else its name would fall to a wider Host, which may serve what is not secure."""
    cluster = Cluster(
        host("a", hostname="a.example", tlsSecret={"name": "gone"}, requestPolicy={}),
        host("all", requestPolicy=ROUTED),
    )
    rules = {rule.hostname: rule.insecure for rule in cluster.now.settings.front.hosts or ()}
    assert rules == {"a.example": REDIRECT, "*": ROUTE}


def test_a_missing_ca_closes_the_door() -> None:
    tls = {"caSecret": "ca", "certRequired": True}
    cluster = Cluster(
        host("a", hostname="a.example", tlsSecret={"name": "shop"}, tls=tls),
        certificate("shop", "a.example"),
    )
    front = cluster.now.settings.front
    assert front.tls == ()
    assert front.guards == (Guard("a.example", "Host a.default"),)
    cluster.put(secret_object("ca", ca_crt=ca_pem()))
    (shown,) = cluster.now.settings.front.tls
    assert shown.client_required


def test_a_broken_host_keeps_its_last_good_version_and_harms_no_other() -> None:
    cluster = Cluster(host("a", hostname="a.example", requestPolicy=ROUTED), host("b"))
    assert names(cluster) == ["Host a.default", "Host b.default"]
    cluster.put(host("a", hostname="a.*.example", requestPolicy=ROUTED))
    assert names(cluster) == ["Host a.default", "Host b.default"]
    status = cluster.status("a", "Host")
    assert (status.state, status.serves) == (ERROR, LAST_GOOD)
    assert "has a * in a wrong place" in status.reason
    assert cluster.status("b", "Host").serves == CURRENT


def test_a_broken_listener_harms_no_other() -> None:
    cluster = Cluster(
        listener("good"), listener("bad", "eighty"), listener("udp", 1, protocol="UDP")
    )
    (found,) = cluster.now.settings.front.listeners
    assert (found.name, found.port) == ("Listener good.default", 8443)
    assert cluster.status("bad", "Listener").state == ERROR
    assert "UDP is not served" in cluster.status("udp", "Listener").reason


def test_a_mapping_of_an_unknown_context_is_answered_503_until_the_context_comes() -> None:
    cluster = Cluster(mapping_object("qotm", service="https://qotm", tls="up"))
    assert "TLSContext up is not there" in cluster.status("qotm").reason
    cluster.put(
        resource("TLSContext", "up", {"ca_secret": "ca", "sni": "real.example"}),
        secret_object("ca", ca_crt=ca_pem()),
    )
    (target,) = cluster.route("qotm").targets
    tls = cluster_named(cluster.now, target.cluster).tls
    assert tls is not None
    assert tls.verify
    assert tls.server_name == "real.example"
    cluster.delete("ca", "Secret")
    assert cluster.status("qotm").state == ERROR
    (target,) = cluster.route("qotm").targets
    kept = cluster_named(cluster.now, target.cluster).tls
    assert kept == tls, "it is never spoken to unverified"


def test_statuses_and_problems_have_nothing_of_a_secret() -> None:
    torn = secret_object("shop", tls_crt="hidden-hidden", tls_key=pair("a.example").key)
    cluster = Cluster(host("a", tlsSecret={"name": "shop"}), torn)
    told = repr(cluster.now) + repr(cluster.memory)
    assert "tls.crt holds no CERTIFICATE in PEM" in told
    body = pair("a.example").key.splitlines()[1]
    coded = torn["data"]["tls.key"]
    assert "hidden-hidden" not in told
    assert body not in told
    assert coded[:40] not in told
