"""Certificates as documents hold them, and readings of what was made of Hosts and Listeners."""

from __future__ import annotations

import base64
import textwrap
from dataclasses import dataclass
from functools import lru_cache

import trustme


@dataclass(frozen=True)
class Pair:
    """A certificate and its key in PEM."""

    chain: str
    key: str


@lru_cache(1)
def authority() -> trustme.CA:
    """One for all tests of a run; making a key takes time."""
    return trustme.CA()


@lru_cache(1)
def stranger() -> trustme.CA:
    return trustme.CA()


@lru_cache(64)
def pair(name: str) -> Pair:
    return pair_of(authority(), name)


def pair_of(ca: trustme.CA, name: str) -> Pair:
    leaf = ca.issue_cert(name)
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems).decode()
    return Pair(chain, leaf.private_key_pem.bytes().decode())


def ca_pem() -> str:
    return authority().cert_pem.bytes().decode()


def secret(name: str, namespace: str = "", **data: str) -> str:
    """A Secret document; `tls_crt` stands for the key `tls.crt`."""
    lines = [
        f"  {key.replace('_', '.')}: {base64.b64encode(text.encode()).decode()}"
        for key, text in data.items()
    ]
    space = f", namespace: {namespace}" if namespace else ""
    return "\n".join(
        [
            "---",
            "apiVersion: v1",
            "kind: Secret",
            "type: kubernetes.io/tls",
            f"metadata: {{name: {name}{space}}}",
            "data:",
            *lines,
            "",
        ]
    )


def tls_secret(name: str, host: str, namespace: str = "") -> str:
    found = pair(host)
    return secret(name, namespace, tls_crt=found.chain, tls_key=found.key)


def document(kind: str, name: str, spec: str, metadata: str = "") -> str:
    """A resource; `spec` are its lines, `metadata` more of those (`labels: {a: b}`)."""
    head = f"---\napiVersion: getambassador.io/v3alpha1\nkind: {kind}\nmetadata:\n  name: {name}\n"
    more = textwrap.indent(textwrap.dedent(metadata).strip("\n") + "\n", "  ") if metadata else ""
    return head + more + "spec:\n" + textwrap.indent(textwrap.dedent(spec).strip("\n"), "  ") + "\n"


def mapping(name: str, prefix: str, service: str, spec: str = "", metadata: str = "") -> str:
    own = f"hostname: '*'\nprefix: {prefix}\nservice: {service}\n"
    return document("Mapping", name, own + textwrap.dedent(spec), metadata)
