"""Each row of the table of malformed requests has its verdict here."""

from __future__ import annotations

import pytest

from stickyproxy.codec import validate
from stickyproxy.codec.validate import (
    BodyLength,
    content_length,
    request_fault,
    response_fault,
    response_length,
    trailers_fault,
)
from stickyproxy.model import Headers

REQUEST: Headers = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":authority", b"svc.example:8080"),
    (b":path", b"/pkg.Service/Method"),
]


def request(**changes: bytes | None) -> Headers:
    """A good request head with pseudo-headers replaced, or left out where None."""
    kept = []
    for name, value in REQUEST:
        new = changes.get(name[1:].decode(), value)
        if new is not None:
            kept.append((name, new))
    return kept


def with_field(name: bytes, value: bytes = b"x") -> Headers:
    return [*REQUEST, (name, value)]


GOOD_REQUESTS = {
    "plain": REQUEST,
    "te trailers": with_field(b"te", b"trailers"),
    "obs-text in a value": with_field(b"x-name", b"caf\xc3\xa9"),
    "comma and inner white space": with_field(b"x-list", b"a, b\tc"),
    "empty value": with_field(b"x-empty", b""),
    "equal host": with_field(b"host", b"svc.example:8080"),
    "host in other case": with_field(b"host", b"SVC.example:8080"),
    "host alone": [*request(authority=None), (b"host", b"svc.example")],
    "same name twice": [*with_field(b"x-a", b"1"), (b"x-a", b"2")],
    "cookie crumbs": [*with_field(b"cookie", b"a=1"), (b"cookie", b"b=2")],
    "content-length": with_field(b"content-length", b"42"),
    "options for all": request(method=b"OPTIONS", path=b"*"),
    "query": request(path=b"/a?b=c&d=%20"),
    "ipv6 authority": request(authority=b"[::1]:443"),
    "trace": request(method=b"TRACE"),
    "plain connect": [(b":method", b"CONNECT"), (b":authority", b"db.example:5432")],
    "extended connect": [*request(method=b"CONNECT"), (b":protocol", b"websocket")],
    "extended connect, unknown protocol": [*request(method=b"CONNECT"), (b":protocol", b"foo")],
}

BAD_REQUESTS = {
    "two different content-length": [
        *with_field(b"content-length", b"5"),
        (b"content-length", b"6"),
    ],
    "two equal content-length": [*with_field(b"content-length", b"5"), (b"content-length", b"5")],
    "content-length +5": with_field(b"content-length", b"+5"),
    "content-length list": with_field(b"content-length", b"5, 5"),
    "content-length empty": with_field(b"content-length", b""),
    "transfer-encoding": with_field(b"transfer-encoding", b"chunked"),
    "connection": with_field(b"connection", b"close"),
    "keep-alive": with_field(b"keep-alive", b"timeout=5"),
    "proxy-connection": with_field(b"proxy-connection", b"close"),
    "upgrade": with_field(b"upgrade", b"websocket"),
    "te chunked": with_field(b"te", b"chunked"),
    "te trailers and more": with_field(b"te", b"trailers, deflate"),
    "CR in a value": with_field(b"x-a", b"a\rb"),
    "LF in a value": with_field(b"x-a", b"a\nb: c"),
    "NUL in a value": with_field(b"x-a", b"a\0b"),
    "DEL in a value": with_field(b"x-a", b"a\x7fb"),
    "colon in a name": with_field(b"x:a"),
    "space in a name": with_field(b"x a"),
    "upper case in a name": with_field(b"X-A"),
    "obs-text in a name": with_field(b"x-\xe9"),
    "LF at the end of a name": with_field(b"x-a\n"),
    "LF at the end of a value": with_field(b"x-a", b"b\n"),
    "empty name": with_field(b""),
    "leading space in a value": with_field(b"x-a", b" b"),
    "trailing tab in a value": with_field(b"x-a", b"b\t"),
    "value of one space": with_field(b"x-a", b" "),
    "CRLF in :path": request(path=b"/\r\nx: y"),
    "LF at the end of :path": request(path=b"/x\n"),
    "CRLF in :method": request(method=b"GET\r\n"),
    "space in :path": request(path=b"/a b"),
    ":path without slash": request(path=b"a"),
    "empty :path": request(path=b""),
    "absolute URI in :path": request(path=b"http://svc.example/"),
    "# in :path": request(path=b"/a#b"),
    "obs-text in :path": request(path=b"/caf\xe9"),
    "asterisk for GET": request(method=b"GET", path=b"*"),
    "space in :method": request(method=b"GET /admin"),
    "empty :method": request(method=b""),
    "junk :scheme": request(scheme=b"ht tp"),
    "other :scheme": request(scheme=b"ftp"),
    "user:pass@ in :authority": request(authority=b"user:pass@svc.example"),
    "slash in :authority": request(authority=b"svc.example/x"),
    "empty :authority": request(authority=b""),
    "two ports in :authority": request(authority=b"svc.example:80:81"),
    "host differs": with_field(b"host", b"other.example"),
    "two hosts, no :authority": [
        *request(authority=None),
        (b"host", b"a.example"),
        (b"host", b"a.example"),
    ],
    "neither :authority nor host": request(authority=None),
    "no :method": request(method=None),
    "no :scheme": request(scheme=None),
    "no :path": request(path=None),
    "doubled :path": [*REQUEST, (b":path", b"/")],
    "unknown pseudo-header": [(b":version", b"2"), *REQUEST],
    "pseudo-header after a field": [*request(path=None), (b"x-a", b"b"), (b":path", b"/")],
    "pseudo-header after host": [(b"host", b"svc.example:8080"), *REQUEST],
    ":status in a request": [*REQUEST, (b":status", b"200")],
    "connect with :path": request(method=b"CONNECT", scheme=None),
    "connect with :scheme": request(method=b"CONNECT", path=None),
    "connect without a port": [(b":method", b"CONNECT"), (b":authority", b"db.example")],
    "connect without :authority": [(b":method", b"CONNECT")],
    ":protocol without CONNECT": [*REQUEST, (b":protocol", b"websocket")],
    "malformed :protocol": [*request(method=b"CONNECT"), (b":protocol", b"web socket")],
    "extended connect without :path": [
        *request(method=b"CONNECT", path=None),
        (b":protocol", b"websocket"),
    ],
    "nothing": [],
}


