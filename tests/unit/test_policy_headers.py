"""Heads on their way through: what goes, what comes, what stays exactly as it was."""

from __future__ import annotations

import pytest

from stickyproxy.model import Client, Connection, HeaderAdd, Headers, Target
from stickyproxy.policy.headers import HeaderPlan, clean_trailers, client_of, join_cookies
from stickyproxy.rules import EdgePolicy

PEER = Connection("192.0.2.7", 40000, "192.0.2.1", 443, tls_version="TLSv1.3")
EDGE = EdgePolicy()
ONE_HOP = EdgePolicy(xff_num_trusted_hops=1)
INTERNAL = EdgePolicy(use_remote_address=False)

GRPC_CALL: Headers = [
    (b":method", b"POST"),
    (b":scheme", b"https"),
    (b":path", b"/qotm.Qotm/Get"),
    (b":authority", b"qotm.example.com"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc+proto"),
    (b"user-agent", b"grpc-python/1.70"),
    (b"x-user", b"alice"),
    (b"trace-bin", b"AAEC/w"),
    (b"x-user", b"bob"),
    (b"trace-bin", b"AA==,BB=="),
]


def forward(
    headers: Headers,
    target: Target | None = None,
    edge: EdgePolicy = EDGE,
    *,
    upstream_tls: bool = False,
    path: bytes = b"/qotm.Qotm/Get",
    authority: bytes | None = None,
    grpc_timeout: bytes | None = None,
) -> Headers:
    plan = HeaderPlan(target or Target("t", "c"), edge, upstream_tls=upstream_tls)
    return plan.request(
        headers,
        client_of(headers, PEER, edge),
        path=path,
        authority=authority,
        grpc_timeout=grpc_timeout,
        request_id=b"made-by-us",
    )


def values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


def with_fields(*fields: tuple[bytes, bytes]) -> Headers:
    return [*GRPC_CALL, *fields]


def test_a_grpc_call_passes_in_order_with_duplicates_and_binary_metadata() -> None:
    sent = forward(GRPC_CALL)
    expected = [f if f[0] != b":scheme" else (b":scheme", b"http") for f in GRPC_CALL]
    assert sent[: len(GRPC_CALL)] == expected
    assert sent[len(GRPC_CALL) :] == [
        (b"x-forwarded-for", b"192.0.2.7"),
        (b"x-forwarded-proto", b"https"),
        (b"x-request-id", b"made-by-us"),
    ]


def test_the_clients_head_is_left_as_it_was() -> None:
    before = with_fields((b"connection", b"x-user"), (b"x-forwarded-for", b"10.0.0.1"))
    copy = list(before)
    forward(before, Target("t", "c", remove_request_headers=("x-user",)))
    assert before == copy


def test_path_authority_and_scheme_are_those_of_the_backend() -> None:
    sent = forward(GRPC_CALL, path=b"/Get", authority=b"other:80", upstream_tls=True)
    assert sent[:4] == [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", b"/Get"),
        (b":authority", b"other:80"),
    ]


def test_host_rewrite_sets_the_authority_unless_the_call_says_otherwise() -> None:
    target = Target("t", "c", host_rewrite="internal.example")
    assert values(forward(GRPC_CALL, target), b":authority") == [b"internal.example"]
    assert values(forward(GRPC_CALL, target, authority=b"x"), b":authority") == [b"x"]


def test_host_gives_way_to_the_authority() -> None:
    both = with_fields((b"host", b"evil.example"))
    assert values(forward(both), b"host") == []
    assert values(forward(both), b":authority") == [b"qotm.example.com"]


def test_a_head_with_only_host_gets_an_authority_in_front() -> None:
    head = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b"host", b"a.example")]
    sent = forward(head, path=b"/")
    assert values(sent, b"host") == []
    assert (b":authority", b"a.example") in sent[:4]


def test_connection_fields_and_what_they_nominate_go() -> None:
    sent = forward(
        with_fields(
            (b"connection", b"Keep-Alive, X-Hop"),
            (b"keep-alive", b"timeout=5"),
            (b"proxy-connection", b"keep-alive"),
            (b"transfer-encoding", b"chunked"),
            (b"upgrade", b"h2c"),
            (b"http2-settings", b"AAMAAABk"),
            (b"x-hop", b"1"),
            (b"trailer", b"expires"),
        )
    )
    names = {name for name, _ in sent}
    assert not names & {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
        b"x-hop",
    }
    assert values(sent, b"trailer") == [b"expires"]


def test_connection_cannot_nominate_framing_or_what_the_backend_trusts_us_for() -> None:
    nominated = b":path, te, content-length, x-forwarded-for, x-forwarded-proto, x-request-id"
    sent = forward(
        with_fields(
            (b"content-length", b"5"), (b"x-request-id", b"mine"), (b"connection", nominated)
        )
    )
    for name in (b":path", b"te", b"content-length", b"x-forwarded-for", b"x-request-id"):
        assert len(values(sent, name)) == 1, name


