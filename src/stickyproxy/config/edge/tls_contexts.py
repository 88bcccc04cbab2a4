"""TLSContexts, and the same fields inside of a Host, into key material and terms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from stickyproxy.config.edge.secrets import (
    CA_KEYS,
    CERTIFICATE,
    CHAIN_KEYS,
    CRL,
    CRL_KEYS,
    KEY,
    KEY_KEYS,
    Secrets,
    pem_file,
    split_name,
)
from stickyproxy.config.resources.items import Item, Raw, Resources
from stickyproxy.config.schema import known
from stickyproxy.config.schema.edge import TLS_CONTEXT_IGNORED, TlsContextSpec, TlsFields
from stickyproxy.config.text.compose import Node
from stickyproxy.config.text.decode import Decoder, Report, join
from stickyproxy.edge import DEFAULT_TERMS, Pem, TlsTerms

SILENT = known.IDENTITY | {"ambassador_id", "ambassadorId", "spec", "metadata", "status"}

_OLD_VERSIONS = frozenset(("v1.0", "v1.1"))
_CURVES = {"X25519": "X25519", "P-256": "prime256v1", "P-384": "secp384r1", "P-521": "secp521r1"}
_PROTOCOLS = ("h2", "http/1.1")

Named = Item[TlsContextSpec]


@dataclass(frozen=True, slots=True)
class Material:
    """What a set of TLS fields comes down to. `broken`: something that it names is not there."""

    chain: Pem | None = None
    key: Pem | None = None
    ca: Pem | None = None
    crl: Pem | None = None
    required: bool = False
    terms: TlsTerms = DEFAULT_TERMS
    sni: str = ""
    broken: bool = False


@dataclass(slots=True)
class Reader:
    """Reads TLS fields. `strict`: what is not there is a problem, else a warning (it may come), or

    with `awaiting`, where it is not looked for, nothing. `files` are the files that were read: what
    to watch.
    """

    secrets: Secrets
    report: Report
    strict: bool
    awaiting: bool = False
    files: list[Path] = field(default_factory=list)

    def complain(self, item: Item[object], message: str, *keys: str) -> None:
        if self.strict:
            item.problem(self.report, message, *keys)
        elif not self.awaiting:
            item.warn(self.report, message, *keys)

    def material(self, item: Item[object], fields: TlsFields, *where: str) -> Material:
        """`where` are the keys that lead to the fields."""
        namespacing = getattr(fields, "secret_namespacing", None) is not False
        found = _Found(self, item, where, namespacing)
        pair = self._pair(found, fields)
        ca = found.either(fields.ca_secret, "ca_secret", fields.cacert_chain_file, CA_KEYS)
        for key in ("cert_required", "crl_secret"):
            if getattr(fields, key) and fields.ca_secret is None is fields.cacert_chain_file:
                message = "needs ca_secret or cacert_chain_file beside it"
                item.problem(self.report, message, *where, key)
        return Material(
            chain=pair[0],
            key=pair[1],
            ca=ca,
            crl=found.secret(fields.crl_secret, "crl_secret", CRL_KEYS, CRL),
            required=bool(fields.cert_required),
            terms=_terms(item, fields, self.report, where),
            sni=fields.sni or "",
            broken=found.broken,
        )

    def _pair(self, found: _Found, fields: TlsFields) -> tuple[Pem | None, Pem | None]:
        secret = getattr(fields, "secret", None)
        chain_file, key_file = fields.cert_chain_file, fields.private_key_file
        if secret is not None:
            if chain_file is not None:
                found.problem("and cert_chain_file say the same; keep one", "secret")
            return (
                found.secret(secret, "secret", CHAIN_KEYS, CERTIFICATE),
                found.secret(secret, "secret", KEY_KEYS, KEY),
            )
        if (chain_file is None) != (key_file is None):
            there = "cert_chain_file" if key_file is None else "private_key_file"
            missing = "private_key_file" if key_file is None else "cert_chain_file"
            found.problem(f"needs {missing} beside it", there)
            return None, None
        return (
            found.file(chain_file, "cert_chain_file", CERTIFICATE),
            found.file(key_file, "private_key_file", KEY),
        )


@dataclass(slots=True)
class _Found:
    """Looks things up for one set of fields, and remembers whether all was there."""

    reader: Reader
    item: Item[object]
    where: tuple[str, ...]
    namespacing: bool
    broken: bool = False

    def problem(self, message: str, key: str) -> None:
        self.item.problem(self.reader.report, message, *self.where, key)
        self.broken = True

    def secret(self, name: str | None, key: str, keys: tuple[str, ...], holds: str) -> Pem | None:
        if name is None:
            return None
        place = split_name(name, self.item.namespace, namespacing=self.namespacing)
        return self._try(lambda: self.reader.secrets.find(*place).pem(keys, holds), key)

    def file(self, name: str | None, key: str, holds: str) -> Pem | None:
        if name is None:
            return None
        self.reader.files.append(Path(name))
        return self._try(lambda: pem_file(name, holds), key)

    def either(
        self, secret: str | None, key: str, file: str | None, keys: tuple[str, ...]
    ) -> Pem | None:
        if secret is not None:
            return self.secret(secret, key, keys, CERTIFICATE)
        return self.file(file, "cacert_chain_file", CERTIFICATE)

    def _try(self, read: Callable[[], Pem], key: str) -> Pem | None:
        try:
            return read()
        except ValueError as error:
            self.reader.complain(self.item, str(error), *self.where, key)
            self.broken = True
            return None


def _terms(
    item: Item[object], fields: TlsFields, report: Report, where: tuple[str, ...]
) -> TlsTerms:
    least, most = fields.min_tls_version or "", fields.max_tls_version or ""
    if least in _OLD_VERSIONS:
        item.warn(report, f"{least} is too old to be served; v1.2 it is", *where, "min_tls_version")
        least = ""
    if most in _OLD_VERSIONS or (most and least > most):
        message = f"{most} leaves no version; right would be v1.3"
        item.problem(report, message, *where, "max_tls_version")
        most = ""
    ciphers = [
        name for group in fields.cipher_suites or () for name in group.strip("[]").split("|")
    ]
    return TlsTerms(
        min_version=least,
        max_version=most,
        ciphers=tuple(ciphers),
        curve=_curve(item, fields, report, where),
        alpn=_alpn(item, fields, report, where),
    )


def _curve(item: Item[object], fields: TlsFields, report: Report, where: tuple[str, ...]) -> str:
    names = fields.ecdh_curves or []
    if len(names) > 1:
        message = "several have no effect (Python takes one); all that OpenSSL has are offered"
        item.warn(report, message, *where, "ecdh_curves")
    if len(names) != 1:
        return ""
    if names[0] not in _CURVES:
        message = f"`{names[0]}` is not known; right would be {', '.join(_CURVES)}"
        item.problem(report, message, *where, "ecdh_curves")
    return _CURVES.get(names[0], "")


def _alpn(
    item: Item[object], fields: TlsFields, report: Report, where: tuple[str, ...]
) -> tuple[str, ...]:
    given = [name.strip() for name in (fields.alpn_protocols or "").split(",") if name.strip()]
    for name in given:
        if name not in _PROTOCOLS:
            message = f"`{name}` is not spoken; right would be h2,http/1.1"
            item.warn(report, message, *where, "alpn_protocols")
    return tuple(name for name in given if name in _PROTOCOLS)


# --- TLSContexts by name --------------------------------------------------------------------------


@dataclass(slots=True)
class Contexts:
    """The TLSContexts that are there, decoded; key material is read when asked for."""

    reader: Reader
    items: dict[tuple[str, str], Named] = field(default_factory=dict)
    _materials: dict[tuple[str, str], Material] = field(default_factory=dict)

    def find(self, name: str, namespace: str | None) -> Named | None:
        """In the namespace, else the only one of that name anywhere (Emissary's are global)."""
        found = self.items.get((namespace or "", name))
        if found is not None:
            return found
        others = [item for (_, other), item in self.items.items() if other == name]
        return others[0] if len(others) == 1 else None

    def material(self, item: Named) -> Material:
        key = item.namespace or "", item.name
        if key not in self._materials:
            self._materials[key] = self.reader.material(item, item.spec)
        return self._materials[key]

    def __iter__(self) -> Iterator[Named]:
        return iter(self.items.values())


def contexts_of(resources: Resources, reader: Reader) -> Contexts:
    """Broken ones are left out after a complaint; the order of documents does not matter."""
    found = Contexts(reader)
    for raw in sorted(resources.tls_contexts, key=lambda item: (item.namespace or "", item.name)):
        if not raw.name:
            raw.problem(reader.report, "name is missing; right would be shop-tls")
            continue
        item = _decoded(raw, reader.report)
        if item is None:
            continue
        first = found.items.setdefault((item.namespace or "", item.name), item)
        if first is not item:
            message = f"TLSContext {item.name} is already in {first.origin}; give it another name"
            item.problem(reader.report, message)
    return found


def _decoded(raw: Raw, report: Report) -> Named | None:
    decoder = Decoder(raw.document, report, raw.path, SILENT, TLS_CONTEXT_IGNORED)
    spec = decoder.read(raw.node, TlsContextSpec)
    if spec is None:
        return None
    return Item(raw.document, raw.node, raw.path, raw.name, raw.namespace, spec)


def snake_keys(node: Node) -> Node:
    """`certRequired` for `cert_required`: `Host.tls` is written both ways."""
    if node.mapping is None:
        return node
    names = {key: _snake(key) for key in node.mapping}
    value: object = {names[key]: child for key, child in node.mapping.items()}
    return replace(node, value=value, keys={names[key]: line for key, line in node.keys.items()})


def _snake(key: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in key)


def tls_fields(raw: Raw, report: Report) -> TlsFields | None:
    """Those under `tls` of a Host; None where there are none, or after a complaint."""
    node = raw.node.get("tls")
    if node is None or node.value is None:
        return None
    decoder = Decoder(raw.document, report, join(raw.path, "tls"))
    return decoder.read(snake_keys(node), TlsFields)
