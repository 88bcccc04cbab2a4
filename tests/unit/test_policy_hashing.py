"""Session keys: headers, cookies of every form, source addresses; and cookies that are made."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh64_hexdigest, xxh64_intdigest

from stickyproxy.model import Client, Connection, HashPolicy, Headers
from stickyproxy.policy.hashing import NO_KEY, Key, cookie_value, hash_of

ENDS = Connection("10.1.2.3", 40_000, "10.0.0.1", 8080)
ENDS6 = Connection("2001:db8::7", 40_000, "2001:db8::1", 8080)
DIRECT = Client("10.1.2.3", ENDS, behind_trusted_hop=False)
UNIX = Client("", Connection(), behind_trusted_hop=False)

HEADER = HashPolicy("header", "x-user")
COOKIE = HashPolicy("cookie", "sticky")
MADE = HashPolicy("cookie", "sticky", ttl=60.0)
SOURCE_IP = HashPolicy("source_ip")


def no_entropy() -> int:
    raise AssertionError("nothing here may be random")


def key_of(policy: HashPolicy | None, headers: Headers, client: Client = DIRECT) -> Key:
    return hash_of(policy, headers, client, no_entropy)


def test_one_header_value_hashes_as_itself() -> None:
    key = key_of(HEADER, [(b":path", b"/"), (b"x-user", b"alice"), (b"x-other", b"bob")])

    assert key == Key(xxh64_intdigest(b"alice"), b"alice", None)


def test_values_hash_as_a_list_in_any_order() -> None:
    two = [(b"x-user", b"foo"), (b"x-user", b"bar")]
    seeded = xxh64_intdigest(b"foo", xxh64_intdigest(b"bar"))

    assert key_of(HEADER, two) == key_of(HEADER, two[::-1]) == Key(seeded, b"bar, foo", None)


def test_list_hashing_has_envoys_known_value() -> None:
    """Envoy's vector is ["foo", "bar"] as given; a header would be sorted first."""
    assert xxh64_intdigest(b"bar", xxh64_intdigest(b"foo")) == 17745830980996999794

    swapped = key_of(HEADER, [(b"x-user", b"c"), (b"x-user", b"a"), (b"x-user", b"b")])
    abc = xxh64_intdigest(b"c", xxh64_intdigest(b"b", xxh64_intdigest(b"a")))
    assert swapped.hash == abc


def test_values_sort_by_bytes() -> None:
    values = [(b"x-user", "é".encode()), (b"x-user", b"z"), (b"x-user", b"Z")]

    assert key_of(HEADER, values).text == "Z, z, é"


def test_equal_values_do_not_cancel() -> None:
    assert key_of(HEADER, [(b"x-user", b"a")] * 2).hash != key_of(HEADER, [(b"x-user", b"a")]).hash


def test_an_empty_value_is_a_value_and_an_absent_one_is_none() -> None:
    assert key_of(HEADER, [(b"x-user", b"")]).hash == xxh64_intdigest(b"")
    assert key_of(HEADER, [(b"x-users", b"a")]) == NO_KEY


def test_host_is_the_authority() -> None:
    headers = [(b":authority", b"example.com")]

    assert key_of(HashPolicy("header", "host"), headers).text == "example.com"
    assert key_of(HashPolicy("header", ":authority"), headers).text == "example.com"


def test_the_cookie_header_as_a_key_is_whole_again() -> None:
    crumbs = [(b"cookie", b"b=2"), (b"cookie", b"a=1")]

    assert key_of(HashPolicy("header", "cookie"), crumbs).hash == xxh64_intdigest(b"b=2; a=1")


def test_bytes_that_are_no_text_hash_and_show() -> None:
    key = key_of(HEADER, [(b"x-user", b"\xff\x00")])

    assert key == Key(xxh64_intdigest(b"\xff\x00"), b"\xff\x00", None)


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        ([b"sticky=abc"], b"abc"),
        ([b'sticky="abc"'], b"abc"),
        ([b'sticky=""'], b""),
        ([b'sticky="'], b'"'),
        ([b'sticky="abc'], b'"abc'),
        ([b"a=1; sticky=abc; b=2"], b"abc"),
        ([b"a=1;sticky=abc;b=2"], b"abc"),
        ([b"a=1;    sticky=abc"], b"abc"),
        ([b"sticky=abc ; b=2"], b"abc "),
        ([b"sticky= abc"], b" abc"),
        ([b"sticky=first; sticky=second"], b"first"),
        ([b"sticky=; sticky=second"], b""),
        ([b"sticky=a=b=="], b"a=b=="),
        ([b"sticky; sticky=abc"], b"abc"),
        ([b"=abc; ;;; sticky=abc"], b"abc"),
        ([b"sticky =abc"], b""),
        ([b"xsticky=abc; stickyx=abc; STICKY=abc"], b""),
        ([b"\tsticky=abc"], b""),
        ([b"a=1", b"sticky=abc", b"sticky=later"], b"abc"),
        ([b"a=sticky", b"b=sticky=no"], b""),
        ([], b""),
    ],
)
def test_cookies_are_read_as_envoy_reads_them(lines: list[bytes], value: bytes) -> None:
    assert cookie_value(b"sticky", [(b"cookie", line) for line in lines]) == value


