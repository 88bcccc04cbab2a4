"""One proxy between every kind of client and every kind of HTTP backend, for end-to-end tests.

The backend speaks HTTP/1.1, in cleartext and over TLS. For HTTP/2 backends a second proxy stands in
front of it: the only h2 server at hand that takes plain HTTP.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from support.http_backends import EchoBackend, echo_backends
from support.http_clients import h2_request, raw_h2_client
from support.proxy_process import ProxyProcess, running_proxy

UPSTREAMS = ("http", "https", "h2c", "h2")
DOWNSTREAMS = ("h1", "h2c", "h1-tls", "h2-tls")

PATIENT = "timeout_ms: 30000\n"
"""For Mappings: the default of 3 s is soon over where the machine is busy."""

_CURL_FLAGS = {
    "h1": ["--http1.1"],
    "h2c": ["--http2-prior-knowledge"],
    "h1-tls": ["--http1.1"],
    "h2-tls": ["--http2"],
}


@dataclass(frozen=True)
class Authority:
    """A certificate authority, and what it issued for 127.0.0.1 and localhost."""

    ca_file: Path
    cert_file: Path
    key_file: Path

    @classmethod
    def make(cls, folder: Path, *names: str) -> Authority:
        folder.mkdir(exist_ok=True)
        ca = trustme.CA()
        issued = ca.issue_cert(*(names or ("127.0.0.1", "localhost")))
        made = cls(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
        ca.cert_pem.write_to_path(made.ca_file)
        issued.private_key_pem.write_to_path(made.key_file)
        for blob in issued.cert_chain_pems:
            blob.write_to_path(made.cert_file, append=True)
        return made

    def server_context(self, *alpn: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.cert_file, self.key_file)
        if alpn:
            context.set_alpn_protocols(alpn)
        return context

    def client_context(self, *alpn: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if alpn:
            context.set_alpn_protocols(alpn)
        return context

    @property
    def proxy_flags(self) -> tuple[str, ...]:
        return ("--tls-cert", str(self.cert_file), "--tls-key", str(self.key_file))


@dataclass(frozen=True)
class Lab:
    """Two proxies with the same Mappings: `clear` (HTTP/1.1 and HTTP/2 on one port) and `secure`.

    The path `/NAME/` leads to the upstream of that name.
    """

    clear: ProxyProcess
    secure: ProxyProcess
    backend: EchoBackend
    secure_backend: EchoBackend
    authority: Authority

    def url(self, downstream: str, upstream: str, path: str = "") -> str:
        secure = downstream.endswith("-tls")
        port = self.secure.port if secure else self.clear.port
        return f"http{'s' * secure}://127.0.0.1:{port}/{upstream}/{path}"

    def flags(self, downstream: str) -> list[str]:
        """What makes curl speak that."""
        return [*_CURL_FLAGS[downstream], "--cacert", str(self.authority.ca_file)]


def mappings(services: dict[str, str], more: str = PATIENT) -> str:
    """A Mapping document for each name: prefix `/NAME/`, that service."""
    document = (
        "---\napiVersion: ambassador/v1\nkind: Mapping\nname: {name}\n"
        "prefix: /{name}/\nservice: {service}\n" + more
    )
    return "".join(document.format(name=n, service=s) for n, s in services.items())


@contextmanager
def running_lab(folder: Path) -> Iterator[Lab]:
    authority = Authority.make(folder / "authority")
    config = folder / "lab.yaml"
    flags = (str(config), "--backend-ca", str(authority.ca_file))
    with (
        echo_backends() as [backend],
        echo_backends(tls=authority.server_context("http/1.1")) as [secure_backend],
        running_proxy(
            *("--backend", f"http://{backend.address}", "--access-log", "off"),
            *authority.proxy_flags,
            binds=["h2c://127.0.0.1:0", "https://127.0.0.1:0"],
        ) as relay,
    ):
        services = {
            "http": f"http://{backend.address}",
            "https": f"https://{secure_backend.address}",
            "h2c": f"h2c://127.0.0.1:{relay.ports[0]}",
            "h2": f"h2://127.0.0.1:{relay.ports[1]}",
        }
        config.write_text(mappings(services, PATIENT))
        with (
            running_proxy(*flags) as clear,
            running_proxy(*flags, *authority.proxy_flags) as secure,
        ):
            yield Lab(clear, secure, backend, secure_backend, authority)


@dataclass(frozen=True)
class Guarded:
    """A proxy before one backend, for peers that break the rules."""

    proxy: ProxyProcess
    backend: EchoBackend

    @property
    def port(self) -> int:
        return self.proxy.port

    def asked(self) -> list[str]:
        """Targets of the requests that reached the backend, the neighbour's left out."""
        return [seen["target"] for seen in self.backend.requests if seen["target"] != "/wait"]


@contextmanager
def guarded_proxy() -> Iterator[Guarded]:
    """A neighbour holds a request open all the while, and must get its answer at the end."""
    with echo_backends() as [backend], running_proxy("--backend", f"http://{backend.address}") as p:
        with raw_h2_client(p.port) as neighbour:
            neighbour.request(1, h2_request(b"/wait"))
            yield Guarded(p, backend)
            backend.release.set()
            assert neighbour.response(1)[1] == b"at last", "the neighbour was hurt"
        assert [event for event in p.events if str(event["event"]).startswith("bug")] == []


@pytest.fixture(scope="session")
def http_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("http-lab")) as lab:
        yield lab
