"""The live pages: what they say, to whom, and that nobody measures while nobody looks."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import trio

from stickyproxy.control.admin.app import LIVE_PAGES, AdminResponse
from stickyproxy.control.admin.callers import foreign
from stickyproxy.control.admin.live import AdminLive, Written
from stickyproxy.control.explain import Request
from stickyproxy.control.live.ask import Asked, query_of
from stickyproxy.control.live.drawing import drawn
from stickyproxy.control.live.feed import EVERY, FIRST, LiveFeed, Told
from stickyproxy.model import (
    Cluster,
    ClusterSpec,
    Endpoint,
    HashPolicy,
    LoadBalancer,
    Snapshot,
    UpstreamProtocol,
)
from stickyproxy.policy.maglev import MaglevTable
from stickyproxy.policy.ring_hash import RingHash
from support.adminview import CLUSTER, ROUTE, SECRET, Routes, View
from support.clock import on_jumping_clock

KEYS = ("10.0.0.1:80", "10.0.0.2:80")
NASTY = '<script>alert("x")</script>&'


def cluster(policy: str = "maglev", *, pod: str = "", service: str = "greeter") -> Cluster:
    weighted = [(key, 1.0) for key in KEYS]
    table = MaglevTable.build(weighted, 251) if policy == "maglev" else RingHash.build(weighted)
    spec = ClusterSpec(
        name="greeters",
        service=service,
        protocol=UpstreamProtocol.H2C,
        targets=(),
        load_balancer=LoadBalancer(policy, HashPolicy("header", "x-user-id")),
    )
    endpoints = tuple(Endpoint(key, ((key[:8], 80),), pod=pod or None) for key in KEYS)
    return Cluster(spec, endpoints, table)


class Open:
    """The pages of a view, with their feed running."""

    def __init__(self, view: View, nursery: trio.Nursery) -> None:
        self.feed = LiveFeed(view)
        self.pages = AdminLive(view, self.feed)
        nursery.start_soon(self.feed.run)

    async def get(
        self, target: str, *, loopback: bool = True, **fields: str
    ) -> AdminResponse | None:
        said = {b":authority": b"localhost:9901"}
        said |= {name.replace("_", "-").encode(): value.encode() for name, value in fields.items()}
        if "host" in fields:
            said[b":authority"] = fields["host"].encode()
        return await self.pages.find(target, said, loopback=loopback)

    async def text(self, target: str, **fields: str) -> str:
        found = await self.get(target, loopback=True, **fields)
        assert found is not None
        assert found.status == 200, found.body
        return found.body.decode()


def view_of(one: Cluster) -> View:
    view = View()
    view.current = Snapshot(7, Routes([ROUTE]), {"greeters": one})
    return view


class Tags(HTMLParser):
    """Which elements there are, and that each that is opened is closed."""

    VOID = frozenset(("meta", "link", "input", "img"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, _: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@on_jumping_clock
async def test_the_page_is_whole_without_javascript() -> None:
    async with trio.open_nursery() as nursery:
        page = await Open(view_of(cluster()), nursery).text("/live")
        nursery.cancel_scope.cancel()

    tags = Tags(page)
    assert tags.open == []
    assert tags.seen.count("tr") == 1 + len(KEYS) + 1  # heads, endpoints, all
    assert all(key in page for key in KEYS)
    assert "http:" not in page.replace("http://www.w3.org", "")  # no outside asset
    assert "https:" not in page


@on_jumping_clock
async def test_a_browser_at_the_root_gets_it_and_curl_the_list() -> None:
    async with trio.open_nursery() as nursery:
        pages = Open(View(), nursery)
        assert "<title>stickyproxy" in await pages.text("/", accept="text/html,*/*")
        assert await pages.get("/", accept="*/*") is None
        assert await pages.get("/clusters") is None
        nursery.cancel_scope.cancel()


@on_jumping_clock
async def test_names_are_text_and_never_markup() -> None:
    async with trio.open_nursery() as nursery:
        pages = Open(view_of(cluster(pod=NASTY, service=NASTY)), nursery)
        query = "/live?path=/%3Cscript%3E&header=x:%22%3E%3Cimg%20src=x%3E"
        page = await pages.text(query)
        nursery.cancel_scope.cancel()

    assert Tags(page).seen.count("script") == 1
    assert Tags(page).seen.count("img") == 1  # the picture of the table
    assert "alert(" not in page.replace("alert(&quot;", "")


@on_jumping_clock
async def test_only_what_names_this_machine_is_answered_by_loopback() -> None:
    async with trio.open_nursery() as nursery:
        pages = Open(View(), nursery)
        for path in LIVE_PAGES:
            refused = await pages.get(path, host="evil.example:9901")
            assert refused is not None
            assert refused.status == 403
        for host in ("127.0.0.1:9901", "[::1]:9901", "localhost", "proxy.localhost:1", ""):
            found = await pages.get("/live", host=host)
            assert found is not None
            assert found.status == 200, host
        far = await pages.get("/live", loopback=False, host="proxy.example:9901")
        assert far is not None
        assert far.status == 200
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("http://127.0.0.1:9901", True),
        ("http://127.0.0.1:80", False),
        ("http://evil.example", False),
        ("https://127.0.0.1.evil.example:9901", False),
        ("null", False),
        ("", False),
    ],
)
def test_a_websocket_is_only_for_pages_from_here(origin: str | None, allowed: bool) -> None:
    fields = {b":authority": b"127.0.0.1:9901"}
    if origin is not None:
        fields[b"origin"] = origin.encode()
    assert (not foreign(fields)) == allowed


@on_jumping_clock
async def test_a_connection_that_is_not_well_is_said_beside_its_endpoint() -> None:
    view = view_of(cluster())
    view.counted.links["greeters", KEYS[1]] = [
        "well, 3 streams",
        "suspect, 1 stream, for 0.2 s: late",
    ]
    async with trio.open_nursery() as nursery:
        page = await Open(view, nursery).text("/live")
        nursery.cancel_scope.cancel()
    assert ">1 connection suspect: late<" in page
    assert "connections: 1 well, 1 suspect" in page
    assert ">well, 3 streams; suspect, 1 stream, for 0.2 s: late<" in page
    assert page.index(KEYS[1] + "</th>") < page.index(KEYS[0] + "</th>"), "it stands first"


@on_jumping_clock
async def test_who_is_in_trouble_is_said_above_all_with_the_reason_and_what_it_holds() -> None:
    view = view_of(cluster())
    async with trio.open_nursery() as nursery:
        pages = Open(view, nursery)
        well = await pages.text("/live")
        view.counted.links["greeters", KEYS[0]] = ["all silent: its requests go elsewhere"]
        await trio.sleep(3 * EVERY)
        silent = await pages.text("/live")
        nursery.cancel_scope.cancel()
    assert "All 2 endpoints are well." in well
    assert "1 of 2 endpoints is not well." in silent
    line = silent[silent.index('<a href="#c0">greeters</a>') : silent.index("</ul>")]
    assert f"<b>{KEYS[0]}</b> all silent: its requests go elsewhere" in line
    assert "home of 5" in line
    assert silent.index("not well") < silent.index("<table>")


@on_jumping_clock
async def test_endpoints_with_the_same_trouble_are_one_line() -> None:
    many = [Endpoint(f"10.0.0.{n}:80", ((f"10.0.0.{n}", 80),)) for n in range(10, 50)]
    view = view_of(replace(cluster(), endpoints=tuple(many), table=None))
    for one in many[5:]:
        view.counted.links["greeters", one.key] = ["all silent: its requests go elsewhere"]
    async with trio.open_nursery() as nursery:
        page = await Open(view, nursery).text("/live")
        nursery.cancel_scope.cancel()
    assert "35 of 40 endpoints are not well." in page
    assert "<b>10.0.0.17:80</b> and 32 more all silent: its requests go elsewhere</li>" in page
    assert page.count('<a href="#c0">') == 1


@pytest.mark.parametrize("problem", ["", "DNS: greeter: no address"])
@on_jumping_clock
async def test_a_cluster_without_endpoints_is_trouble(problem: str) -> None:
    view = view_of(replace(cluster(), endpoints=(), table=None))
    view.problems["greeters"] = problem
    async with trio.open_nursery() as nursery:
        page = await Open(view, nursery).text("/live")
        nursery.cancel_scope.cancel()
    assert f"greeters</a>: {problem or 'it has no endpoints'}<" in page


@on_jumping_clock
async def test_a_page_that_nobody_watches_has_rates_all_the_same() -> None:
    view = Busy()
    async with trio.open_nursery() as nursery:
        account = (await Open(view, nursery).feed.once()).account
        nursery.cancel_scope.cancel()
    assert account["rate"] == pytest.approx(10 / FIRST)


# --- asking ---------------------------------------------------------------------------------------


@on_jumping_clock
async def test_asking_answers_on_the_live_tables_and_says_who_was_passed_over() -> None:
    view = view_of(cluster())
    one = view.current.clusters["greeters"] if view.current is not None else CLUSTER
    async with trio.open_nursery() as nursery:
        pages = Open(view, nursery)
        first = json.loads(await pages.text(f"/explain?{query_of(ALICE)}"))
        view.current = Snapshot(8, Routes([ROUTE]), {"greeters": _without(one, first["endpoint"])})
        second = json.loads(await pages.text(f"/explain?{query_of(ALICE)}"))
        nursery.cancel_scope.cancel()

    assert first["policy"] == "maglev"
    assert first["reaches"]
    assert second["endpoint"] != first["endpoint"]
    assert first["endpoint"] in second["reason"]


@pytest.mark.parametrize("policy", ["round_robin", "least_request", "maglev"])
@on_jumping_clock
async def test_who_is_passed_over_is_said_where_no_key_decides_too(policy: str) -> None:
    one = cluster()
    spec = replace(
        one.spec, load_balancer=replace(one.spec.load_balancer, policy=policy, hash=None)
    )
    endpoints = tuple(Endpoint(key, ((key, 80),)) for key in (*KEYS, "[::1]:80"))
    view = view_of(Cluster(spec, endpoints, inadmissible=frozenset({KEYS[1]})))
    async with trio.open_nursery() as nursery:
        pages = Open(view, nursery)
        reason = json.loads(await pages.text(f"/explain?{query_of(ALICE)}"))["reason"]
        nursery.cancel_scope.cancel()
    out = f"; {KEYS[0]}; not {KEYS[1]} (not ready), not [::1]:80 (ejected: consecutive_5xx)"
    assert out in reason


@on_jumping_clock
async def test_in_panic_nobody_is_passed_over() -> None:
    view = View()
    async with trio.open_nursery() as nursery:
        pages = Open(view, nursery)
        calm = json.loads(await pages.text(f"/explain?{query_of(ALICE)}"))
        view.panicking.add("greeters")
        panic = json.loads(await pages.text(f"/explain?{query_of(ALICE)}"))
        nursery.cancel_scope.cancel()
    assert "not [::1]:80" in calm["reason"] or calm["endpoint"] != "[::1]:80"
    assert "not [::1]:80" not in panic["reason"]


ALICE = Request(
    path=f"/a.B/?api_key={SECRET}",
    headers=(f"authorization: {SECRET}", "x-team: blue", "cookie: sticky-cookie=alice"),
)
"""As the view's one route wants it."""


