"""gRPC-Web by clients that are not ours: `buf curl`, and in Chromium a client that Connect's generator made,
grpc's own (text and binary), and Improbable's.

Opt-in: `./dev conformance browser`; what is missing is skipped by name, and `./dev conformance tools` gets
what npm can give.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.browser import find as chromium
from support.browser import page_server, told_by_page
from support.grpc_backends import Fleet, running_backends
from support.http_lab import Authority
from support.proxy_process import ProxyProcess, running_proxy
from support.toolbox import NPM, find, missing, missing_packages

pytestmark = pytest.mark.skipif(
    "browser" not in os.environ.get("CONFORMANCE", ""), reason="opt-in: CONFORMANCE=browser"
)

BROWSER = Path(__file__).parents[1] / "data" / "browser"
SOURCES = BROWSER / "generated"
PROTO = SOURCES / "backend.proto"
CANCELLED, DEADLINE_EXCEEDED, NOT_FOUND, ABORTED, UNIMPLEMENTED = 1, 4, 5, 10, 12
TIMEOUT = 120.0


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with running_backends("one") as fleet:
        yield fleet


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"))


def run(*command: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A program of npm's; the test is skipped where there is none."""
    name = str(command[0])
    if reason := missing(name):
        pytest.skip(reason)
    return subprocess.run(
        [str(find(name)), *command[1:]],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{NPM / 'node_modules' / '.bin'}{os.pathsep}{os.environ['PATH']}",
            "NODE_PATH": str(NPM / "node_modules"),
        },
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def curl(
    proxy: ProxyProcess, method: str, *flags: str, ca: Path | None = None
) -> subprocess.CompletedProcess[str]:
    url = f"http{'s' * (ca is not None)}://{proxy.target}/test.Backend/{method}"
    trust = () if ca is None else ("--cacert", str(ca))
    said = ("--schema", str(PROTO), "-d", '{"text":"hello"}')
    return run("buf", "curl", *said, *trust, *flags, url)


def texts(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Of the messages that it printed."""
    assert done.returncode == 0, done.stderr
    return re.findall(r'"text": "(.*)"', done.stdout)


HTTP2 = ("--http2-prior-knowledge",)


@pytest.mark.parametrize(
    ("protocol", "http"), [("grpcweb", ()), ("grpcweb", HTTP2), ("grpc", HTTP2)]
)
def test_buf_curl_calls_in_the_clear(fleet: Fleet, protocol: str, http: tuple[str, ...]) -> None:
    flags = ["--protocol", protocol, *http]
    with running_proxy(*fleet.flags) as proxy:
        done = curl(proxy, "Echo", *flags)
        assert texts(done) == ["hello"]
        streamed = curl(proxy, "Repeat", *flags, "-H", "x-times: 3")
        assert texts(streamed) == ["hello"] * 3
        refused = curl(proxy, "Missing", *flags)
        assert refused.returncode == 8 * UNIMPLEMENTED
        assert '"unimplemented"' in refused.stderr


def test_buf_curl_calls_over_tls(fleet: Fleet, authority: Authority) -> None:
    with running_proxy(*fleet.flags, *authority.proxy_flags) as proxy:
        done = curl(proxy, "Echo", "--protocol", "grpcweb", ca=authority.ca_file)
        assert texts(done) == ["hello"]
        assert proxy.wait_for_access(1)[0]["protocol"] == "HTTP/2"


def test_what_fails_here_is_told_to_buf_curl_too() -> None:
    with running_backends("one") as fleet:
        flags = fleet.flags
    with running_proxy(*flags) as proxy:
        done = curl(proxy, "Echo", "--protocol", "grpcweb")
        assert '"unavailable"' in done.stderr
        assert "connection refused" in done.stderr


def bundled(folder: Path) -> Path:
    """Its `client.js` with all that it imports, and a page that runs it."""
    if reason := missing_packages():
        pytest.skip(reason)
    (folder / "page.html").write_text('<script type="module" src="/page.js"></script>')
    made = run(
        *("esbuild", "client.js", "--bundle", "--format=esm", "--outfile=page.js"), folder=folder
    )
    assert made.returncode == 0, made.stderr
    return folder


def told(page: Path, fleet: Fleet, authority: Authority, profile: Path) -> dict[str, Any]:
    """What the page found, by way: in the clear and over TLS."""
    browser = chromium()
    if browser is None:
        pytest.skip("no chromium (Debian: apt-get install chromium)")
    with page_server(page) as pages:
        flags = (*fleet.flags, "--cors-origin", pages.origin)
        with (
            running_proxy(*flags) as clear,
            running_proxy(*flags, *authority.proxy_flags) as secure,
        ):
            asked = {"clear": f"http://{clear.target}", "secure": f"https://{secure.target}"}
            found: dict[str, Any] = told_by_page(browser, pages, asked, profile)
    assert "error" not in found, found["error"]
    assert set(found) == set(asked)
    return found


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client, generated and bundled."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "backend.proto").write_text(PROTO.read_text())
    (folder / "client.js").write_text((SOURCES / "client.js").read_text())
    (folder / "buf.gen.yaml").write_text(
        "version: v2\nplugins:\n  - {local: protoc-gen-es, out: gen, opt: target=js}\n"
    )
    made = run("buf", "generate", "backend.proto", folder=folder)
    assert made.returncode == 0, made.stderr
    return bundled(folder)


def test_a_generated_client_calls_from_chromium(
    generated: Path, fleet: Fleet, authority: Authority, tmp_path: Path
) -> None:
    for found in told(generated, fleet, authority, tmp_path).values():
        assert found == {
            "echo": "hello",
            "trailer": "yes",
            "repeated": ["again"] * 3,
            "missing": UNIMPLEMENTED,
            "deadline": DEADLINE_EXCEEDED,
            "cancelled": CANCELLED,
        }


@pytest.fixture(scope="module")
def others(
    fleet: Fleet, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("others")
    (folder / "client.js").write_text((BROWSER / "others" / "client.js").read_text())
    return told(bundled(folder), fleet, authority, tmp_path_factory.mktemp("profile"))


@pytest.mark.parametrize("way", ["clear", "secure"])
@pytest.mark.parametrize("client", ["text", "binary", "fetch", "xhr"])
def test_older_clients_call_from_chromium(others: dict[str, Any], way: str, client: str) -> None:
    found = others[way][client]
    assert found["echo"]["messages"] == ["hello"]
    assert found["echo"]["initial"]["i-more"] == "no"
    assert found["echo"]["trailers"]["t-more"] == "yes"
    assert found["repeated"]["messages"] == ["again"] * 3
    assert (found["failed"]["status"], found["failed"]["details"]) == (NOT_FOUND, "niemand \u2713")
    assert found["failed"]["trailers"]["t-more"] == "yes"
    assert found["missing"]["status"] == UNIMPLEMENTED
    assert (found["late"]["status"], found["late"]["messages"]) == (ABORTED, ["one", "two"])
    assert found["late"]["trailers"]["t-more"] == "yes"
    assert found["deadline"]["status"] == DEADLINE_EXCEEDED
