"""Whatever a file holds, it is either taken or complained about in lines; nothing else happens."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.config.load import load
from stickyproxy.config.process.layers import OPTIONS
from stickyproxy.config.schema.mapping import MappingSpec, ModuleSpec
from stickyproxy.config.text.documents import parse
from stickyproxy.errors import ConfigError, ProxyError
from stickyproxy.model import Client, Connection
from stickyproxy.policy.cors import CorsPlan
from stickyproxy.policy.gate import Gate
from stickyproxy.policy.redirect import location
from stickyproxy.policy.routes import Routes, rewrite_path
from support.written import DATA

SEEDS = [path.read_bytes() for path in sorted(DATA.glob("*.yaml"))]

WORDS = st.sampled_from(
    [
        *("kind", "apiVersion", "name", "metadata", "spec", "config", "items", "annotations"),
        *("getambassador.io/config", "Mapping", "Module", "StickyProxy", "List", "ambassador"),
        *("ambassador/v1", "getambassador.io/v3alpha1", "policy", "cookie", "value", "<<"),
        *MappingSpec.__struct_fields__,
        *ModuleSpec.__struct_fields__,
        *OPTIONS,
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["a\nb", "/\0", "/\ud800", "\x1b[2J", "/\u2028x"])
    | st.sampled_from(["/a/", "*", "(", "60s", "h:1", "[::1]:2", "${X}", "\\1", "https://x"])
)
VALUES = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=12,
)
MAPPINGS = st.fixed_dictionaries(
    {
        "apiVersion": st.just("ambassador/v1"),
        "kind": st.just("Mapping"),
        "name": st.just("m"),
        "prefix": SCALARS,
        "service": SCALARS,
    },
    optional=dict.fromkeys(set(MappingSpec.__struct_fields__) - {"prefix", "service"}, VALUES),
)


def taken_or_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    problems: list[str] = []
    try:
        found = load([path], {}, {"X": "1"})
    except ConfigError as error:
        problems = error.problems
    if problems:
        assert all(problem.isprintable() for problem in problems)
        return
    assert all(warning.isprintable() for warning in found.warnings)
    head = [(b":method", b"GET"), (b":path", b"/a/?b"), (b":authority", b"h"), (b"origin", b"o")]
    client = Client("192.0.2.1", Connection(), behind_trusted_hop=False)
    with suppress(ProxyError):
        Gate(found.edge).admit(head, client)
    Routes(found.routes).match(head)
    for route in found.routes:
        for target in route.targets:
            rewrite_path(target, route.match, route.match.path.encode() + b"x?y")
            if target.cors is not None:
                CorsPlan(target.cors).added(head)
            if target.redirect is not None:
                place = location(target.redirect, route.match, head, client)
                assert not set(place) & set(b"\r\n\0 ")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile") / "f.yaml"


@given(data=st.binary(max_size=200))
def test_bytes(data: bytes) -> None:
    documents, problems = parse(data, "f.yaml")

    assert not (documents and problems)


@given(seed=st.sampled_from(SEEDS), at=st.integers(0, 2000), put=st.binary(max_size=3))
def test_a_seed_with_bytes_changed(path: Path, seed: bytes, at: int, put: bytes) -> None:
    at %= len(seed)

    taken_or_refused(path, seed[:at] + put + seed[at + len(put) :])


@given(document=st.dictionaries(WORDS, VALUES, max_size=6))
def test_any_document(path: Path, document: dict[str, object]) -> None:
    taken_or_refused(path, json.dumps(document).encode())


@given(document=MAPPINGS)
def test_any_mapping(path: Path, document: dict[str, object]) -> None:
    taken_or_refused(path, json.dumps(document).encode())


@given(document=st.dictionaries(st.sampled_from(OPTIONS), VALUES, max_size=6))
def test_any_process_document(path: Path, document: dict[str, object]) -> None:
    taken_or_refused(path, json.dumps({"kind": "StickyProxy", **document}).encode())


@given(document=st.dictionaries(st.sampled_from(ModuleSpec.__struct_fields__), VALUES))
def test_any_module(path: Path, document: dict[str, object]) -> None:
    module = {"apiVersion": "ambassador/v1", "kind": "Module", "name": "ambassador"}

    taken_or_refused(path, json.dumps({**module, "config": document}).encode())