@pytest.mark.parametrize(
    ("te", "forwarded"),
    [
        ([b"trailers"], [b"trailers"]),
        ([b"gzip, Trailers;q=0.5"], []),
        ([b"gzip, Trailers"], [b"trailers"]),
        ([b"gzip"], []),
        ([b"trailers", b"gzip"], [b"trailers"]),
        ([], []),
    ],
)
def test_only_te_trailers_survives(te: list[bytes], forwarded: list[bytes]) -> None:
    plain = [field for field in GRPC_CALL if field[0] != b"te"]
    sent = forward([*plain, *((b"te", value) for value in te)])
    assert values(sent, b"te") == forwarded


def test_te_gzip_before_te_trailers_does_not_slip_through() -> None:
    sent = forward([(b"te", b"gzip"), *GRPC_CALL[:4], (b"te", b"trailers")])
    assert set(values(sent, b"te")) == {b"trailers"}


def test_the_peer_is_appended_to_one_forwarded_for_field() -> None:
    sent = forward(
        with_fields((b"x-forwarded-for", b"10.0.0.1"), (b"x-forwarded-for", b"10.0.0.2"))
    )
    assert values(sent, b"x-forwarded-for") == [b"10.0.0.1, 10.0.0.2, 192.0.2.7"]


def test_without_remote_address_forwarded_for_is_left_alone() -> None:
    fields = ((b"x-forwarded-for", b"10.0.0.1"), (b"x-forwarded-for", b"10.0.0.2"))
    sent = forward(with_fields(*fields), edge=INTERNAL)
    assert values(sent, b"x-forwarded-for") == [b"10.0.0.1", b"10.0.0.2"]
    assert values(forward(GRPC_CALL, edge=INTERNAL), b"x-forwarded-for") == []


def test_an_unknown_peer_appends_nothing() -> None:
    plan = HeaderPlan(Target("t", "c"), EDGE, upstream_tls=False)
    unix = Client("", Connection(), behind_trusted_hop=False)
    sent = plan.request(
        GRPC_CALL, unix, path=b"/", authority=None, grpc_timeout=None, request_id=b"i"
    )
    assert values(sent, b"x-forwarded-for") == []


@pytest.mark.parametrize(
    ("edge", "kept"), [(EDGE, b"https"), (ONE_HOP, b"http"), (INTERNAL, b"http")]
)
def test_forwarded_proto_is_believed_only_behind_a_trusted_hop(
    edge: EdgePolicy, kept: bytes
) -> None:
    claimed = with_fields((b"x-forwarded-proto", b"http"))
    assert values(forward(claimed, edge=edge), b"x-forwarded-proto") == [kept]
    assert values(forward(GRPC_CALL, edge=edge), b"x-forwarded-proto") == [b"https"]


def test_a_request_id_is_kept() -> None:
    sent = forward(with_fields((b"x-request-id", b"from-client")))
    assert values(sent, b"x-request-id") == [b"from-client"]


def test_the_shortened_timeout_replaces_the_clients_in_its_place() -> None:
    sent = forward(with_fields((b"grpc-timeout", b"10S"), (b"z", b"z")), grpc_timeout=b"9999m")
    assert sent[len(GRPC_CALL)] == (b"grpc-timeout", b"9999m")
    assert len(values(sent, b"grpc-timeout")) == 1


def test_a_timeout_is_added_where_the_client_sent_none_and_left_where_we_have_none() -> None:
    assert values(forward(GRPC_CALL, grpc_timeout=b"3S"), b"grpc-timeout") == [b"3S"]
    assert values(forward(with_fields((b"grpc-timeout", b"1H"))), b"grpc-timeout") == [b"1H"]


def test_request_headers_are_removed_then_added() -> None:
    target = Target(
        "t",
        "c",
        remove_request_headers=("X-User", ":path", "host"),
        add_request_headers=(
            HeaderAdd("X-User", "carol"),
            HeaderAdd("trace-bin", "CC", append=False),
            HeaderAdd("x-more", "1"),
            HeaderAdd(":authority", "evil"),
            HeaderAdd("Host", "evil"),
        ),
    )
    sent = forward(with_fields((b"x-more", b"0")), target)
    assert values(sent, b"x-user") == [b"carol"]
    assert values(sent, b"trace-bin") == [b"CC"]
    assert values(sent, b"x-more") == [b"0", b"1"]
    assert values(sent, b":path") == [b"/qotm.Qotm/Get"]
    assert values(sent, b":authority") == [b"qotm.example.com"]
    assert values(sent, b"host") == []


def test_removal_reaches_what_we_added_ourselves() -> None:
    target = Target("t", "c", remove_request_headers=("x-forwarded-for", "x-request-id"))
    names = {name for name, _ in forward(GRPC_CALL, target)}
    assert not names & {b"x-forwarded-for", b"x-request-id"}


