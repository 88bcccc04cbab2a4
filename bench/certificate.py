"""A certificate for loopback, made for one run."""

from __future__ import annotations

from pathlib import Path

import trustme


def make(folder: Path) -> tuple[Path, Path]:
    """Certificate chain and key, as PEM files in `folder`. ECDSA P-256, trustme's only kind."""
    pair = trustme.CA().issue_cert("127.0.0.1", "localhost")
    certificate, key = folder / "tls.crt", folder / "tls.key"
    certificate.write_bytes(b"".join(blob.bytes() for blob in pair.cert_chain_pems))
    key.write_bytes(pair.private_key_pem.bytes())
    key.chmod(0o600)
    return certificate, key