def _without(one: Cluster, key: str) -> Cluster:
    return Cluster(one.spec, one.endpoints, one.table, inadmissible=frozenset({key}))


@pytest.mark.parametrize(
    ("query", "wrong"),
    [("path=nope", "begin with /"), ("method=a", "pkg.Service"), ("port=x&path=/", "no number")],
)
@on_jumping_clock
async def test_a_bad_question_is_told_what_would_be_right(query: str, wrong: str) -> None:
    async with trio.open_nursery() as nursery:
        pages = Open(View(), nursery)
        found = await pages.get(f"/explain?{query}")
        page = await pages.text(f"/live?{query}")
        nursery.cancel_scope.cancel()

    assert found is not None
    assert found.status == 400
    assert wrong in json.loads(found.body)["error"]
    assert wrong in page
    assert "--" not in page[page.index('id="answer"') :], "a page has no flags"


def test_a_request_survives_its_query() -> None:
    asked = Request(
        path="/a?b=c&d",
        headers=("x-user: ä b&c", "cookie: a=b"),
        source_ip="::1",
        authority="shop.example",
        http_method="PUT",
        tls=True,
        port=8443,
    )
    found = Asked(query_of(asked)).request()
    assert (found, list(found.headers)) == (
        replace(asked, headers=found.headers),
        list(asked.headers),
    )


