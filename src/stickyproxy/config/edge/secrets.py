"""Secrets (`v1`, kubernetes.io/tls or Opaque) that other resources name, and PEM files.

What they hold goes from here into a `Pem` and nowhere else: no complaint quotes it, and one is decoded
only when something asks for it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path

from stickyproxy.config.resources.items import Raw
from stickyproxy.config.text.compose import Node
from stickyproxy.config.text.files import open_file
from stickyproxy.edge import Pem

CERTIFICATE, KEY, CRL = "CERTIFICATE", "PRIVATE KEY", "X509 CRL"
CHAIN_KEYS = ("tls.crt", "user.crt", "cert-chain.pem")
KEY_KEYS = ("tls.key", "user.key", "key.pem")
CA_KEYS = ("ca.crt", "root-cert.pem", "tls.crt", "user.crt")
CRL_KEYS = ("crl.pem", "ca.crl")
"""Where each is looked for, in this order: Kubernetes' names, Emissary's older ones, Istio's."""

MAX_PEM_BYTES = 1024 * 1024  # etcd holds no larger object


class Secret:
    """One Secret; `label` is how people call it."""

    def __init__(self, item: Raw) -> None:
        space = f"{item.namespace}/" if item.namespace else ""
        self.label = f"Secret {space}{item.name}"
        self._item = item

    def pem(self, keys: Sequence[str], holds: str) -> Pem:
        """The first of `keys` that is there. Raises `ValueError`, with names only."""
        for key in keys:
            plain = self._item.node.get("stringData", key)
            coded = self._item.node.get("data", key)
            if plain is not None or coded is not None:
                return _checked(self._bytes(key, plain, coded), holds, f"{self.label}: {key}")
        raise ValueError(f"{self.label} has no {keys[0]}")

    def _bytes(self, key: str, plain: Node | None, coded: Node | None) -> bytes:
        node = plain or coded
        if node is None or not isinstance(node.value, str):
            raise ValueError(f"{self.label}: {key} is no text")
        if plain is not None:
            return node.value.encode()
        try:
            return base64.b64decode("".join(node.value.split()), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"{self.label}: {key} is not base64") from None


class Secrets:
    """All that are there, by name. `unread`: the cluster's are not, as `--kube-secrets` is off."""

    def __init__(self, items: Sequence[Raw], *, unread: bool = False) -> None:
        self._unread = unread
        self._by_name: dict[str, dict[str, Raw]] = {}
        for item in items:
            self._by_name.setdefault(item.name, {}).setdefault(item.namespace or "", item)

    def find(self, name: str, namespace: str) -> Secret:
        """One without a namespace (in a file) is in every one, and who has none sees the only one.

        Raises `ValueError`: there is none.
        """
        there = self._by_name.get(name, {})
        item = there.get(namespace) or there.get("")
        if item is None and not namespace and len(there) == 1:
            item = next(iter(there.values()))
        if item is None:
            space = f"{namespace}/" if namespace else ""
            absent = "is not read, --kube-secrets is off" if self._unread else "is not there"
            raise ValueError(f"Secret {space}{name} {absent}")
        return Secret(item)


def split_name(name: str, namespace: str | None, *, namespacing: bool) -> tuple[str, str]:
    """`name.namespace` where a dot means that (`secret_namespacing`), else the resource's own."""
    if namespacing and "." in name:
        name, _, namespace = name.rpartition(".")
    return name, namespace or ""


def pem_file(file: str, holds: str) -> Pem:
    """Raises `ValueError`."""
    try:
        with open_file(Path(file)) as stream:
            text = stream.read(MAX_PEM_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"{file} cannot be read: {reason.lower()}") from None
    return _checked(text, holds, file)


def _checked(text: bytes, holds: str, place: str) -> Pem:
    if len(text) > MAX_PEM_BYTES:
        raise ValueError(f"{place} is larger than {MAX_PEM_BYTES} bytes")
    if f"{holds}-----".encode() not in text:
        raise ValueError(f"{place} holds no {holds} in PEM")
    return Pem(text)
