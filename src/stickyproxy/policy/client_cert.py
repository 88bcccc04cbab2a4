"""`x-forwarded-client-cert`, in Envoy's form, and who may say it (its forward_client_cert_details).

Whoever reads it at a backend believes it. So a client's own is taken away unless people asked for
something else, and what a certificate holds is written so that it can end neither element nor field.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import quote

from stickyproxy.model import ClientCert, Connection

FIELD = b"x-forwarded-client-cert"

_needs_quotes = re.compile(r'[",;=\s\\]').search
_unprintable = re.compile(r"[^ -~]")


def believed(mode: str, connection: Connection) -> bool:
    """Whether what the request says of itself goes on."""
    if mode == "ALWAYS_FORWARD_ONLY":
        return True
    return mode in ("FORWARD_ONLY", "APPEND_FORWARD") and connection.client_cert is not None


def element(mode: str, details: Collection[str], connection: Connection) -> bytes | None:
    """What is said of this connection's certificate; None where nothing is."""
    cert = connection.client_cert
    if cert is None or mode not in ("APPEND_FORWARD", "SANITIZE_SET"):
        return None
    return ";".join(_pairs(cert, details)).encode()


def _pairs(cert: ClientCert, details: Collection[str]) -> list[str]:
    """In Envoy's order."""
    pairs = [f"Hash={cert.sha256}"]
    if "cert" in details:
        pairs.append(f'Cert="{quote(cert.pem, safe="")}"')
    if "subject" in details:
        pairs.append(f'Subject="{_escaped(cert.subject)}"')
    if "uri" in details:
        pairs += [f"URI={_value(uri)}" for uri in cert.uris]
    if "dns" in details:
        pairs += [f"DNS={_value(name)}" for name in cert.names]
    return pairs


def _value(text: str) -> str:
    return f'"{_escaped(text)}"' if _needs_quotes(text) else _escaped(text)


def _escaped(text: str) -> str:
    plain = _unprintable.sub(lambda found: quote(found[0], errors="replace"), text)
    return plain.replace("\\", "\\\\").replace('"', '\\"')