@pytest.mark.parametrize("name", GOOD_REQUESTS)
def test_well_formed_request_has_no_fault(name: str) -> None:
    assert request_fault(GOOD_REQUESTS[name]) is None


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_malformed_request_has_a_fault(name: str) -> None:
    assert request_fault(BAD_REQUESTS[name]) is not None


def test_verdict_does_not_depend_on_what_was_seen_before() -> None:
    cases = [*GOOD_REQUESTS.values(), *BAD_REQUESTS.values()]
    first = [request_fault(case) for case in cases]
    assert [request_fault(case) for case in reversed(cases)] == first[::-1]
    validate._known.clear()
    assert [request_fault(case) for case in cases] == first


def test_memory_of_good_fields_is_bounded_and_holds_no_secret() -> None:
    validate._known.clear()
    for number in range(3 * validate._MEMO_PAIRS):
        assert request_fault(with_field(b"x-%d" % number)) is None
    assert len(validate._known) <= validate._MEMO_PAIRS
    assert request_fault(with_field(b"authorization", b"Bearer secret")) is None
    assert request_fault(with_field(b"x-long", b"v" * 4096)) is None
    assert (b"authorization", b"Bearer secret") not in validate._known
    assert all(len(value) < 4096 for _, value in validate._known)


GOOD_RESPONSES: list[Headers] = [
    [(b":status", b"200")],
    [(b":status", b"103"), (b"link", b"</a>; rel=preload")],
    [(b":status", b"599"), (b"content-length", b"0")],
]
BAD_RESPONSES: list[Headers] = [
    [],
    [(b"server", b"x")],
    [(b":status", b"20")],
    [(b":status", b"0200")],
    [(b":status", b"099")],
    [(b":status", b"101")],
    [(b":status", b"200"), (b":status", b"200")],
    [(b":status", b"200"), (b":path", b"/")],
    [(b":path", b"/"), (b":status", b"200")],
    [(b"server", b"x"), (b":status", b"200")],
    [(b":status", b"200"), (b"connection", b"close")],
    [(b":status", b"200"), (b"content-length", b"x")],
    [(b":status", b"200"), (b"x-a", b"a\r\nb")],
]


@pytest.mark.parametrize("headers", GOOD_RESPONSES)
def test_well_formed_response_has_no_fault(headers: Headers) -> None:
    assert response_fault(headers) is None


@pytest.mark.parametrize("headers", BAD_RESPONSES)
def test_malformed_response_has_a_fault(headers: Headers) -> None:
    assert response_fault(headers) is not None


def test_trailers_carry_fields_and_no_pseudo_header() -> None:
    assert trailers_fault([(b"grpc-status", b"0"), (b"grpc-message", b"")]) is None
    assert trailers_fault([]) is None
    assert trailers_fault([(b":status", b"200")]) == "pseudo-header in trailers"
    assert trailers_fault([(b"grpc-status", b"0"), (b":path", b"/")]) is not None
    assert trailers_fault([(b"transfer-encoding", b"chunked")]) is not None
    assert trailers_fault([(b"grpc-message", b"a\nb")]) is not None


def test_length_of_an_answer_follows_method_and_status() -> None:
    head: Headers = [(b":status", b"200"), (b"content-length", b"7")]
    assert content_length(head) == 7
    assert response_length(head, b"GET") == 7
    assert response_length(head, b"HEAD") == 0
    assert response_length([(b":status", b"304"), (b"content-length", b"7")], b"GET") == 0
    assert response_length([(b":status", b"200")], b"GET") is None


@pytest.mark.parametrize(
    ("declared", "parts", "fits"),
    [
        (None, [5, 5], True),
        (10, [5, 5], True),
        (0, [0], True),
        (10, [5, 4], False),
        (10, [5, 6], False),
        (0, [1], False),
        (5, [0], False),
    ],
)
def test_body_is_held_against_its_declared_length(
    declared: int | None, parts: list[int], fits: bool
) -> None:
    body = BodyLength(declared)
    verdicts = [body.fits(part, end=False) for part in parts[:-1]]
    verdicts.append(body.fits(parts[-1], end=True))
    assert all(verdicts) is fits


def test_too_long_a_body_is_noticed_before_its_end() -> None:
    assert not BodyLength(3).fits(4, end=False)
