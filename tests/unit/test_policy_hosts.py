"""Which Host a request is for, and what becomes of it there."""

from __future__ import annotations

import pytest

from stickyproxy.edge import (
    INSECURE,
    REDIRECT,
    REJECT,
    ROUTE,
    SECURE,
    XFP,
    Elsewhere,
    Front,
    Guard,
    HostRule,
    ListenerSpec,
)
from stickyproxy.errors import ErrorKind, ProxyError
from stickyproxy.model import Client, Connection, Headers, Route, RouteMatch, Target
from stickyproxy.policy.hosts import ACME_CHALLENGE, Hosts, hosts_of
from stickyproxy.policy.routes import Routes
from stickyproxy.rules import EdgePolicy

SHOP = frozenset({("team", "shop")})


def route(name: str, path: str = "/", hostname: str = "*", *targets: Target) -> Route:
    return Route(name, RouteMatch(path, hostname=hostname), targets or (Target(name, "c"),))


ROUTES = Routes(
    [
        route("everybody"),
        route("labelled", "/labelled/", "*", Target("labelled", "c", labels=SHOP)),
        route("own", "/own/", "a.example"),
        route("challenge", ACME_CHALLENGE),
        route(
            "canary",
            "/canary/",
            "*",
            Target("old", "c", labels=SHOP),
            Target("new", "c"),
        ),
    ]
)


def hosts(
    *rules: HostRule, edge: EdgePolicy | None = None, guards: tuple[Guard, ...] = ()
) -> Hosts:
    found = hosts_of(Front(hosts=rules, guards=guards), ROUTES, edge or EdgePolicy())
    assert found is not None
    return found


def asking(
    where: Hosts,
    url: str,
    *,
    tls: str | None = None,
    listener: str = "",
    said: str = "",
    behind_hop: bool = False,
) -> str:
    """What comes of a request: a route's name, `-> location`, or `404`.

    `tls` is the name of the certificate, "" the default's; None is no TLS.
    """
    host, _, path = url.partition("/")
    headers: Headers = [
        (b":method", b"GET"),
        (b":path", f"/{path}".encode()),
        (b":authority", host.encode()),
    ]
    if said:
        headers.append((b"x-forwarded-proto", said.encode()))
    version = "" if tls is None else "TLSv1.3"
    connection = Connection(tls_version=version, tls_name=tls or "", listener=listener)
    found = where.find(headers, Client("", connection, behind_trusted_hop=behind_hop))
    if isinstance(found, Elsewhere):
        return f"-> {found.location.decode()}"
    return found.name if found is not None else "404"


def test_where_nothing_asks_for_it_there_is_nothing_to_pass() -> None:
    assert hosts_of(Front(), ROUTES, EdgePolicy()) is None
    listener = ListenerSpec("l", 80)
    assert hosts_of(Front(listeners=(listener,)), ROUTES, EdgePolicy()) is None
    unguarded = Front(guards=(Guard("*", ""),))
    assert hosts_of(unguarded, ROUTES, EdgePolicy()) is None


def test_the_most_special_host_counts() -> None:
    where = hosts(
        HostRule("star", "*", REJECT),
        HostRule("wide", "*.example", REDIRECT),
        HostRule("deep", "*.b.example", REJECT),
        HostRule("tail", "shop.*", REDIRECT),
        HostRule("exact", "a.example", ROUTE),
    )
    assert asking(where, "a.example/own/x") == "own"
    assert asking(where, "A.EXAMPLE:8080/") == "everybody"
    assert asking(where, "b.example/") == "-> https://b.example/"
    assert asking(where, "x.b.example/") == "404"
    assert asking(where, "shop.test/") == "-> https://shop.test/"
    assert asking(where, "elsewhere/") == "404"


def test_a_name_that_no_host_has_is_not_found() -> None:
    where = hosts(HostRule("a", "a.example", ROUTE))
    assert asking(where, "b.example/") == "404"
    assert asking(where, "b.example/", tls="") == "404"


@pytest.mark.parametrize(
    ("insecure", "plain"),
    [(REDIRECT, "-> https://a.example/own/?q=1"), (REJECT, "404"), (ROUTE, "own")],
)
def test_only_what_is_not_secure_is_sent_away(insecure: str, plain: str) -> None:
    where = hosts(HostRule("a", "a.example", insecure))
    assert asking(where, "a.example/own/?q=1") == plain
    assert asking(where, "a.example/own/?q=1", tls="") == "own"


def test_a_redirect_is_for_what_has_a_route() -> None:
    routes = Routes([route("own", "/own/")])
    where = Hosts(Front(hosts=(HostRule("a", "*"),)), routes, EdgePolicy())
    assert asking(where, "a.example/own/") == "-> https://a.example/own/"
    assert asking(where, "a.example/other") == "404"


def test_port_80_is_no_port_of_https() -> None:
    where = hosts(HostRule("a", "*"))
    assert asking(where, "a.example:80/") == "-> https://a.example/"
    assert asking(where, "a.example:8080/") == "-> https://a.example:8080/"


@pytest.mark.parametrize("insecure", [REDIRECT, REJECT])
def test_challenges_of_acme_come_without_tls(insecure: str) -> None:
    where = hosts(HostRule("a", "*", insecure))
    assert asking(where, "a.example/.well-known/acme-challenge/token") == "challenge"


