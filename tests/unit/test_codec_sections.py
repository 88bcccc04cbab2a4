"""Header blocks that come again: one object, as long as the same bytes mean the same."""

from __future__ import annotations

import hpack
from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.codec import sections
from stickyproxy.codec.hpack_decode import Decoder
from stickyproxy.codec.hpack_encode import Encoder
from stickyproxy.codec.sections import Sections
from stickyproxy.model import Headers, Section

OK: Headers = [(b":status", b"200"), (b"content-type", b"application/grpc")]


def met(known: Sections, reader: Decoder, block: bytes) -> Headers:
    """As a connection meets a block that is good."""
    found = known.find(block)
    if found is not None:
        return found
    headers = reader.decode(block)
    known.keep(headers)
    return headers


def connection() -> tuple[Sections, Decoder, Encoder]:
    reader = Decoder(hard_fields=100)
    return Sections(reader), reader, Encoder()


def test_from_the_third_time_a_block_is_the_same_object_on_every_connection() -> None:
    found = []
    for _ in range(2):
        known, reader, writer = connection()
        met(known, reader, writer.encode(OK))  # fills the table
        for _ in range(2):
            assert type(met(known, reader, writer.encode(OK))) is list
        found.append(met(known, reader, writer.encode(OK)))
    assert found[0] == OK
    assert isinstance(found[0], Section)
    assert found[0].fields == dict(OK)
    assert found[0] is found[1]


def test_the_same_bytes_mean_something_else_once_the_table_changed() -> None:
    known, reader, _ = connection()
    met(known, reader, b"\x40\x01a\x011")
    newest = b"\xbe"
    for _ in range(4):
        assert met(known, reader, newest) == [(b"a", b"1")]
    met(known, reader, b"\x40\x01b\x012")
    assert met(known, reader, newest) == [(b"b", b"2")]


def test_a_block_that_changes_the_table_itself_is_not_remembered() -> None:
    known, reader, _ = connection()
    for number in range(1, 5):
        assert type(met(known, reader, b"\x40\x01a\x011")) is list
        assert len(reader.decode(b"\xbe" * number)) == number


def test_secrets_and_long_blocks_are_not_remembered() -> None:
    for headers in ([(b"cookie", b"a=1")], [(b"x-long", b"v" * sections.LONGEST)]):
        known, reader, _ = connection()
        block = b"\x00" + b"".join(bytes((len(text),)) + text for text in headers[0])
        for _ in range(4):
            assert type(met(known, reader, block)) is list
        assert met(known, reader, block) == headers


def test_what_is_remembered_has_a_bound() -> None:
    known, reader, _ = connection()
    for number in range(1000):
        for _ in range(2):
            met(known, reader, b"\x00\x01a\x03%03d" % number)
    assert len(known._known) <= sections._BLOCKS
    assert len(sections._shared) <= sections._SHARED


FIELD = st.tuples(
    st.sampled_from([b":status", b"a", b"traceparent", b"cookie", b"x-user"]),
    st.sampled_from([b"", b"200", b"1", b"2", b"v" * 60, b"w" * 200]),
)
LISTS = st.lists(st.lists(FIELD, max_size=5), min_size=1, max_size=4)


@given(LISTS, st.lists(st.integers(0, 3), max_size=30), st.integers(0, 200))
def test_a_section_is_encoded_as_its_fields_would_be(
    lists: list[Headers], order: list[int], table: int
) -> None:
    """Among others, sections and not, while entries come, go, and are not made any more."""
    ours, theirs = Encoder(), hpack.Decoder(max_header_list_size=1 << 20)
    kept = [Section(fields) for fields in lists]
    for at in order:
        if at == 3:
            ours.resize(table)
        for wanted in (kept[at % len(kept)], lists[at % len(lists)]):
            assert theirs.decode(ours.encode(wanted), raw=True) == wanted
