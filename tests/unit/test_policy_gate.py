"""The rules of the edge: who is let in, and what becomes of a head."""

from __future__ import annotations

import pytest

from stickyproxy.errors import ErrorKind, ProxyError
from stickyproxy.model import Client, Connection, Headers
from stickyproxy.policy import gate as gate_module
from stickyproxy.policy.gate import Gate, gate_of
from stickyproxy.rules import EdgePolicy, GateRules, IpRange

HEAD: Headers = [
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":authority", b"a.example:8080"),
    (b":path", b"/a/b"),
    (b"x-request-id", b"theirs"),
    (b"x_under", b"1"),
]


def client(ip: str = "10.1.1.1", peer: str = "192.0.2.1", *, hop: bool = False) -> Client:
    return Client(ip, Connection(remote_ip=peer, local_port=8080), behind_trusted_hop=hop)


def gate(**rules: object) -> Gate:
    return Gate(EdgePolicy(gate=GateRules(**rules)))  # type: ignore[arg-type]


def at(path: str) -> Headers:
    return [(n, path.encode() if n == b":path" else v) for n, v in HEAD]


def is_let_in(wanted: Gate, who: Client) -> bool:
    try:
        wanted.admit(HEAD, who)
    except ProxyError as error:
        return error.kind is not ErrorKind.FORBIDDEN
    return True


def test_without_rules_there_is_no_gate() -> None:
    assert gate_of(EdgePolicy(xff_num_trusted_hops=2)) is None
    assert gate_of(EdgePolicy(gate=GateRules(server="x"))) is not None


def test_a_head_that_no_rule_touches_is_the_same_one() -> None:
    assert gate(merge_slashes=True, strip_port=False).admit(HEAD, client()) is HEAD


# --- addresses ------------------------------------------------------------------------------------


def test_the_client_and_the_peer_are_told_apart() -> None:
    remote = gate(ip_deny=(IpRange("10.0.0.0/8"),))
    peer = gate(ip_deny=(IpRange("10.0.0.0/8", peer=True),))

    assert not is_let_in(remote, client("10.1.1.1", "192.0.2.1"))
    assert is_let_in(remote, client("192.0.2.1", "10.1.1.1"))
    assert is_let_in(peer, client("10.1.1.1", "192.0.2.1"))
    assert not is_let_in(peer, client("192.0.2.1", "10.1.1.1"))


def test_an_allow_list_lets_in_who_is_in_any_range() -> None:
    allowing = gate(ip_allow=(IpRange("10.0.0.0/8"), IpRange("2001:db8::/32")))

    assert is_let_in(allowing, client("10.255.0.1"))
    assert is_let_in(allowing, client("2001:db8::7"))
    assert not is_let_in(allowing, client("11.0.0.1"))
    assert not is_let_in(allowing, client("::1"))


def test_an_unknown_address_is_in_no_range() -> None:
    everybody = (IpRange("0.0.0.0/0"), IpRange("::/0"))

    assert not is_let_in(gate(ip_allow=everybody), client("", ""))
    assert is_let_in(gate(ip_deny=everybody), client("", ""))


def test_the_memory_of_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "MEMO_SIZE", 4)
    denying = gate(ip_deny=(IpRange("10.0.0.8/29"),))

    for _ in range(2):
        for number in range(16):
            assert is_let_in(denying, client(f"10.0.0.{number}")) == (number < 8)
    assert len(denying._known) <= 4


# --- heads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "merged"),
    [
        ("//a///b//", "/a/b/"),
        ("/a/b?x=//y", "/a/b?x=//y"),
        ("/a//b?x=//y", "/a/b?x=//y"),
        ("/a/b", "/a/b"),
    ],
)
def test_slashes_of_the_path_are_merged_and_the_querys_are_not(path: str, merged: str) -> None:
    assert gate(merge_slashes=True).admit(at(path), client()) == at(merged)


@pytest.mark.parametrize("path", ["/a%2fb", "/a%2Fb", "/%5c", "/a%5Cb?x"])
def test_escaped_slashes_are_refused(path: str) -> None:
    with pytest.raises(ProxyError) as caught:
        gate(reject_escaped_slashes=True).admit(at(path), client())

    assert caught.value.kind is ErrorKind.BAD_REQUEST


@pytest.mark.parametrize("path", ["/a?x=%2F", "/a%20b", "/a%252F"])
def test_other_escapes_pass(path: str) -> None:
    assert gate(reject_escaped_slashes=True).admit(at(path), client()) == at(path)


@pytest.mark.parametrize(
    ("authority", "stripped"),
    [
        (b"a.example:8080", b"a.example"),
        (b"a.example:80", b"a.example:80"),
        (b"a.example:18080", b"a.example:18080"),
        (b"[::1]:8080", b"[::1]"),
        (b"a.example", b"a.example"),
    ],
)
def test_only_the_port_we_listen_on_is_stripped(authority: bytes, stripped: bytes) -> None:
    headers = [(n, authority if n == b":authority" else v) for n, v in HEAD]
    admitted = dict(gate(strip_port=True).admit(headers, client()))

    assert admitted[b":authority"] == stripped


def test_headers_with_underscores_are_dropped_or_refused() -> None:
    dropped = gate(underscores="drop").admit(HEAD, client())
    assert dropped == [field for field in HEAD if field[0] != b"x_under"]
    with pytest.raises(ProxyError) as caught:
        gate(underscores="reject").admit(HEAD, client())
    assert caught.value.kind is ErrorKind.BAD_REQUEST
    assert gate(underscores="reject").admit(dropped, client()) == dropped


# --- https ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "tls", "hop", "goes_on"),
    [
        (b"https", "", True, True),
        (b"http", "", True, False),
        (b"", "", True, False),
        (b"", "TLSv1.3", True, True),
        (b"http", "TLSv1.3", True, False),
        (b"nonsense", "", True, False),
        (b"https", "", False, False),
        (b"http", "TLSv1.3", False, True),
    ],
)
def test_what_did_not_come_over_tls_as_far_as_one_can_believe_is_sent_there(
    told: bytes, tls: str, hop: bool, goes_on: bool
) -> None:
    headers = HEAD + ([(b"x-forwarded-proto", told)] if told else [])
    who = Client("", Connection(tls_version=tls), behind_trusted_hop=hop)
    place = gate(https_redirect=True).elsewhere(headers, who)

    assert place == (None if goes_on else b"https://a.example:8080/a/b")
    assert gate(merge_slashes=True).elsewhere(headers, who) is None
