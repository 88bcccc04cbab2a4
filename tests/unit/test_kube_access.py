"""Who we are to the API server: a Pod's files, or a kubeconfig by the official package."""

# ruff: noqa: ARG001 - pytest-trio takes its clock from the arguments of a test

from __future__ import annotations

import json
import ssl
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from trio.testing import MockClock

from stickyproxy.control.discovery.kube_access import (
    TOKEN_AGE,
    InClusterAccess,
    find_access,
    in_cluster,
)
from stickyproxy.control.discovery.kube_server import AccessError

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A service account as the kubelet mounts it."""
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "namespace").write_text("prod")
    (tmp_path / "ca.crt").write_bytes(trustme.CA().cert_pem.bytes())
    return tmp_path


async def test_pod_knows_its_server_its_namespace_and_itself(
    folder: Path, autojump_clock: MockClock
) -> None:
    access = in_cluster(POD, folder)
    server = await access.server()
    assert (server.host, server.port, server.name) == ("10.96.0.1", 443, "10.96.0.1")
    assert server.authority == "10.96.0.1:443"
    assert server.tls is not None
    assert server.tls.verify_mode is ssl.CERT_REQUIRED
    assert access.namespace == "prod"
    assert await access.authorization() == "Bearer first"


async def test_rotated_token_is_read_after_a_minute_or_when_refused(
    folder: Path, autojump_clock: MockClock
) -> None:
    access = in_cluster(POD, folder)
    await access.authorization()
    (folder / "token").write_text("second")
    assert await access.authorization() == "Bearer first"
    await trio.sleep(TOKEN_AGE)
    assert await access.authorization() == "Bearer second"
    (folder / "token").write_text("third")
    assert await access.authorization(renew=True) == "Bearer third"


async def test_token_that_is_being_replaced_is_not_forgotten(
    folder: Path, autojump_clock: MockClock
) -> None:
    access = in_cluster(POD, folder)
    (folder / "token").unlink()
    assert await access.authorization(renew=True) == "Bearer first"


async def test_new_ca_is_taken_and_the_same_one_is_not_read_into_a_new_context(
    folder: Path, autojump_clock: MockClock
) -> None:
    access = in_cluster(POD, folder)
    first = (await access.server()).tls
    assert (await access.server()).tls is first
    (folder / "ca.crt").write_bytes(trustme.CA().cert_pem.bytes())
    assert (await access.server()).tls is not first


async def test_ipv6_server_has_brackets_where_they_belong(folder: Path) -> None:
    host = {"KUBERNETES_SERVICE_HOST": "fd00::1"}
    server = await in_cluster({**POD, **host}, folder).server()
    assert (server.host, server.authority) == ("fd00::1", "[fd00::1]:443")


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "this is no Pod"),
        ({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, "this is no Pod"),
        ({**POD, "KUBERNETES_SERVICE_PORT": "tcp://x"}, "is no port; right would be 443"),
    ],
)
def test_environment_of_no_pod_is_told(folder: Path, environ: dict[str, str], said: str) -> None:
    with pytest.raises(AccessError, match=said):
        in_cluster(environ, folder)


async def test_files_that_are_missing_or_wrong_are_told_by_name(folder: Path) -> None:
    (folder / "ca.crt").write_text("no pem")
    with pytest.raises(AccessError, match=r"ca\.crt: no usable PEM"):
        await in_cluster(POD, folder).server()
    (folder / "namespace").unlink()
    assert in_cluster(POD, folder).namespace == "default"
    (folder / "token").write_text("")
    with pytest.raises(AccessError, match="token: is empty"):
        InClusterAccess("h", 1, folder)
    (folder / "token").unlink()
    with pytest.raises(AccessError, match="token: no such file"):
        InClusterAccess("h", 1, folder)


# --- kubeconfig ---


def kubeconfig(folder: Path, user: dict[str, Any], **cluster: Any) -> Path:
    authority = folder / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(authority))
    given = {"server": "https://api.example:6443/base", "certificate-authority": str(authority)}
    file = folder / "config.json"  # JSON is YAML
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "clusters": [{"name": "c", "cluster": given | cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [
            {"name": "one", "context": {"cluster": "c", "user": "u", "namespace": "prod"}},
            {"name": "two", "context": {"cluster": "c", "user": "u"}},
        ],
    }
    file.write_text(json.dumps(document))
    return file


async def test_kubeconfig_says_server_token_and_namespace_of_its_context(tmp_path: Path) -> None:
    file = kubeconfig(tmp_path, {"token": "secret"})
    access = await find_access({}, file)
    server = await access.server()
    assert (server.host, server.port, server.prefix) == ("api.example", 6443, "/base")
    assert server.tls is not None
    assert await access.authorization() == "Bearer secret"
    assert access.namespace == "prod"
    assert (await find_access({}, file, "two")).namespace == "default"


async def test_kubeconfig_wins_over_the_pod_when_it_is_named(tmp_path: Path) -> None:
    access = await find_access(POD, kubeconfig(tmp_path, {"token": "secret"}))
    assert (await access.server()).host == "api.example"


async def test_exec_plugin_is_asked_again_after_a_refusal(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    counter = tmp_path / "count"
    plugin.write_text(
        f"""#!{sys.executable}
