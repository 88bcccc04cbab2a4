"""The reference page and the JSON Schema say what the loader takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from stickyproxy.config.process.layers import OPTIONS
from stickyproxy.config.schema import known
from stickyproxy.config.schema.edge import HostSpec, ListenerDocument, TlsContextSpec
from stickyproxy.config.schema.mapping import MappingSpec, ModuleSpec
from stickyproxy.config.schema.reference import json_schema, render
from support.written import DATA

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == render(), (
        "run: python -m stickyproxy.config.schema.reference > docs/configuration.md"
    )


@pytest.mark.parametrize(
    "name",
    [
        *OPTIONS,
        *MappingSpec.__struct_fields__,
        *ModuleSpec.__struct_fields__,
        *HostSpec.__struct_encode_fields__,
        *TlsContextSpec.__struct_encode_fields__,
        *ListenerDocument.__struct_encode_fields__,
    ],
)
def test_every_field_is_on_the_page(name: str) -> None:
    assert f"| `{name}` |" in render()


def test_no_field_is_both_acted_on_and_without_effect() -> None:
    assert not known.MAPPING_IGNORED & set(MappingSpec.__struct_fields__)
    assert not known.MODULE_IGNORED & set(ModuleSpec.__struct_fields__)


def test_the_schema_defines_each_kind_with_bounds_and_words() -> None:
    definitions = json_schema()["$defs"]

    assert {"MappingSpec", "ModuleSpec", "ProcessSpec", "LoadBalancerSpec"} <= set(definitions)
    mapping = definitions["MappingSpec"]
    assert mapping["required"] == ["prefix", "service"]
    assert "drain-delay" in definitions["ProcessSpec"]["properties"]
    assert all("description" in field for field in mapping["properties"].values())


def test_the_test_file_with_every_field_has_every_field() -> None:
    text = (DATA / "every_field.yaml").read_text()
    left_out = {"prefix_regex", "host", "host_regex", "method_regex"}  # they exclude others

    assert all(f"  {name}:" in text for name in set(MappingSpec.__struct_fields__) - left_out)
