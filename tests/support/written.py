"""Configuration as people write it: text into Settings, or into what is said against it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from stickyproxy.config.load import Settings, load
from stickyproxy.errors import ConfigError
from stickyproxy.model import ClusterSpec, Route

DATA = Path(__file__).parents[1] / "data"


class Written:
    """Files in a folder of their own, loaded with these flags and variables."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, text: str | bytes, name: str = "config.yaml") -> Path:
        path = self.folder / name
        data = text if isinstance(text, bytes) else textwrap.dedent(text).encode()
        path.write_bytes(data)
        return path

    def load(
        self,
        text: str | bytes,
        flags: Mapping[str, Sequence[str]] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Settings:
        return load([self.file(text)], flags, environ)

    def refused(
        self,
        text: str | bytes,
        flags: Mapping[str, Sequence[str]] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> list[str]:
        """The problems, each without the folder's path."""
        with pytest.raises(ConfigError) as caught:
            self.load(text, flags, environ)
        return [problem.replace(f"{self.folder}/", "") for problem in caught.value.problems]

    def warnings(self, text: str | bytes) -> list[str]:
        return [w.replace(f"{self.folder}/", "") for w in self.load(text).warnings]


def mapping(**fields: object) -> str:
    """A flat Mapping; fields are YAML text. `name`, `prefix` and `service` have defaults."""
    said = {"name": "m", "prefix": "/m/", "service": "svc", **fields}
    lines = "".join(f"{key}: {value}\n" for key, value in said.items())
    return f"---\napiVersion: ambassador/v1\nkind: Mapping\n{lines}"


def route(settings: Settings, name: str) -> Route:
    (found,) = (route for route in settings.routes if route.name == name)
    return found


def cluster_of(settings: Settings, name: str) -> ClusterSpec:
    """The cluster of a route's only target."""
    (target,) = route(settings, name).targets
    (found,) = (spec for spec in settings.clusters if spec.name == target.cluster)
    return found
