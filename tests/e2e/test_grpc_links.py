"""What the connections below the calls go through: age, limits, abandoned bodies, TLS."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from stickyproxy.wire.codecs import HTTP2_ENGINES
from support.exposed import Exposed
from support.grpc_backends import PATIENCE, Client, Kind, connected, running_backends
from support.grpc_calls import access_line, answer_of, request_id, told
from support.http_lab import Authority
from support.plain_tables import endpoint_of
from support.proxy_process import ProxyProcess, running_proxy

PODS = ("pod-1", "pod-2", "pod-3")
MEGABYTE = bytes(1 << 20)
LONG = (("grpc.max_metadata_size", 200_000), ("grpc.absolute_max_metadata_size", 200_000))
NO_SPARE = ("--spare-connections", "0")


@pytest.fixture(scope="module", params=sorted(HTTP2_ENGINES))
def codec(request: pytest.FixtureRequest) -> tuple[str, str]:
    return ("--codec", request.param)


def test_servers_that_let_connections_grow_old_lose_no_call_and_no_session(
    codec: tuple[str, str],
) -> None:
    """GOAWAY again and again, amid calls: it concerns a connection, never a call or a session."""
    young = Kind(
        options=(
            ("grpc.max_connection_age_ms", 100),
            ("grpc.max_connection_age_grace_ms", 30_000),
        )
    )

    def use(client: Client, number: int) -> str:
        user = f"user-{number % 20}"
        metadata = (("x-user", user), ("x-times", "20"))
        assert len(list(client.repeat(bytes(1000), metadata=metadata, timeout=PATIENCE))) == 20
        return f"{user} {client.backend_of([('x-user', user)])}"

    unwatched = ("--connection-health", "off")  # on a busy machine a backend may look dead
    with running_backends(*PODS, kind=young) as fleet:
        flags = (*fleet.flags, "--sticky", "header:x-user", *codec, *unwatched)
        where = endpoint_of("maglev", sorted((backend.key, 1) for backend in fleet))
        home = {f"user-{n} {fleet.names[where(f'user-{n}')]}" for n in range(20)}
        with (
            running_proxy(*flags) as proxy,
            connected(proxy.target) as client,
            ThreadPoolExecutor(8) as threads,
        ):
            seen: set[str] = set()
            while Exposed(proxy).total("upstream_cx_total") < 3 * len(PODS):
                seen |= set(threads.map(use, [client] * 100, range(100)))
            codes = Counter(told(line) for line in proxy.wait_for_access(200))

    assert seen == home
    assert codes.keys() == {(200, 0, "-")}


def test_a_servers_limit_of_streams_is_met_by_more_connections_not_by_other_servers(
    codec: tuple[str, str],
) -> None:
    narrow = Kind(options=(("grpc.max_concurrent_streams", 2),))
    with running_backends(*PODS, kind=narrow) as fleet:
        where = endpoint_of("maglev", sorted((backend.key, 1) for backend in fleet))
        with (
            running_proxy(*fleet.flags, "--sticky", "header:x-user", *codec) as proxy,
            connected(proxy.target) as client,
        ):
            users = [f"user-{n % 5}" for n in range(40)]
            calls = [
                client.hold.future(b"", metadata=(("x-user", user),), timeout=PATIENCE)
                for user in users
            ]
            seen = fleet.journal.wait_for(40)
            links = Exposed(proxy).total("upstream_cx_active")
            with fleet.open_gates():
                codes = {answer_of(call)[0] for call in calls}

    assert codes == {grpc.StatusCode.OK}
    assert {(one.values("x-user")[0], one.backend) for one in seen} == {
        (user, fleet.names[where(user)]) for user in users
    }
    assert links >= 20


def early_answers(client: Client) -> None:
    for _ in range(10):
        assert list(client.first(itertools.repeat(MEGABYTE, 4), timeout=PATIENCE)) == [MEGABYTE]


def cancelled_uploads(client: Client) -> None:
    for turn in range(15):
        call = client.chat(itertools.repeat(MEGABYTE, 8), timeout=PATIENCE)
        for _ in range(turn % 3):
            next(call)
        call.cancel()


def abandoned_downloads(client: Client) -> None:
    for _ in range(10):
        call = client.repeat(MEGABYTE, metadata=(("x-times", "8"),), timeout=PATIENCE)
        next(call)
        call.cancel()


@pytest.fixture(scope="module")
def one_link(codec: tuple[str, str]) -> Iterator[ProxyProcess]:
    """A proxy before one server, whose connection (and no spare) all calls must share to the end."""
    with running_backends("pod") as fleet, running_proxy(*fleet.flags, *codec, *NO_SPARE) as proxy:
        yield proxy
        assert Exposed(proxy).total("upstream_cx_total") == 1


@pytest.mark.parametrize("waste", [early_answers, cancelled_uploads, abandoned_downloads])
def test_bodies_that_nobody_wants_cost_their_connections_no_credit(
    waste: Callable[[Client], None], one_link: ProxyProcess
) -> None:
    with connected(one_link.target) as client:
        waste(client)
        same = client.echo(MEGABYTE * 4, timeout=PATIENCE)
        waste(client)  # and then it hangs up
    with connected(one_link.target) as client:
        other = client.echo(MEGABYTE * 4, timeout=PATIENCE)

    assert same == other == MEGABYTE * 4


@pytest.fixture(scope="module")
def long_heads(codec: tuple[str, str]) -> Iterator[tuple[ProxyProcess, Client]]:
    with (
        running_backends("pod", kind=Kind(options=LONG)) as fleet,
        running_proxy(*fleet.flags, *codec) as proxy,
        connected(proxy.target, *LONG) as client,
    ):
        yield proxy, client


def test_long_metadata_passes_both_ways(long_heads: tuple[ProxyProcess, Client]) -> None:
    _, client = long_heads
    metadata = (("i-long", "i" * 28_000), ("t-long", "t" * 28_000))

    _, call = client.echo.with_call(b"", metadata=metadata, timeout=PATIENCE)

    assert dict(call.initial_metadata())["i-long"] == "i" * 28_000
    assert dict(call.trailing_metadata())["t-long"] == "t" * 28_000


def test_metadata_over_the_limit_ends_its_call_only(
    long_heads: tuple[ProxyProcess, Client],
) -> None:
    proxy, client = long_heads
    neighbour = client.chat(iter([b"a", b"b"]), timeout=PATIENCE)

    call = client.echo.future(
        b"", metadata=(request_id("long"), ("x-long", "x" * 62_000)), timeout=PATIENCE
    )

    code, message = answer_of(call)
    assert code is grpc.StatusCode.INTERNAL
    assert "(DPE headers_too_large)" in message
    assert list(neighbour) == [b"a", b"b"]
    assert client.echo(b"next", timeout=PATIENCE) == b"next"
    assert told(access_line(proxy, "long")) == (200, 13, "DPE")
    peers = {line["peer"] for line in list(proxy.access)}
    assert len(peers) == 1, "the connection did not survive"


def test_tls_on_both_sides(codec: tuple[str, str], tmp_path: Path) -> None:
    authority = Authority.make(tmp_path / "authority")
    pair = (authority.key_file.read_bytes(), authority.cert_file.read_bytes())
    secure = Kind(credentials=grpc.ssl_server_credentials([pair]))
    trusted = grpc.ssl_channel_credentials(authority.ca_file.read_bytes())
    with running_backends("pod", kind=secure) as fleet:
        flags = ("--backend", f"grpcs://{fleet['pod'].key}", *authority.proxy_flags, *codec)
        with (
            running_proxy(*flags, "--backend-ca", str(authority.ca_file)) as proxy,
            connected(proxy.target, credentials=trusted) as client,
        ):
            answer = client.echo(MEGABYTE, metadata=(request_id("tls"),), timeout=PATIENCE)
            line = access_line(proxy, "tls")

    assert answer == MEGABYTE
    assert told(line) == (200, 0, "-")
    assert line["tls"].startswith("TLSv1.")
