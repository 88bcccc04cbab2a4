"""Who may import whom: the house's table of layers, read from the source.

Imports count wherever they stand, in a function or under TYPE_CHECKING too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
HOUSE = "stickyproxy"

GROUND = {
    "errors",
    "model",
    "events",
    "edge",
    "rules",
    "metrics",
    "counters",
}  # layer 0: plain values
VOICE = {"logs", "accesslog", "exposition"}  # layer 0 as well, but PURE rooms never speak
PURE = {"policy", "health", "codec", "config"}

MAY_IMPORT: dict[str, set[str]] = {
    **dict.fromkeys(GROUND | PURE, GROUND),
    **dict.fromkeys(VOICE, GROUND | VOICE),
    "wire": GROUND | VOICE | {"codec"},
    "upstream": GROUND | VOICE | {"wire", "health"},
    "proxy": GROUND | VOICE | {"upstream", "wire", "policy", "health"},
    "control": GROUND | VOICE | PURE | {"wire", "upstream", "proxy"},
    "demo": set(),
    "cli": GROUND | VOICE | {"control", "config", "policy", "demo"},
    "__main__": {"cli"},
    "": set(),
}
"""A room is the first name below `stickyproxy`."""

SOLE_IMPORTERS: dict[str, tuple[str, ...]] = {
    "h2": ("codec.",),
    "hpack": ("codec.",),
    "hyperframe": ("codec.",),
    "h11": ("codec.http1",),
    "kubernetes": ("control.discovery.",),
    "trio_websocket": ("proxy.websocket", "control.admin."),
    "re2": ("policy.", "config.fields."),
    "xxhash": ("policy.",),
    "yaml": (
        "config.text.compose",
        "config.schema.crds",  # writes
        "control.discovery.kube_config",  # only catches its errors
    ),
    "prometheus_client": ("exposition",),
    "grpc": ("demo.",),
}
"""Third-party packages that only modules whose names (below `stickyproxy.`) begin so may import."""

CONFIG = ("text", "schema", "resources", "fields", "process", "edge", "mappings", "load", "cluster")
"""The sub-rooms of `config` (and its one loader), lowest first: each may import those before it."""

WORLD = {"trio", "asyncio", "logging", "selectors", "socket", "ssl", "threading", "time"}
"""What PURE rooms and the ground do without: tasks, clocks, logs, sockets."""


def room_of(module: str) -> str:
    """`stickyproxy.policy.maglev` -> `policy`."""
    return module.removeprefix(HOUSE).removeprefix(".").partition(".")[0]


def imports(module: str, source: str, *, is_package: bool = False) -> Iterator[str]:
    """Every name that `source` imports, absolute: `from a.b import c` gives `a.b.c`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: len(module.split(".")) - node.level + is_package]
                base = ".".join([*parents, base]).rstrip(".")
            yield from (f"{base}.{alias.name}" for alias in node.names)


def complaints(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """What in `source` breaks the table, one line each."""
    room = room_of(module)
    if room not in MAY_IMPORT:
        return [f"{module}: {room} is no room of the house; give it a layer in MAY_IMPORT"]
    found = []
    for name in imports(module, source, is_package=is_package):
        top = name.partition(".")[0]
        if top == HOUSE:
            wanted = room_of(name)
            if wanted not in {room, "__version__", *MAY_IMPORT[room]}:
                found.append(f"{module}: imports {name}; {room} may not import {wanted}")
        elif room in PURE | GROUND and top in WORLD:
            found.append(f"{module}: imports {name}; {room} does without")
        elif top in SOLE_IMPORTERS and not _may_use(top, module, is_package=is_package):
            found.append(f"{module}: imports {name}; that is for {SOLE_IMPORTERS[top]} only")
    return found


def _may_use(package: str, module: str, *, is_package: bool) -> bool:
    name = module.removeprefix(f"{HOUSE}.") + ("." if is_package else "")
    return name.startswith(SOLE_IMPORTERS[package])


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted((SRC / HOUSE).rglob("*.py")):
        parts = path.relative_to(SRC).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def test_the_source_keeps_layers_directions_and_sole_importers() -> None:
    found = [
        complaint
        for module, path in modules()
        for complaint in complaints(module, path.read_text(), is_package=path.name == "__init__.py")
    ]

    assert found == []


def config_complaints(module: str, source: str) -> list[str]:
    """What in `source`, a module of `config`, imports a sub-room that stands above its own."""
    prefix = f"{HOUSE}.config."
    own = module.removeprefix(prefix).partition(".")[0]
    if own == "steps":  # a type for generators, for whoever wants it
        return []
    below = (*CONFIG[: CONFIG.index(own) + 1], "steps")
    wanted = (
        name.removeprefix(prefix).partition(".")[0] for name in config_imports(module, source)
    )
    return [
        f"{module}: config.{own} may not import config.{room}"
        for room in wanted
        if room not in below
    ]


def config_imports(module: str, source: str) -> Iterator[str]:
    return (name for name in imports(module, source) if name.startswith(f"{HOUSE}.config."))


def test_the_rooms_of_config_import_downward_only() -> None:
    found = [
        complaint
        for module, path in modules()
        if module.startswith(f"{HOUSE}.config.") and path.name != "__init__.py"
        for complaint in config_complaints(module, path.read_text())
    ]

    assert found == []


def test_a_room_of_config_that_looks_up_is_found() -> None:
    upward = "from stickyproxy.config.load import Files"

    assert config_complaints("stickyproxy.config.process.settings", upward)
    assert config_complaints("stickyproxy.config.fields.checks", f"if x:\n    {upward}")
    assert not config_complaints("stickyproxy.config.cluster.load", upward)


def circle(graph: dict[str, set[str]]) -> list[str]:
    """What is left when everything that imports nothing left, or is imported by nothing, is taken away."""
    left = dict(graph)
    while True:
        wanted = {name for names in left.values() for name in names}
        ends = [name for name in left if name not in wanted or not left[name] & left.keys()]
        if not ends:
            return sorted(left)
        for name in ends:
            del left[name]


def test_no_circle_of_imports_in_a_pure_room() -> None:
    """Not under TYPE_CHECKING either: what two modules know of each other is one module."""
    pure = {
        module: path
        for module, path in modules()
        if room_of(module) in PURE and path.name != "__init__.py"
    }
    graph = {
        module: {
            known
            for name in imports(module, path.read_text())
            for known in (name, name.rpartition(".")[0])
            if known in pure
        }
        for module, path in pure.items()
    }

    assert circle(graph) == []


def test_a_circle_is_found_among_what_leads_to_it_and_from_it() -> None:
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"b"}, "d": {"e"}, "e": set[str]()}

    assert circle(graph) == ["b", "c"]
    assert circle({**graph, "c": {"e"}}) == []