RESPONSE: Headers = [
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"set-cookie", b"a=1"),
    (b"server", b"nginx"),
    (b"grpc-status", b"5"),
    (b"grpc-message", b"no%20such"),
]


def respond(headers: Headers, target: Target | None = None, cookie: bytes | None = None) -> Headers:
    return HeaderPlan(target or Target("t", "c"), EDGE, upstream_tls=False).response(
        headers, cookie
    )


def test_a_response_passes_as_it_is() -> None:
    assert respond(RESPONSE) == RESPONSE


def test_a_response_loses_the_fields_of_its_connection() -> None:
    hop = [
        (b"connection", b"close, x-hop"),
        (b"x-hop", b"1"),
        (b"keep-alive", b"timeout=5"),
        (b"transfer-encoding", b"chunked"),
    ]
    assert respond([*RESPONSE, *hop]) == RESPONSE


def test_response_headers_are_removed_then_added_and_our_cookie_comes_last() -> None:
    target = Target(
        "t",
        "c",
        remove_response_headers=("Server", "set-cookie"),
        add_response_headers=(HeaderAdd("x-served-by", "stickyproxy"),),
    )
    answered = respond(RESPONSE, target, b"sticky=1; Max-Age=60")
    assert values(answered, b"server") == []
    assert answered[-2:] == [
        (b"x-served-by", b"stickyproxy"),
        (b"set-cookie", b"sticky=1; Max-Age=60"),
    ]
    assert values(answered, b"set-cookie") == [b"sticky=1; Max-Age=60"]
    assert values(answered, b"grpc-status") == [b"5"]


def test_our_cookie_joins_those_of_the_backend() -> None:
    assert values(respond(RESPONSE, None, b"b=2"), b"set-cookie") == [b"a=1", b"b=2"]


def test_trailers_keep_everything_but_framing() -> None:
    trailers = [(b"grpc-status", b"0"), (b"content-length", b"3"), (b"x-bin", b"AA")]
    assert clean_trailers(trailers) == [(b"grpc-status", b"0"), (b"x-bin", b"AA")]


def test_cookie_crumbs_become_one_field_at_the_first_place() -> None:
    head = [(b":path", b"/"), (b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2; c=3")]
    assert join_cookies(head) == [(b":path", b"/"), (b"cookie", b"a=1; b=2; c=3"), (b"x", b"y")]


def test_one_cookie_or_none_is_left_alone() -> None:
    assert join_cookies(GRPC_CALL) is GRPC_CALL
    one = [(b"cookie", b"a=1"), (b"x", b"y")]
    assert join_cookies(one) is one


def hops(count: int) -> EdgePolicy:
    return EdgePolicy(xff_num_trusted_hops=count)


def inner(count: int) -> EdgePolicy:
    return EdgePolicy(use_remote_address=False, xff_num_trusted_hops=count)


@pytest.mark.parametrize(
    ("edge", "forwarded", "ip"),
    [
        (hops(0), [b"10.0.0.1, 10.0.0.2"], "192.0.2.7"),
        (hops(1), [b"10.0.0.1, 10.0.0.2"], "10.0.0.2"),
        (hops(2), [b"10.0.0.1, 10.0.0.2"], "10.0.0.1"),
        (hops(3), [b"10.0.0.1, 10.0.0.2"], "192.0.2.7"),
        (hops(1), [], "192.0.2.7"),
        (inner(0), [b"10.0.0.1, 10.0.0.2"], "10.0.0.2"),
        (inner(1), [b"10.0.0.1, 10.0.0.2"], "10.0.0.1"),
        (inner(2), [b"10.0.0.1, 10.0.0.2"], "192.0.2.7"),
        (inner(0), [], "192.0.2.7"),
        (inner(1), [b"10.0.0.1", b"10.0.0.2"], "10.0.0.1"),
        (inner(0), [b"10.0.0.1,"], "192.0.2.7"),
        (inner(0), [b"unknown"], "192.0.2.7"),
        (inner(0), [b"\xff\xfe"], "192.0.2.7"),
        (inner(0), [b" 10.0.0.9:1234 "], "10.0.0.9"),
        (inner(0), [b"[2001:DB8::1]:1234"], "2001:db8::1"),
        (inner(0), [b"2001:db8:0::1"], "2001:db8::1"),
        (inner(0), [b"::ffff:10.0.0.3"], "10.0.0.3"),
    ],
)
def test_the_client_is_the_address_behind_the_trusted_hops(
    edge: EdgePolicy, forwarded: list[bytes], ip: str
) -> None:
    headers = [(b"x-forwarded-for", value) for value in forwarded]
    assert client_of(headers, PEER, edge).ip == ip


@pytest.mark.parametrize(
    ("edge", "behind"), [(hops(0), False), (hops(1), True), (inner(0), True), (inner(1), True)]
)
def test_a_trusted_hop_is_one_that_the_edge_policy_names(edge: EdgePolicy, *, behind: bool) -> None:
    assert client_of([], PEER, edge) == Client("192.0.2.7", PEER, behind)
