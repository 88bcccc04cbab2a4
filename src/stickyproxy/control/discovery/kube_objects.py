"""Objects of one kind as they are kept: what matters of them, apart from what merely moves.

A status that is written, by us too, is a change to the API server and none to the configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from stickyproxy.control.discovery.kube_slices import Object, ServiceKey, object_key

ANNOTATION = "getambassador.io/config"

_ANNOTATED = frozenset(("Service", "Ingress"))
_METADATA = ("name", "namespace", "uid", "generation", "creationTimestamp", "labels")
_SECRET_TYPES = frozenset(("", "Opaque", "kubernetes.io/tls", "istio.io/key-and-cert"))
"""A service account's token has a `ca.crt` too, and is not to be had from us."""
_PEM_KEYS = frozenset(
    """tls.crt tls.key user.crt user.key cert-chain.pem key.pem ca.crt root-cert.pem crl.pem
    ca.crl""".split()  # noqa: SIM905 (a list of names reads better so)
)
"""All of a Secret that is kept in memory; one without any of these is no business of ours."""


class ObjectStore:
    """A reflector's sink. `took` hears of each event whether something that matters has changed.

    The objects handed out are replaced and never changed.
    """

    def __init__(self, kind: str, api_version: str, took: Callable[[bool], None]) -> None:
        self.listed = False
        self.api_version = api_version
        self._kind = kind
        self._took = took
        self._kept: dict[ServiceKey, Object] = {}
        self._live: dict[ServiceKey, Object] = {}

    def replace(self, objects: list[Object]) -> None:
        fresh = {object_key(one): one for one in objects}
        changed = not self.listed
        self.listed = True
        for gone in self._kept.keys() - fresh.keys():
            changed = self._drop(gone) or changed
        for gone in self._live.keys() - fresh.keys():
            del self._live[gone]
        for key, one in fresh.items():
            changed = self._set(key, one) or changed
        self._took(changed)

    def put(self, found: Object) -> None:
        self._took(self._set(object_key(found), found))

    def delete(self, found: Object) -> None:
        self._took(self._drop(object_key(found)))

    def objects(self) -> Iterable[Object]:
        return self._kept.values()

    def live(self, namespace: str, name: str) -> Object | None:
        return self._live.get(ServiceKey(namespace, name))

    def _drop(self, key: ServiceKey) -> bool:
        self._live.pop(key, None)
        return self._kept.pop(key, None) is not None

    def _set(self, key: ServiceKey, found: Object) -> bool:
        if not self._concerns_us(found):
            return self._drop(key)
        self._live[key] = {
            "metadata": _picked(found.get("metadata"), (*_METADATA, "resourceVersion")),
            "status": found.get("status"),
        }
        lean = self._lean(found)
        if self._kept.get(key) == lean:
            return False
        self._kept[key] = lean
        return True

    def _concerns_us(self, found: Object) -> bool:
        if self._kind in _ANNOTATED:
            return bool(_annotations(found).get(ANNOTATION))
        if self._kind == "Secret":
            data = found.get("data")
            known = str(found.get("type") or "") in _SECRET_TYPES
            return known and isinstance(data, Mapping) and not _PEM_KEYS.isdisjoint(data)
        return True

    def _lean(self, found: Object) -> Object:
        """List items come without kind and version; what moves is left out."""
        metadata = _picked(found.get("metadata"), _METADATA)
        lean: dict[str, Any] = {"apiVersion": self.api_version, "kind": self._kind}
        if self._kind in _ANNOTATED:
            metadata["annotations"] = {ANNOTATION: _annotations(found)[ANNOTATION]}
            return {**lean, "metadata": metadata}
        if self._kind == "Secret":
            return {**lean, "metadata": metadata, "data": _picked(found.get("data"), _PEM_KEYS)}
        rest = {
            key: value
            for key, value in found.items()
            if key not in ("apiVersion", "kind", "metadata", "status")
        }
        return {**lean, "metadata": metadata, **rest}


def _picked(metadata: Any, names: Iterable[str]) -> dict[str, Any]:
    known = metadata if isinstance(metadata, Mapping) else {}
    return {name: known[name] for name in names if name in known}


def _annotations(found: Object) -> Mapping[str, Any]:
    metadata = found.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    return annotations if isinstance(annotations, Mapping) else {}
