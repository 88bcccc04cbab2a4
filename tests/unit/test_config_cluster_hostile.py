"""Whatever an object of the cluster holds, it is taken or told to be wrong, and its neighbours stay."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.config.cluster.load import combine
from stickyproxy.config.cluster.status import ERROR, INACTIVE, RUNNING, Memory
from stickyproxy.config.schema.mapping import MappingSpec, ModuleSpec
from stickyproxy.policy.routes import Routes
from support.cluster_objects import Object, annotated, files, mapping_object, resource

BESIDE = files()
FINE = mapping_object("fine", hostname="fine.example.com")
KINDS = ("Mapping", "Module", "Host", "Listener", "TLSContext", "KubernetesEndpointResolver")

WORDS = st.sampled_from(
    (*MappingSpec.__struct_fields__, *ModuleSpec.__struct_fields__, "config", "spec", "name")
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
    | st.sampled_from(["/a/", "*", "(", "60s", "fine", "https://x:y", "\ud800"])
)
VALUES = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=10,
)
SPECS = st.dictionaries(WORDS, VALUES, max_size=8)
OBJECTS = st.builds(
    resource,
    st.sampled_from(KINDS),
    st.sampled_from(["ambassador", "x"]),
    SPECS,
    created=st.integers(0, 2),
    version=st.sampled_from(["v1", "v2", "v3alpha1", "v9"]),
)


def neighbours_stay(*objects: Object) -> None:
    alone = combine(BESIDE, [FINE], Memory())
    before = combine(BESIDE, [FINE, mapping_object("x")], Memory())
    combined = combine(BESIDE, [*objects, FINE], before.memory)

    Routes(combined.settings.routes)
    ours = [r for r in combined.settings.routes if r.name == "fine"]
    assert [r.match for r in ours] == [r.match for r in alone.settings.routes]
    for status in combined.statuses:
        assert status.state in {RUNNING, INACTIVE, ERROR}
        assert (status.state == RUNNING) == (not status.reason)
        assert "bug of ours" not in status.reason
        assert "\n" not in status.reason


@given(OBJECTS)
def test_any_object(found: Object) -> None:
    neighbours_stay(found)


@given(OBJECTS, OBJECTS)
def test_any_two_objects(one: Object, other: Object) -> None:
    neighbours_stay(one, other)


@given(VALUES)
def test_any_metadata(found: object) -> None:
    neighbours_stay({"kind": "Mapping", "metadata": found})


@given(st.text(max_size=60) | st.sampled_from(["- a", "kind: Mapping", "a: [", "{}", "a: &a [*a]"]))
def test_any_annotation(text: str) -> None:
    neighbours_stay(annotated("web", text))
