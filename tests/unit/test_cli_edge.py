"""`explain` and `check` of Hosts and Listeners, as people at a terminal meet them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stickyproxy.cli import main
from support.edge_files import ca_pem, document, mapping, secret, tls_secret

LISTENING = "protocol: HTTPS\nsecurityModel: XFP\nhostBinding: {namespace: {from: ALL}}\n"
HOSTS = (
    document(
        "Host", "shop", "hostname: shop.example\nmappingSelector: {matchLabels: {team: shop}}\n"
    )
    + document(
        "Host", "open", "hostname: '*.example'\nrequestPolicy: {insecure: {action: Route}}\n"
    )
    + document(
        "Host", "shut", "hostname: shut.example\nrequestPolicy: {insecure: {action: Reject}}\n"
    )
    + mapping("web", "/web/", "web", metadata="labels: {team: shop}")
    + mapping("other", "/other/", "web")
)

Explained = Callable[..., dict[str, object]]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("STICKYPROXY_CONFIG", raising=False)
    return tmp_path / "config.yaml"


@pytest.fixture
def explained(file: Path, capsys: pytest.CaptureFixture[str]) -> Explained:
    def ask(text: str, authority: str, path: str, *flags: str) -> dict[str, object]:
        file.write_text(text)
        request = ("--authority", authority, "--path", path, *flags)
        main(["explain", str(file), "--json", "--service", "web=10.0.0.1:80", *request])
        said = capsys.readouterr()
        assert said.out, said.err
        found: dict[str, object] = json.loads(said.out)
        return found

    return ask


def test_the_host_is_named_and_so_is_what_it_does_with_what_is_not_secure(
    explained: Explained,
) -> None:
    served = explained(HOSTS, "any.example", "/web/")
    assert (served["host"], served["route"]) == ("open", "web")
    sent = explained(HOSTS, "shop.example", "/web/")
    assert (sent["host"], sent["route"]) == ("shop", None)
    assert sent["reason"] == (
        "not secure, and the Host redirects that: 301 to https://shop.example/web/"
    )
    secure = explained(HOSTS, "shop.example", "/web/", "--tls")
    assert (secure["host"], secure["route"]) == ("shop", "web")
    refused = explained(HOSTS, "shut.example", "/web/")
    assert (refused["host"], refused["route"]) == ("shut", None)
    assert str(refused["reason"]).startswith("not secure, and the Host rejects that: 404")


def test_a_mapping_that_the_selector_leaves_out_is_named_with_the_labels_it_lacks(
    explained: Explained,
) -> None:
    found = explained(HOSTS, "shop.example", "/other/", "--tls")
    assert (found["host"], found["route"]) == ("shop", None)
    assert "other has not the labels of the Host's mappingSelector (team=shop)" in str(
        found["reason"]
    )
    assert str(explained(HOSTS, "shop.example", "/none", "--tls")["reason"]).startswith("no route")


def test_a_name_that_no_host_has_is_told(explained: Explained) -> None:
    found = explained(HOSTS, "elsewhere.test", "/web/")
    assert (found["host"], found["route"]) == (None, None)
    assert "no Host has the name elsewhere.test: 404" in str(found["reason"])


def test_a_listener_decides_whom_to_believe_and_which_hosts_there_are(explained: Explained) -> None:
    text = (
        HOSTS
        + document("Listener", "direct", "port: 8443\n" + LISTENING)
        + document("Listener", "behind", "port: 8444\nl7Depth: 1\n" + LISTENING)
    )
    told = ("--header", "x-forwarded-proto: https")
    assert explained(text, "shop.example", "/web/", *told)["route"] is None
    assert explained(text, "shop.example", "/web/", *told, "--port", "8443")["route"] is None
    assert explained(text, "shop.example", "/web/", *told, "--port", "8444")["route"] == "web"


def test_tls_where_there_is_none_and_ports_where_nobody_listens_are_told(
    explained: Explained, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clear = LISTENING.replace("HTTPS", "HTTP")
    text = mapping("web", "/web/", "web") + document("Listener", "l", "port: 8081\n" + clear)
    found = explained(text, "a.test", "/web/", "--tls")
    assert found["reason"] == "Listener l takes no TLS"
    assert main(["explain", str(file), "--path", "/", "--port", "8082"]) == 2
    said = capsys.readouterr().err
    assert "--port: nobody listens on 8082; right would be one of [8080, 8081]" in said


def test_a_handshake_that_asks_for_certificates_is_that_of_its_host(explained: Explained) -> None:
    guarded = (
        tls_secret("pair", "shop.example")
        + secret("ca", ca_crt=ca_pem())
        + document(
            "Host",
            "shop",
            "hostname: shop.example\ntlsSecret: {name: pair}\n"
            "tls: {caSecret: ca, certRequired: true}\n",
        )
        + mapping("web", "/web/", "web")
    )
    assert explained(guarded, "shop.example", "/web/", "--tls")["route"] == "web"


# --- check ----------------------------------------------------------------------------------------


def checked(
    file: Path, capsys: pytest.CaptureFixture[str], text: str, *flags: str
) -> tuple[int, list[str]]:
    file.write_text(text)
    code = main(["check", str(file), *flags])
    return code, capsys.readouterr().out.splitlines()


def test_check_shows_hosts_and_listeners(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        tls_secret("pair", "shop.example")
        + HOSTS.replace("mappingSelector", "tlsSecret: {name: pair}\n  mappingSelector")
        + document("Listener", "https", "port: 8443\nl7Depth: 1\n" + LISTENING)
    )
    code, shown = checked(file, capsys, text)
    rows = [line.split() for line in shown]
    assert code == 0
    assert ["shop", "shop.example", "Redirect", "Host", "shop", "team=shop"] in rows
    assert ["open", "*.example", "Route", "-", "all"] in rows
    assert ["https", "8443", "HTTPS", "XFP", "l7Depth", "1", "open,", "shop,", "shut"] in rows


def test_check_without_them_shows_routes_alone(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, shown = checked(file, capsys, mapping("web", "/web/", "web"))
    assert [line.split()[0] for line in shown] == ["ROUTE", "web", "ok"]


def test_check_of_what_a_cluster_has_warns_of_hosts_too_and_awaits_what_was_not_exported(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    acme = "acmeProvider: {authority: 'https://acme.example'}\n"
    shop = "hostname: shop.example\ntlsSecret: {name: not-exported}\n"
    code, shown = checked(file, capsys, document("Host", "shop", shop + acme), "--kubernetes", "on")
    warnings = [line for line in shown if line.startswith("warning")]
    assert code == 0
    assert len(warnings) == 1
    assert "spec.acmeProvider: has no effect" in warnings[0]