import json, pathlib
file = pathlib.Path({str(counter)!r})
count = int(file.read_text()) + 1 if file.exists() else 1
file.write_text(str(count))
status = {{"token": "t%d" % count}}
kind = "client.authentication.k8s.io/v1"
print(json.dumps({{"apiVersion": kind, "kind": "ExecCredential", "status": status}}))
"""
    )
    plugin.chmod(stat.S_IRWXU)
    wanted = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(plugin),
        "interactiveMode": "Never",
    }
    access = await find_access({}, kubeconfig(tmp_path, {"exec": wanted}))
    assert await access.authorization() == "Bearer t1"
    assert await access.authorization(renew=True) == "Bearer t2"


async def test_client_certificate_is_loaded_and_plain_http_needs_none(tmp_path: Path) -> None:
    leaf = trustme.CA().issue_cert("me")
    cert, key = tmp_path / "me.crt", tmp_path / "me.key"
    leaf.cert_chain_pems[0].write_to_path(str(cert))
    leaf.private_key_pem.write_to_path(str(key))
    user = {"client-certificate": str(cert), "client-key": str(key)}
    access = await find_access({}, kubeconfig(tmp_path, user))
    assert (await access.server()).tls is not None
    assert await access.authorization() is None
    plain = await find_access({}, kubeconfig(tmp_path, {}, server="http://127.0.0.1:8001"))
    assert (await plain.server())[:3] == ("127.0.0.1", 8001, None)


@pytest.mark.parametrize("context", [None, "three"])
async def test_kubeconfig_that_is_wrong_is_told(tmp_path: Path, context: str | None) -> None:
    file = kubeconfig(tmp_path, {}) if context else tmp_path / "none"
    with pytest.raises(AccessError, match="kubeconfig"):
        await find_access({}, file, context)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clusters: [", "is not YAML"),
        ("hello", "is no kubeconfig"),
        ("- a", "is no kubeconfig"),
        ("{current-context: x, contexts: 5, clusters: [], users: []}", "is no kubeconfig"),
        ("\x00", "is not YAML"),
    ],
)
async def test_file_that_is_no_kubeconfig_is_told_by_name(
    tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(AccessError) as caught:
        await find_access({}, file)
    assert str(caught.value).startswith(f"kubeconfig: {file}")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("server", ["https://h:99999", "ftp://h", "https://"])
async def test_server_that_is_no_url_is_told(tmp_path: Path, server: str) -> None:
    with pytest.raises(AccessError, match="is no URL of a server"):
        await find_access({}, kubeconfig(tmp_path, {"token": "t"}, server=server))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, "No such file"),
        ("#!/bin/sh\nexit 3", "returned 3"),
        ("#!/bin/sh\necho hello", "failed to decode"),
    ],
)
async def test_exec_plugin_that_fails_is_told(
    tmp_path: Path, script: str | None, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    plugin = tmp_path / "plugin"
    if script is not None:
        plugin.write_text(script)
        plugin.chmod(stat.S_IRWXU)
    wanted = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(plugin),
        "interactiveMode": "Never",
    }
    with pytest.raises(AccessError, match=f"kubeconfig: .*{said}"):
        await find_access({}, kubeconfig(tmp_path, {"exec": wanted}))
    assert capfd.readouterr().err == ""
