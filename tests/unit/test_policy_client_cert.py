"""`x-forwarded-client-cert`: who may say it, what it says, and that it cannot be broken out of."""

from __future__ import annotations

import pytest

from stickyproxy.model import Client, ClientCert, Connection, Headers, Target
from stickyproxy.policy.headers import HeaderPlan
from stickyproxy.rules import EdgePolicy

CERT = ClientCert(
    sha256="ab" * 32,
    subject="CN=alice,O=Example",
    uris=("spiffe://example/alice",),
    names=("alice.example", "a.example"),
    pem="-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
)
SHOWN = Connection("10.0.0.1", 1, tls_version="TLSv1.3", client_cert=CERT)
NOT_SHOWN = Connection("10.0.0.1", 1, tls_version="TLSv1.3")
FIELD = b"x-forwarded-client-cert"
FORGED = b'Hash=00;Subject="CN=admin"'
HASH = b"Hash=" + b"ab" * 32
ALL = ("subject", "cert", "dns", "uri")


def forwarded(
    mode: str, connection: Connection, *said: bytes, details: tuple[str, ...] = ()
) -> list[bytes]:
    edge = EdgePolicy(client_cert=mode, client_cert_details=details)
    plan = HeaderPlan(Target("t", "c"), edge, upstream_tls=False)
    headers: Headers = [
        *((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/")),
        *((FIELD, value) for value in said),
    ]
    client = Client(connection.remote_ip, connection, behind_trusted_hop=False)
    sent = plan.request(
        headers, client, path=b"/", authority=None, grpc_timeout=None, request_id=b"id"
    )
    return [value for name, value in sent if name == FIELD]


CASES = [
    ("SANITIZE", SHOWN, []),
    ("SANITIZE", NOT_SHOWN, []),
    ("FORWARD_ONLY", SHOWN, [FORGED]),
    ("FORWARD_ONLY", NOT_SHOWN, []),
    ("APPEND_FORWARD", SHOWN, [FORGED + b"," + HASH]),
    ("APPEND_FORWARD", NOT_SHOWN, []),
    ("SANITIZE_SET", SHOWN, [HASH]),
    ("SANITIZE_SET", NOT_SHOWN, []),
    ("ALWAYS_FORWARD_ONLY", SHOWN, [FORGED]),
    ("ALWAYS_FORWARD_ONLY", NOT_SHOWN, [FORGED]),
]


@pytest.mark.parametrize(("mode", "connection", "expected"), CASES)
def test_what_a_client_says_of_itself(
    mode: str, connection: Connection, expected: list[bytes]
) -> None:
    assert forwarded(mode, connection, FORGED) == expected


def test_by_default_it_is_taken_away() -> None:
    assert EdgePolicy().client_cert == "SANITIZE"


def test_connection_does_not_take_ours_away() -> None:
    edge = EdgePolicy(client_cert="SANITIZE_SET")
    plan = HeaderPlan(Target("t", "c"), edge, upstream_tls=False)
    headers: Headers = [
        *((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/")),
        (b"connection", b"x-forwarded-client-cert"),
    ]
    sent = plan.request(
        headers, SHOWN.client, path=b"/", authority=None, grpc_timeout=None, request_id=b"id"
    )
    assert dict(sent)[FIELD] == HASH


def test_several_fields_are_one_list() -> None:
    assert forwarded("APPEND_FORWARD", SHOWN, b"Hash=1", b"Hash=2") == [b"Hash=1,Hash=2," + HASH]


def test_the_details_that_were_asked_for_in_envoys_order() -> None:
    [said] = forwarded("SANITIZE_SET", SHOWN, details=ALL)
    pairs = said.split(b";")
    assert pairs[0] == HASH
    assert pairs[1].startswith(b'Cert="-----BEGIN%20CERTIFICATE-----%0AMIIB')
    assert pairs[2:] == [
        *(b'Subject="CN=alice,O=Example"', b"URI=spiffe://example/alice"),
        *(b"DNS=alice.example", b"DNS=a.example"),
    ]


def test_a_certificate_cannot_say_more_than_its_own() -> None:
    nasty = CERT._replace(
        subject='CN=a",Hash=0;Subject="CN=admin\r\nx: y',
        uris=("spiffe://a;Hash=0,DNS=admin",),
        names=('a"b',),
    )
    shown = Connection("10.0.0.1", 1, tls_version="TLSv1.3", client_cert=nasty)
    [said] = forwarded("SANITIZE_SET", shown, details=("subject", "uri", "dns"))
    assert said == (
        HASH + b';Subject="CN=a\\",Hash=0;Subject=\\"CN=admin%0D%0Ax: y"'
        b';URI="spiffe://a;Hash=0,DNS=admin";DNS="a\\"b"'
    )


INTERNAL = (b"x-envoy-internal", b"x-envoy-external-address", b"x-envoy-original-path")


@pytest.mark.parametrize("name", INTERNAL)
def test_what_only_a_proxy_says_is_taken_away_from_strangers(name: bytes) -> None:
    plan = HeaderPlan(Target("t", "c"), EdgePolicy(), upstream_tls=False)
    headers: Headers = [
        *((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")),
        (name, b"true"),
    ]
    for hop, kept in ((False, False), (True, True)):
        sent = plan.request(
            headers,
            Client("10.0.0.1", NOT_SHOWN, behind_trusted_hop=hop),
            path=b"/",
            authority=None,
            grpc_timeout=None,
            request_id=b"id",
        )
        assert (name in dict(sent)) is kept