def test_a_believed_hop_says_what_is_secure_and_nobody_else() -> None:
    where = hosts(HostRule("a", "*", REJECT))
    assert asking(where, "a/", said="https") == "404"
    assert asking(where, "a/", said="https", behind_hop=True) == "everybody"
    assert asking(where, "a/", said="http", behind_hop=True, tls="") == "404"
    assert asking(where, "a/", said="gopher", behind_hop=True, tls="") == "everybody"


def test_a_listener_says_what_is_secure_and_which_hosts_there_are() -> None:
    reject, only = HostRule("a", "*", REJECT), HostRule("b", "b", ROUTE)
    listeners = (
        ListenerSpec("xfp", 1, security=XFP, hosts=(reject,)),
        ListenerSpec("secure", 2, security=SECURE, hosts=(reject,)),
        ListenerSpec("insecure", 3, security=INSECURE, hosts=(reject,)),
        ListenerSpec("some", 4, hosts=(only,)),
    )
    where = Hosts(Front(hosts=(reject, only), listeners=listeners), ROUTES, EdgePolicy())
    assert asking(where, "a/", listener="xfp") == "404"
    assert asking(where, "a/", listener="xfp", tls="") == "everybody"
    assert asking(where, "a/", listener="secure") == "everybody"
    assert asking(where, "a/", listener="insecure", tls="") == "404"
    assert asking(where, "b/", listener="some") == "everybody"
    assert asking(where, "a/", listener="some", tls="") == "404"
    assert asking(where, "b/", listener="gone") == "everybody", "as at a bind"


def test_a_listener_says_whom_to_believe() -> None:
    listeners = (ListenerSpec("deep", 1, l7_depth=2), ListenerSpec("flat", 2))
    where = hosts_of(Front(listeners=listeners), ROUTES, EdgePolicy(xff_num_trusted_hops=1))
    assert where is not None
    assert where.edge("deep").xff_num_trusted_hops == 2
    assert where.edge("flat").xff_num_trusted_hops == 1
    assert where.edge("").xff_num_trusted_hops == 1
    assert asking(where, "any.name/", listener="deep") == "everybody"


def test_a_selector_leaves_only_the_mappings_that_have_its_labels() -> None:
    where = hosts(
        HostRule("shop", "shop", ROUTE, SHOP),
        HostRule("more", "more", ROUTE, SHOP | {("tier", "web")}),
        HostRule("all", "all", ROUTE),
    )
    assert asking(where, "shop/labelled/x") == "labelled"
    assert asking(where, "shop/") == "404"
    assert asking(where, "more/labelled/x") == "404"
    assert asking(where, "all/labelled/x") == "labelled"


def test_of_a_weighted_group_only_those_with_the_labels_are_left_and_stay_the_same_objects() -> (
    None
):
    where = hosts(HostRule("shop", "*", ROUTE, SHOP))
    headers: Headers = [(b":method", b"GET"), (b":path", b"/canary/"), (b":authority", b"shop")]
    found = where.find(headers, Client("", Connection(), behind_trusted_hop=False))
    assert isinstance(found, Route)
    whole = next(one for one in ROUTES.routes if one.name == "canary")
    assert [target.name for target in found.targets] == ["old"]
    assert found.targets[0] is whole.targets[0]


# --- who came by which handshake ------------------------------------------------------------------


GUARDS = (Guard("a.example", "Host a"), Guard("*.example", ""))


def test_a_host_that_wants_certificates_is_reached_by_its_own_handshake_only() -> None:
    where = hosts(HostRule("a", "a.example"), HostRule("b", "*.example"), guards=GUARDS)
    assert asking(where, "a.example/own/", tls="Host a") == "own"
    assert asking(where, "b.example/", tls="Host a") == "everybody"
    for other in ("Host b", ""):
        with pytest.raises(ProxyError) as caught:
            asking(where, "a.example/own/", tls=other)
        assert caught.value.kind is ErrorKind.MISDIRECTED
        assert caught.value.kind.http == 421


def test_that_holds_without_any_host_and_under_a_wider_one() -> None:
    nobody = hosts_of(Front(guards=GUARDS), ROUTES, EdgePolicy())
    assert nobody is not None
    for where in (nobody, hosts(HostRule("all", "*", ROUTE), guards=GUARDS)):
        assert asking(where, "a.example/", tls="Host a") == "everybody"
        assert asking(where, "other/", tls="") == "everybody"
        with pytest.raises(ProxyError):
            asking(where, "a.example/", tls="Host b")


def test_a_hop_that_says_https_has_shown_no_certificate() -> None:
    where = hosts(HostRule("a", "a.example"), guards=GUARDS)
    with pytest.raises(ProxyError):
        asking(where, "a.example/", said="https", behind_hop=True)


def test_what_is_not_secure_is_redirected_and_served_only_where_the_host_says_so() -> None:
    redirecting = hosts(HostRule("a", "a.example"), guards=GUARDS)
    assert asking(redirecting, "a.example/") == "-> https://a.example/"
    serving = hosts(HostRule("a", "a.example", ROUTE), guards=GUARDS)
    assert asking(serving, "a.example/") == "everybody"
