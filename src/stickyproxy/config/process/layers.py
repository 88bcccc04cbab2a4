"""Flags, environment and the StickyProxy document on top of each other, still as text.

An option that a higher layer gives replaces the lower one's whole value, lists too. Everything is
kept as text with its origin until `config.process.options` reads it, so that one parser and one complaint
serve all three.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from stickyproxy.config.resources.resolution import ENABLE_ENDPOINTS
from stickyproxy.config.schema.process import LISTS, ProcessSpec
from stickyproxy.config.text.compose import Node, substitute
from stickyproxy.config.text.decode import Decoder, Report, join
from stickyproxy.config.text.documents import Document

OPTIONS = tuple(name.replace("_", "-") for name in ProcessSpec.__struct_fields__)
ENV_PREFIX = "STICKYPROXY_"

_KIN = (
    frozenset(("bind", "tls-cert", "tls-key")),
    frozenset(("backend", "policy", "sticky", "allow-upgrade")),
    frozenset(("drain-delay", "drain-timeout")),
    frozenset(("max-connection-age", "max-connection-age-grace")),
    frozenset(("work-budget", "work-refill")),
    frozenset(("kubernetes", "kubeconfig", "kube-context", "kube-namespace", "kube-secrets")),
)
"""Options that are judged beside each other."""

# Read elsewhere: the files by the command line, the secret where it is asked for.
_NO_OPTIONS = frozenset(("config", "admin-token"))
# What Kubernetes sets in each pod of a namespace that has a Service called stickyproxy.
_SERVICE_LINK = re.compile(
    r"(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT|PORT_[0-9]+_(TCP|UDP|SCTP)(_.*)?)"
)
_VARIABLE = re.compile(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


@dataclass(frozen=True, slots=True)
class Given:
    """What was said for one option, and where: `--bind`, `STICKYPROXY_BIND`, `file:line: bind`."""

    values: tuple[str, ...]
    origin: str

    @property
    def last(self) -> str:
        return self.values[-1]


def layered(
    flags: Mapping[str, Sequence[str]],
    environ: Mapping[str, str],
    document: Document | None,
    report: Report,
) -> dict[str, Given]:
    """The winning word on each option: flag, else our variable, else document, else Ambassador's."""
    given = _from_ambassadors(environ)
    given.update({} if document is None else _from_document(document, environ, report))
    given.update(_from_environment(environ, report))
    given.update({name: Given(tuple(v), f"--{name}") for name, v in flags.items() if v})
    return given


def _from_environment(environ: Mapping[str, str], report: Report) -> dict[str, Given]:
    given = {}
    for variable in sorted(environ):
        if not variable.startswith(ENV_PREFIX) or not environ[variable].strip():
            continue
        name = variable.removeprefix(ENV_PREFIX).lower().replace("_", "-")
        if name in _NO_OPTIONS or _SERVICE_LINK.fullmatch(variable.removeprefix(ENV_PREFIX)):
            continue
        if name not in OPTIONS:
            report.warnings.append(f"{variable}: is unknown and has no effect")
            continue
        text = environ[variable].strip()
        given[name] = Given(_split(name, text) if name in LISTS else (text,), variable)
    return given


def _from_ambassadors(environ: Mapping[str, str]) -> dict[str, Given]:
    """Variables of Ambassador's that its users have in their manifests."""
    given = {}

    def take(name: str, variable: str, text: str) -> None:
        if text.strip():
            given[name] = Given((text.strip(),), variable)

    take(ENABLE_ENDPOINTS, ENABLE_ENDPOINTS, environ.get(ENABLE_ENDPOINTS, ""))
    take("ambassador-id", "AMBASSADOR_ID", environ.get("AMBASSADOR_ID", ""))
    if _is_set(environ, "AMBASSADOR_SINGLE_NAMESPACE"):
        name = "AMBASSADOR_NAMESPACE"
        take("kube-namespace", name, environ.get(name, ""))
    if _is_set(environ, "AMBASSADOR_NO_SECRETS"):
        take("kube-secrets", "AMBASSADOR_NO_SECRETS", "off")
    return given


def _is_set(environ: Mapping[str, str], variable: str) -> bool:
    """Emissary takes any text for a yes (env.go); what says no plainly is a no here."""
    return environ.get(variable, "").strip().lower() not in ("", "0", "false", "no", "off")


def _split(name: str, text: str) -> tuple[str, ...]:
    """By comma; for services a part without `=` belongs to the one before it."""
    parts: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        if name == "service" and parts and "=" not in part:
            parts[-1] += "," + part
        elif part:
            parts.append(part)
    return tuple(parts)


def _from_document(
    document: Document, environ: Mapping[str, str], report: Report
) -> dict[str, Given]:
    """Without the options that are refused: the rest is looked at all the same."""
    root, path = document.root, ""
    if (spec := root.get("spec")) is not None:
        root, path = spec, "spec"
    node, unset = _expanded(document, _dashed(root), environ, report)
    decoder = Decoder(
        document, report, path, silent=("apiVersion", "kind", "metadata", "name", "namespace")
    )
    decoder.read(node, ProcessSpec)
    refused = _with_their_kin(decoder.refused | unset)
    given = {}
    for name, child in (node.mapping or {}).items():
        values = _texts(child)
        if name in OPTIONS and values and name not in refused:
            given[name] = Given(values, document.at(child.line, join(path, name)))
    return given


def _with_their_kin(refused: set[str]) -> set[str]:
    """An option means something else where one is missing that belongs to it."""
    return refused.union(*(kin for kin in _KIN if not kin.isdisjoint(refused)))


def _dashed(node: Node) -> Node:
    """Keys with `_` for `-` are taken too: YAML people write both."""
    if node.mapping is None:
        return node
    value = {_dashed_key(key): child for key, child in node.mapping.items()}
    return replace(
        node, value=value, keys={_dashed_key(key): line for key, line in node.keys.items()}
    )


def _dashed_key(key: str) -> str:
    dashed = key.replace("_", "-")
    return dashed if dashed in OPTIONS else key


def _texts(node: Node) -> tuple[str, ...]:
    if isinstance(node.value, list):
        return tuple(child.text for child in node.value)
    return () if node.value is None else (node.text,)


def _expanded(
    document: Document, root: Node, environ: Mapping[str, str], report: Report
) -> tuple[Node, set[str]]:
    """A copy with `${VAR}` and `${VAR:-default}` replaced; `$$` is a dollar sign.

    What names a variable that is not set is left out; beside it the keys of that.
    """
    unset: set[str] = set()
    if root.mapping is None:
        return root, unset
    found: dict[str, Node] = {}
    for key, child in root.mapping.items():
        said = len(report.problems)
        found[key] = _with_variables(document, child, environ, report)
        if len(report.problems) > said:
            unset.add(key)
            del found[key]
    return replace(root, value=found, keys=dict(root.keys)), unset


def _with_variables(
    document: Document, node: Node, environ: Mapping[str, str], report: Report
) -> Node:
    def change(text: str, line: int) -> str:
        def value(found: re.Match[str]) -> str:
            name, default = found[1], found[2]
            if name is None:
                return "$"
            if name in environ or default is not None:
                return environ.get(name) or default or ""
            message = f"${{{name}}} is not set; set it, or write ${{{name}:-default}}"
            report.problem(document, line, "", message)
            return ""

        return _VARIABLE.sub(value, text)

    return substitute(node, change)
