"""TLS contexts for both sides: at least TLS 1.2, ALPN by what is spoken.

Files are read where a context is made, and a file that is wrong is a `ConfigError` of one line. What
comes as text (a Secret) never becomes a file on a disk.
"""

from __future__ import annotations

import functools
import hashlib
import os
import ssl
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from stickyproxy.edge import Pem, ServerTls, TlsTerms
from stickyproxy.errors import ConfigError
from stickyproxy.model import ClientCert, UpstreamProtocol, UpstreamTls
from stickyproxy.wire.secured import Secured

_CACHED_CONTEXTS = 64  # a context per TLS backend kind; each holds some 150 CAs, about 0.5 MB
_VERSIONS = {"v1.2": ssl.TLSVersion.TLSv1_2, "v1.3": ssl.TLSVersion.TLSv1_3}
_ALPN = ("h2", "http/1.1")
_SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and AEAD, which is what RFC 9113 §9.2.2 leaves; all of 1.3 are such."""


def server_tls_context(cert: str, key: str) -> ssl.SSLContext:
    """What clients meet: the certificate chain of `cert`, ALPN h2 before http/1.1.

    Raises:
        ConfigError: a file is missing, unreadable or no PEM, or the two do not belong together.

    """
    chain = _pem("--tls-cert", cert, "CERTIFICATE", "a PEM certificate chain, leaf first")
    secret = _pem("--tls-key", key, "PRIVATE KEY", "the PEM private key of --tls-cert")
    if b"ENCRYPTED" in secret:
        raise ConfigError(
            [f"--tls-key {key}: it has a passphrase; write it without (openssl pkey -in … -out …)"]
        )
    context = _bare_server_context()
    try:
        context.load_cert_chain(cert, key, password="")  # never ask a terminal
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError([_mismatch(cert, key, chain, error)]) from None
    context.set_alpn_protocols(list(_ALPN))
    return context


def server_context(tls: ServerTls) -> ssl.SSLContext:
    """What clients of these hosts meet.

    Raises:
        ConfigError: one line with the name, never with what a key holds.

    """
    context = _bare_server_context()
    _load_pair(context, tls.name, tls.chain, tls.key)
    if tls.client_ca is not None:
        _load_authorities(context, tls.name, tls.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED if tls.client_required else ssl.CERT_OPTIONAL
    if tls.crl is not None:
        _load_revoked(context, tls.name, tls.crl)
    _apply(context, tls.terms, tls.name)
    context.set_alpn_protocols(list(tls.terms.alpn or _ALPN))
    return context


def _bare_server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_SUITES)
    context.options |= ssl.OP_NO_RENEGOTIATION  # RFC 9113 §9.2.1
    return context


def _load_pair(context: ssl.SSLContext, name: str, chain: Pem, key: Pem) -> None:
    if b"ENCRYPTED" in bytes(key):
        raise ConfigError([f"{name}: its private key has a passphrase; write it without"])
    try:
        with _readable(chain) as chain_file, _readable(key) as key_file:
            context.load_cert_chain(chain_file, key_file, password="")
    except (ssl.SSLError, ValueError, OSError) as error:
        reason = getattr(error, "reason", None)
        if reason == "KEY_VALUES_MISMATCH":
            problem = "its private key is not that of its certificate; give the pair"
        elif reason in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
            problem = f"OpenSSL does not take it: {reason.replace('_', ' ').lower()}"
        elif not _is_certificate(bytes(chain)):
            problem = "its certificate is no PEM certificate chain"
        else:
            problem = "its private key is no PEM key of a known kind"
        raise ConfigError([f"{name}: {problem}"]) from None


def _load_authorities(context: ssl.SSLContext, name: str, authorities: Pem) -> None:
    try:
        context.load_verify_locations(cadata=bytes(authorities).decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise ConfigError([f"{name}: its CA is no PEM certificate"]) from None


def _load_revoked(context: ssl.SSLContext, name: str, crl: Pem) -> None:
    try:
        with _readable(crl) as file:
            context.load_verify_locations(cafile=file)
    except (ssl.SSLError, OSError):
        raise ConfigError([f"{name}: its list of revoked certificates is no PEM CRL"]) from None
    context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF


def _apply(context: ssl.SSLContext, terms: TlsTerms, name: str) -> None:
    if terms.min_version:
        context.minimum_version = _VERSIONS[terms.min_version]
    if terms.max_version:
        context.maximum_version = _VERSIONS[terms.max_version]
    try:
        if terms.ciphers:
            context.set_ciphers(":".join(terms.ciphers))
        if terms.curve:
            context.set_ecdh_curve(terms.curve)
    except (ssl.SSLError, ValueError) as error:
        what = "cipher_suites" if isinstance(error, ssl.SSLError) else "ecdh_curves"
        raise ConfigError([f"{name}: {what}: OpenSSL knows none of these"]) from None


_SHORT = {  # RFC 4514 §3, and what OpenSSL calls the rest
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "emailAddress": "emailAddress",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "userId": "UID",
}


def client_cert_of(stream: Secured) -> ClientCert | None:
    """What the client was verified by; None if it showed nothing, or nobody asked."""
    der = stream.getpeercert(binary_form=True)
    shown = cast("Mapping[str, Any] | None", stream.getpeercert())
    if not der or not shown:
        return None
    names = shown.get("subjectAltName", ())
    return ClientCert(
        sha256=hashlib.sha256(der).hexdigest(),
        subject=_in_words(shown.get("subject", ())),
        uris=tuple(value for kind, value in names if kind == "URI"),
        names=tuple(value for kind, value in names if kind == "DNS"),
        pem=ssl.DER_cert_to_PEM_cert(der),
    )


def _in_words(subject: Iterable[Iterable[tuple[str, str]]]) -> str:
    """RFC 4514: the most special first."""
    parts = ["+".join(f"{_SHORT.get(k, k)}={_quoted(v)}" for k, v in rdn) for rdn in subject]
    return ",".join(reversed(parts))


def _quoted(value: str) -> str:
    """RFC 4514 §2.4."""
    return "".join(f"\\{c}" if c in ',+"\\<>;' else c for c in value)


@contextmanager
def _readable(pem: Pem) -> Iterator[str]:
    """A name by which OpenSSL, which reads keys from files only, finds the text: in memory."""
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").exists():
        with os.fdopen(os.memfd_create("pem", os.MFD_CLOEXEC), "wb") as memory:
            memory.write(bytes(pem))
            memory.flush()
            yield f"/proc/self/fd/{memory.fileno()}"
        return
    with tempfile.NamedTemporaryFile() as file:  # mode 0600, gone with the block
        file.write(bytes(pem))
        file.flush()
        yield file.name


def _pem(flag: str, file: str, label: str, right: str) -> bytes:
    try:
        text = Path(file).read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError([f"{flag} {file}: {reason}; name a file with {right}"]) from None
    if f"{label}-----".encode() not in text:
        raise ConfigError([f"{flag} {file}: no {label} in it; it should be {right}"])
    return text


def _mismatch(cert: str, key: str, chain: bytes, error: Exception) -> str:
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        return f"--tls-key {key}: it is not the key of --tls-cert {cert}; give the pair"
    if not _is_certificate(chain):
        return f"--tls-cert {cert}: its PEM text is damaged; it should be a certificate chain"
    return f"--tls-key {key}: its PEM text is damaged or of an unknown kind ({error})"


def _is_certificate(chain: bytes) -> bool:
    try:
        ssl.create_default_context(cadata=chain.decode("ascii"))
    except (ssl.SSLError, ValueError):
        return False
    return True


def client_tls_context(tls: UpstreamTls, protocol: UpstreamProtocol) -> ssl.SSLContext:
    """What a backend meets; contexts are kept, and made anew when the CA file changes.

    Raises:
        ConfigError: the CA file is missing, unreadable or holds no certificate.

    """
    return _client_context(tls, "h2" if protocol.multiplexed else "http/1.1", _version(tls.ca_file))


def _version(file: str | None) -> tuple[int, int]:
    if file is None:
        return (0, 0)
    try:
        found = Path(file).stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_ino)


@functools.lru_cache(maxsize=_CACHED_CONTEXTS)
def _client_context(tls: UpstreamTls, alpn: str, _version: tuple[int, int]) -> ssl.SSLContext:
    context = _verifying(tls)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # it would have us read before we may write
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.chain is not None and tls.key is not None:
        _load_pair(context, tls.name, tls.chain, tls.key)
    _apply(context, tls.terms, tls.name)
    context.set_alpn_protocols(list(tls.terms.alpn or (alpn,)))
    return context


def _verifying(tls: UpstreamTls) -> ssl.SSLContext:
    if tls.ca is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _load_authorities(context, tls.name, tls.ca)
        if tls.crl is not None:
            _load_revoked(context, tls.name, tls.crl)
        return context
    if tls.ca_file is not None:
        _pem("--backend-ca", tls.ca_file, "CERTIFICATE", "the PEM certificate of the CA")
    try:
        return ssl.create_default_context(cafile=tls.ca_file)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError([f"--backend-ca {tls.ca_file}: no usable PEM in it ({error})"]) from None
