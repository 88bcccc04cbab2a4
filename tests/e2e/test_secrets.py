"""What a real process with real keys and a token shows on its pages, in its logs and by its commands."""

from __future__ import annotations

import base64
import re
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from support.edge_clients import context, free_port, secured
from support.edge_files import ca_pem, document, mapping, pair, secret
from support.http_backends import echo_backends
from support.http_lab import Authority
from support.proxy_process import ProxyProcess, command, running_proxy

TOKEN = "t0ken-that-is-shown-to-nobody"
ADDED = "s3cret-for-the-backend"
QUERIES = ("", "?format=json")


def pages(proxy: ProxyProcess) -> list[str]:
    """Every path that /help tells, and those it does not tell."""
    told = re.findall(r"^  (/\S*)", get(proxy, "/help"), re.MULTILINE)
    assert len(told) > 10
    return [
        *told,
        "/",
        "/live",
        "/certs",
        "/secrets",
        "/runtime",
        "/quitquitquit",
        "/../etc/passwd",
    ]


def get(proxy: ProxyProcess, path: str) -> str:
    url = f"http://127.0.0.1:{proxy.admin_port}{path}"
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            if "event-stream" in answer.headers.get("content-type", ""):
                return str(answer.readline().decode())
            return str(answer.read().decode(errors="replace"))
    except urllib.error.HTTPError as error:
        return str(error.read().decode(errors="replace"))


def written(folder: Path, web: str, port: int) -> tuple[Path, list[str]]:
    """A configuration with all that is secret, and the secrets in every form they might leak in."""
    found = pair("a.test")
    key_lines = [line for line in found.key.splitlines() if "-----" not in line]
    whole = base64.b64encode(found.key.encode()).decode()
    spec = f"prefix: /\nservice: http://{web}\nadd_request_headers: {{x-api-key: {ADDED}}}\n"
    config = folder / "edge.yaml"
    config.write_text(
        secret("a", tls_crt=found.chain, tls_key=found.key)
        + secret("ca", ca_crt=ca_pem())
        + document("TLSContext", "c", "ca_secret: ca\n")
        + document("Host", "a", "hostname: a.test\ntlsSecret: {name: a}\ntlsContext: {name: c}\n")
        + document(
            "Listener",
            "l",
            f"port: {port}\nprotocol: HTTPS\nsecurityModel: XFP\n"
            "hostBinding: {namespace: {from: ALL}}\n",
        )
        + document("Mapping", "m", "hostname: '*'\n" + spec)
    )
    return config, [TOKEN, ADDED, *key_lines, whole[40:120]]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_page_no_log_and_no_command_shows_a_secret_and_no_get_changes_anything(
    tmp_path: Path, workers: str
) -> None:
    port = free_port()
    authority = Authority.make(tmp_path / "authority")
    with echo_backends() as [web]:
        config, secrets = written(tmp_path, web.address, port)
        own_key = [
            line for line in authority.key_file.read_text().splitlines() if "----" not in line
        ]
        secrets += own_key
        flags = (str(config), *authority.proxy_flags, "--workers", workers)
        environment = {"STICKYPROXY_ADMIN_TOKEN": TOKEN}
        with running_proxy(*flags, environment=environment) as proxy:
            with secured(port, "a.test", context(None, tmp_path)) as (client, _):
                client.send(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
                assert client.read_response()[0] == 200
            assert dict(web.requests[-1]["headers"])["x-api-key"] == ADDED, "they are in use"

            before = get(proxy, "/config_dump"), get(proxy, "/ready")
            shown = {path + q: get(proxy, path + q) for path in pages(proxy) for q in QUERIES}
            assert (get(proxy, "/config_dump"), get(proxy, "/ready")) == before
            assert proxy.process.poll() is None
            proxy.wait_for_access(1)
            shown["log"] = f"{proxy.events}{proxy.access}"
    for name, arguments in (("check", ("check",)), ("print", ("run", "--print-config"))):
        done = subprocess.run(
            command(arguments[0], str(config), *authority.proxy_flags, *arguments[1:]),
            capture_output=True,
            text=True,
            check=True,
        )
        shown[name] = done.stdout + done.stderr
    assert [(place, one) for place, text in shown.items() for one in secrets if one in text] == []


def test_a_configuration_that_is_refused_shows_no_secret_in_its_complaint(tmp_path: Path) -> None:
    config, secrets = written(tmp_path, "127.0.0.1:9", free_port())
    text = config.read_text()
    broken = [
        text.replace("tls.key: ", "tls.key: x"),
        text.replace("x-api-key: ", "x-api-key: [").replace("}\n", "]}\n", 1),
        text.replace("add_request_headers: {", "add_request_headers: {'x y': "),
        mapping("m", "/", "http://a") + text.replace("hostname: a.test", "hostname: 5"),
    ]
    for number, bad in enumerate(broken):
        config.write_text(bad)
        done = subprocess.run(
            command("check", str(config)), capture_output=True, text=True, check=False
        )
        said = done.stdout + done.stderr
        assert "edge.yaml" in said, number
        assert [one for one in secrets if one in said] == [], number
