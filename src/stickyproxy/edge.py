"""What the edge is made of - certificates, Hosts, Listeners - as plain values of layer 0.

Who may be reached by which name, on which port, with which certificate: made by `config`, acted on by
`wire.tls` (certificates), `policy.hosts` (Hosts) and `control.ports` (Listeners).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

XFP, SECURE, INSECURE = "XFP", "SECURE", "INSECURE"
"""Security models of a Listener: `x-forwarded-proto` tells, every request is secure, none is."""

REDIRECT, REJECT, ROUTE = "Redirect", "Reject", "Route"
"""What a Host does with a request that is not secure."""


class Pem:
    """PEM text that shows itself to nobody: no repr, no page and no log line has it.

    Equal by content, so that what did not change is not loaded anew. `bytes` is how it is read.
    """

    __slots__ = ("_hash", "_text")

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._hash = hash(text)

    def __bytes__(self) -> bytes:
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pem) and self._text == other._text

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return "Pem(...)"

    def __reduce__(self) -> tuple[type[Pem], tuple[bytes]]:
        """For workers; another process hashes otherwise."""
        return Pem, (self._text,)


@dataclass(frozen=True, slots=True)
class TlsTerms:
    """What a handshake may agree on. Versions are `v1.2`, `v1.3` or "" for the default.

    `ciphers` are OpenSSL's names (TLS 1.2 and below), `curve` is one group by OpenSSL's name, `alpn`
    in order of preference; empty means the default of each.
    """

    min_version: str = ""
    max_version: str = ""
    ciphers: tuple[str, ...] = ()
    curve: str = ""
    alpn: tuple[str, ...] = ()


DEFAULT_TERMS = TlsTerms()


@dataclass(frozen=True, slots=True)
class ServerTls:
    """A certificate that clients meet, for the host globs it is shown to.

    `name` is what people call it by (`Host shop.prod`). With `client_ca` a certificate of the client's
    is verified if it sends one, with `client_required` there is no connection without. `strict`: it is
    from a file, which is all or nothing; a broken one of the cluster's leaves the others alone.
    """

    name: str
    globs: tuple[str, ...]
    chain: Pem
    key: Pem
    client_ca: Pem | None = None
    client_required: bool = False
    crl: Pem | None = None
    terms: TlsTerms = DEFAULT_TERMS
    strict: bool = True


@dataclass(frozen=True, slots=True)
class HostRule:
    """A Host as requests meet it. `insecure` is Redirect, Reject or Route.

    `selector` are labels that a Mapping must have to be reachable here; None admits all.
    """

    name: str
    hostname: str = "*"
    insecure: str = REDIRECT
    selector: frozenset[tuple[str, str]] | None = None


class Guard(NamedTuple):
    """Names that fit `glob` are reached only over a connection made with the ServerTls `name`: one that

    asks for certificates of clients. "": any connection will do.
    """

    glob: str
    name: str


class Elsewhere(NamedTuple):
    """The answer to a request is a redirect to there."""

    location: bytes


@dataclass(frozen=True, slots=True)
class ListenerSpec:
    """A port to be opened on all addresses. `protocol` is `auto` or `clear`, as in `model.Bind`.

    `hosts` None: there are no Hosts anywhere, every Mapping is reachable. `l7_depth` are proxies
    before us that are believed. `proxied`: balancers begin each connection with a PROXY header.
    `max_streams` None: the process's. `beside`: it is no Listener, but a
    port that a Host or TLSContext asks for, and takes no bind's place.
    """

    name: str
    port: int
    protocol: str = "auto"
    security: str = XFP
    l7_depth: int = 0
    max_streams: int | None = None
    hosts: tuple[HostRule, ...] | None = None
    beside: bool = False
    proxied: bool = False


@dataclass(frozen=True, slots=True)
class Front:
    """What clients meet. `hosts` are for binds; None: there are no Hosts, every name is served.

    `binds_given`: somebody said `--bind`, so Listeners stand beside the binds and not in their place.
    """

    tls: tuple[ServerTls, ...] = ()
    guards: tuple[Guard, ...] = ()
    hosts: tuple[HostRule, ...] | None = None
    listeners: tuple[ListenerSpec, ...] = ()
    binds_given: bool = False


def glob_rank(glob: str) -> tuple[int, int]:
    """Sort key of host globs: exact before `*.x` before `x.*`, longer first, `*` last (Envoy)."""
    if glob == "*":
        return (3, 0)
    if glob.startswith("*"):
        return (1, -len(glob))
    return (2 if glob.endswith("*") else 0, -len(glob))


def glob_fits(glob: str, host: str) -> bool:
    """Whether `host` (lower case, no port) is one of `glob`'s; the star is one character at least."""
    if glob == "*":
        return True
    if glob.startswith("*"):
        return len(host) >= len(glob) and host.endswith(glob[1:])
    if glob.endswith("*"):
        return len(host) >= len(glob) and host.startswith(glob[:-1])
    return host == glob


def shown_for(host: str, certificates: Iterable[ServerTls]) -> str | None:
    """The name of the certificate that clients of `host` (or of that glob) meet; None for none."""
    fitting = [(g, tls) for tls in certificates for g in tls.globs if glob_fits(g, host)]
    return min(fitting, key=lambda one: glob_rank(one[0]))[1].name if fitting else None
