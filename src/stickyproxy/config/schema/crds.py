"""deploy/crds: Ambassador's resources for clusters that never had Ambassador, made from our schema.

`python -m stickyproxy.config.schema.crds > deploy/crds/getambassador.io.yaml`. The kinds carry every
field that we read, for `kubectl explain` and for a complaint at apply time; fields that only Emissary
knows pass. The versions have one schema and need no conversion: one decoder reads them all.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import yaml

from stickyproxy.config.schema.edge import HostSpec, ListenerDocument, TlsContextSpec
from stickyproxy.config.schema.mapping import MappingSpec, ModuleSpec

GROUP = "getambassador.io"
STORED = "v3alpha1"
OLDER = ("v2", "v1")

OPEN: Mapping[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_KEPT = ("type", "enum", "minimum", "maximum", "minLength", "maxLength", "pattern")
"""What a structural schema may say of a value. `default` is left out: it would be written into
people's objects."""

_INTRO = """\
# Made by `python -m stickyproxy.config.schema.crds`; change the schema, not this file.
#
# For clusters without Emissary. Where its own definitions are installed, leave them: they are read as
# they are.
"""


class Kind(NamedTuple):
    """A resource. `columns`: what `kubectl get` shows, as (name, JSON path)."""

    name: str
    plural: str
    spec: Mapping[str, Any]
    columns: tuple[tuple[str, str], ...] = ()


def kinds() -> tuple[Kind, ...]:
    mapping = (
        ("Hostname", ".spec.hostname"),
        ("Prefix", ".spec.prefix"),
        ("Service", ".spec.service"),
        ("State", ".status.state"),
        ("Reason", ".status.reason"),
    )
    listener = (("Port", ".spec.port"), ("Security", ".spec.securityModel"))
    module = {**OPEN, "properties": {"config": structural(ModuleSpec)}}
    return (
        Kind("Host", "hosts", structural(HostSpec), (("Hostname", ".spec.hostname"),)),
        Kind("KubernetesEndpointResolver", "kubernetesendpointresolvers", OPEN),
        Kind("KubernetesServiceResolver", "kubernetesserviceresolvers", OPEN),
        Kind("Listener", "listeners", structural(ListenerDocument), listener),
        Kind("Mapping", "mappings", structural(MappingSpec), mapping),
        Kind("Module", "modules", module),
        Kind("TLSContext", "tlscontexts", structural(TlsContextSpec)),
    )


def structural(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The struct's JSON Schema in the form that Kubernetes takes (structural, no references)."""
    schema = msgspec.json.schema(struct)
    return _structural(schema, schema["$defs"])


def _structural(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    described = {name: schema[name] for name in ("description",) if name in schema}
    if "$ref" in schema:
        target = definitions[schema["$ref"].rpartition("/")[2]]
        return {**_structural(target, definitions), **described}
    if "anyOf" in schema:
        return {**_union(schema["anyOf"], definitions), **described}
    found = {**described, **{name: schema[name] for name in _KEPT if name in schema}}
    if "enum" in found and all(isinstance(value, str) for value in found["enum"]):
        found["type"] = "string"
    if "type" not in found:
        found["x-kubernetes-preserve-unknown-fields"] = True
    if "items" in schema:
        found["items"] = _structural(schema["items"], definitions)
    if isinstance(values := schema.get("additionalProperties"), Mapping):
        found["additionalProperties"] = _structural(values, definitions)
    if "properties" in schema:
        properties = schema["properties"].items()
        found["properties"] = {name: _structural(one, definitions) for name, one in properties}
        found["x-kubernetes-preserve-unknown-fields"] = True
        if schema.get("required"):
            found["required"] = list(schema["required"])
    return found


def _union(options: list[Mapping[str, Any]], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """One type, or none: a structural schema has no either-or beside text and whole numbers."""
    some = [option for option in options if option.get("type") != "null"]
    nullable = {"nullable": True} if len(some) < len(options) else {}
    if len(some) == 1:
        return {**_structural(some[0], definitions), **nullable}
    if {option.get("type") for option in some} == {"string", "integer"}:
        return {"x-kubernetes-int-or-string": True, **nullable}
    return {"x-kubernetes-preserve-unknown-fields": True}


def definition(kind: Kind) -> dict[str, Any]:
    """A CustomResourceDefinition."""
    versions = [_version(kind, STORED), *(_version(kind, name) for name in OLDER)]
    names = {
        "kind": kind.name,
        "listKind": f"{kind.name}List",
        "plural": kind.plural,
        "singular": kind.name.lower(),
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": versions},
    }


def _version(kind: Kind, name: str) -> dict[str, Any]:
    properties = {"spec": dict(kind.spec), "status": dict(OPEN)}
    columns = [{"name": n, "jsonPath": path, "type": "string"} for n, path in kind.columns]
    return {
        "name": name,
        "served": True,
        "storage": name == STORED,
        "subresources": {"status": {}},
        **({"additionalPrinterColumns": columns} if columns else {}),
        "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
    }


def definitions() -> str:
    """The file."""
    documents = [definition(kind) for kind in kinds()]
    return _INTRO + yaml.dump_all(
        documents, Dumper=_Plain, sort_keys=False, width=100, allow_unicode=True
    )


class _Plain(yaml.SafeDumper):
    """Without anchors: what is said twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the dumper's signature
        return True


def main() -> int:
    sys.stdout.write(definitions())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