def test_every_folder_of_the_source_was_read() -> None:
    built = {path.name for path in (SRC / HOUSE).iterdir() if (path / "__init__.py").exists()}

    assert built <= {room_of(module) for module, _ in modules()}
    assert built >= PURE


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("stickyproxy.policy.balance", "from stickyproxy.health import breaker"),
        ("stickyproxy.policy.balance", "import stickyproxy.codec.api"),
        ("stickyproxy.policy.balance", "from ..codec import api"),
        ("stickyproxy.policy.balance", "from stickyproxy import logs"),
        ("stickyproxy.policy.balance", "def f():\n    import trio"),
        ("stickyproxy.health.breaker", "import time"),
        ("stickyproxy.model", "from stickyproxy.policy import maglev"),
        ("stickyproxy.wire.link", "from stickyproxy.upstream.pool import Lease"),
        ("stickyproxy.wire.link", "import h2.connection"),
        ("stickyproxy.codec.reference", "import h11"),
        ("stickyproxy.control.worker", "from kubernetes import client"),
        ("stickyproxy.proxy.exchange", "import re2"),
        ("stickyproxy.proxy.exchange", "from stickyproxy.control.admin.app import Admin"),
        ("stickyproxy.demo", "from stickyproxy.cli import main"),
        ("stickyproxy.utils", "import os"),
        (
            "stickyproxy.config.schema.mapping",
            "if TYPE_CHECKING:\n    from stickyproxy.policy.routes import Routes",
        ),
    ],
)
def test_a_wall_broken_through_is_found(module: str, source: str) -> None:
    assert len(complaints(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("stickyproxy.policy.balance", "from stickyproxy.policy import maglev"),
        ("stickyproxy.policy.balance", "from .maglev import MaglevTable"),
        ("stickyproxy.policy.balance", "from stickyproxy.model import Snapshot"),
        ("stickyproxy.codec.http1", "import h11"),
        ("stickyproxy.codec.http1_checks", "import h11"),
        ("stickyproxy.control.discovery.kubernetes", "from kubernetes import client"),
        ("stickyproxy.control.worker", "import trio, time, logging"),
        ("stickyproxy.cli", "from stickyproxy import __version__, demo"),
        ("stickyproxy.demo.play", "from stickyproxy.demo.calls import call_everything"),
    ],
)
def test_what_the_table_allows_is_not_complained_of(module: str, source: str) -> None:
    assert complaints(module, source) == []


def trio_after_importing(package: str) -> str:
    """Import `package` whole in a fresh interpreter; the modules of trio that came with it."""
    probe = (
        "import importlib, pkgutil, sys\n"
        "package = importlib.import_module(sys.argv[1])\n"
        "for found in pkgutil.walk_packages(getattr(package, '__path__', ()), sys.argv[1] + '.'):\n"
        "    importlib.import_module(found.name)\n"
        "print(*(name for name in sys.modules if name.partition('.')[0] == 'trio'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, package], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("room", sorted(PURE | GROUND))
def test_a_pure_room_brings_no_trio(room: str) -> None:
    assert trio_after_importing(f"{HOUSE}.{room}") == ""


def test_the_probe_for_trio_sees_trio() -> None:
    assert "trio" in trio_after_importing("trio.testing").split()