@given(st.binary(max_size=60))
def test_no_cookie_line_is_too_strange_to_be_read(line: bytes) -> None:
    assert cookie_value(b"a", [(b"cookie", line), (b"cookie", b"a=1")]) is not None


def test_a_cookie_that_is_there_is_hashed_and_not_sent_again() -> None:
    headers = [(b"cookie", b'a=1; sticky="0123"')]

    for policy in (COOKIE, MADE):
        assert key_of(policy, headers) == Key(xxh64_intdigest(b"0123"), b"0123", None)


def test_a_passive_cookie_that_is_absent_means_no_key() -> None:
    assert key_of(COOKIE, []) == NO_KEY
    assert key_of(COOKIE, [(b"cookie", b"sticky=")]) == NO_KEY


@pytest.mark.parametrize(
    ("client", "ends"),
    [
        (DIRECT, b"10.1.2.3:4000010.0.0.1:8080"),
        (Client("x", ENDS6, behind_trusted_hop=False), b"[2001:db8::7]:40000[2001:db8::1]:8080"),
    ],
)
def test_a_made_cookie_tells_the_connection_and_nothing_of_the_backend(
    client: Client, ends: bytes
) -> None:
    key = key_of(MADE, [], client)

    assert key.text == xxh64_hexdigest(ends)
    assert len(key.text) == 16
    assert key == key_of(MADE, [(b"cookie", b"other=1")], client)


@given(st.integers(1, 65535))
def test_the_request_with_a_made_cookie_hashes_as_the_one_before_it(port: int) -> None:
    ends = Connection("192.0.2.1", port, "192.0.2.2", 443)
    first = key_of(MADE, [], Client("192.0.2.1", ends, behind_trusted_hop=False))
    assert first.set_cookie is not None

    again = key_of(MADE, [(b"cookie", first.set_cookie.partition(b";")[0])])

    assert again == Key(first.hash, first.value, None)


def test_an_empty_cookie_is_made_anew() -> None:
    assert key_of(MADE, [(b"cookie", b"sticky=")]).set_cookie is not None


@pytest.mark.parametrize(
    ("ttl", "path", "attributes"),
    [
        (60.0, "", b"; Max-Age=60; HttpOnly"),
        (125.0, "/foo", b"; Max-Age=125; Path=/foo; HttpOnly"),
        (1.5, "", b"; Max-Age=1; HttpOnly"),
        (0.5, "/", b"; Path=/; HttpOnly"),
        (0.0, "", b"; HttpOnly"),
    ],
)
def test_set_cookie_is_written_as_envoy_writes_it(ttl: float, path: str, attributes: bytes) -> None:
    key = key_of(HashPolicy("cookie", "sticky", ttl, path), [])

    assert key.set_cookie == b'sticky="' + key.text.encode() + b'"' + attributes


def test_behind_a_trusted_hop_every_stream_gets_its_own_cookie() -> None:
    hop = Client("203.0.113.9", ENDS, behind_trusted_hop=True)
    numbers = iter([1, 2, 2])

    one, two, same = (hash_of(MADE, [], hop, lambda: next(numbers)) for _ in range(3))
    other = hash_of(MADE, [], hop._replace(ip="203.0.113.10"), lambda: 2)

    assert two == same
    assert len({one.text, two.text, other.text}) == 3
    assert all(len(key.text) == 16 for key in (one, two, other))


def test_without_addresses_no_cookie_is_made() -> None:
    assert key_of(MADE, [], UNIX) == NO_KEY


@pytest.mark.parametrize("ip", ["10.1.2.3", "2001:db8::7"])
def test_the_source_address_hashes_as_its_text(ip: str) -> None:
    client = Client(ip, ENDS, behind_trusted_hop=True)

    assert key_of(SOURCE_IP, [], client) == Key(xxh64_intdigest(ip.encode()), ip.encode(), None)


def test_an_unknown_source_address_means_no_key() -> None:
    assert key_of(SOURCE_IP, [], UNIX) == NO_KEY


def test_no_policy_means_no_key() -> None:
    assert key_of(None, [(b"x-user", b"alice")]) == NO_KEY