def test_a_look_is_written_once_for_all_who_watch() -> None:
    said: list[int] = []

    def write(told: Told) -> str:
        said.append(told.serial)
        return f"look {told.serial}"

    written = Written(write)
    looks = [Told(n, {}, ()) for n in (1, 2)]
    texts = [written.of(told) for told in (looks[0], looks[0], looks[1], looks[1], looks[1])]
    assert texts == ["look 1", "look 1", "look 2", "look 2", "look 2"]
    assert said == [1, 2]


# --- the feed -------------------------------------------------------------------------------------


class Busy(View):
    """Ten calls between any two looks."""

    def uptime(self) -> float:
        self.counted.process.downstream_streams_total += 10
        return super().uptime()


class Counting(View):
    looks = 0

    def workers(self) -> list[dict[str, object]]:
        self.looks += 1
        return []


@on_jumping_clock
async def test_nobody_measures_while_nobody_watches() -> None:
    view = Counting()
    feed = LiveFeed(view)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run)
        await trio.sleep(100 * EVERY)
        idle = view.looks
        with feed.watching():
            await trio.sleep(10.5 * EVERY)
        await trio.sleep(2 * EVERY)
        watched = view.looks
        await trio.sleep(100 * EVERY)
        nursery.cancel_scope.cancel()

    assert idle == 0
    assert 10 <= watched <= 13
    assert view.looks == watched


@on_jumping_clock
async def test_two_who_watch_share_one_look_and_a_slow_one_loses_no_change() -> None:
    view = Counting()
    feed = LiveFeed(view)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run)
        with feed.watching(), feed.watching():
            first = await feed.after(0)
            view.is_draining = True
            await trio.sleep(5.5 * EVERY)
            view.is_draining = False
            last = await feed.after(first.serial + 5)
        nursery.cancel_scope.cancel()

    assert view.looks <= last.serial + 1
    assert [line for _, line in last.changes] == ["DRAINING is LIVE now", "LIVE is DRAINING now"]


# --- pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "arcs"), [("maglev", 2), ("ring_hash", 100)])
def test_a_table_is_drawn_with_all_its_owners(policy: str, arcs: int) -> None:
    """Maglev's in one piece each, a ring's as they lie."""
    picture = drawn(cluster(policy))
    assert picture is not None
    assert arcs <= picture.count("<path") <= 10 * arcs
    assert all(key in picture for key in KEYS)


def test_a_cluster_without_a_table_has_no_picture() -> None:
    one = cluster()
    assert drawn(Cluster(one.spec, one.endpoints)) is None
