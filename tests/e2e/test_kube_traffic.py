"""The article's own annotations on a Service, and gRPC traffic while all its pods are replaced."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from support.exposed import Exposed
from support.figures import note
from support.grpc_backends import PATIENCE, SERVICE, Metadata, connected
from support.pod_world import USERS, World, add, by_annotation, running_world, take_out
from support.sticky_load import StickyLoad
from support.written import DATA

pytestmark = pytest.mark.timeout(180)

OLD, NEW = ["a1", "b1", "c1"], ["a2", "b2", "c2"]


def of_the_article(name: str, policy: str = "ring_hash") -> str:
    """With our service behind it, and the line that gRPC needs."""
    text = (DATA / name).read_text().replace("service: qotm", "service: pods")
    text = text.replace("prefix: /qotm/", f"prefix: /{SERVICE}/\ngrpc: true")
    return text.replace("policy: ring_hash", f"policy: {policy}")


def plain_mapping() -> str:
    """The one in the annotation of the article's Service."""
    text = (DATA / "service_annotation.yaml").read_text()
    text = text.partition("---\n")[2].partition("spec:")[0]
    lines = "".join(f"{line.strip()}\n" for line in text.splitlines())
    return lines.replace("service: qotm", "service: pods").replace(
        "prefix: /qotm/", f"prefix: /{SERVICE}/\ngrpc: true"
    )


def replace_all(world: World, load: StickyLoad) -> None:
    """A new pod for each old one, which ends as pods do."""
    for leaving, coming in zip(OLD, NEW, strict=True):
        world.pod(coming, ready=False)
        add(world, load, coming)
        take_out(world, load, leaving)
        world.fleet[leaving].finish()
        load.round_after(world.kube.gone(leaving))


def cookies_given(world: World) -> Mapping[str, str]:
    """By user, from the answer to a call without one."""
    given = {}
    with connected(world.proxy.target) as client:
        for user in USERS:
            _, call = client.echo.with_call(b"", timeout=PATIENCE)
            initial = dict(call.initial_metadata())
            cookie, _, attributes = initial["set-cookie"].partition(";")
            assert "Max-Age=60" in attributes
            given[user] = cookie
            world.keys[user] = cookie.partition("=")[2].strip('"')
            assert initial["x-backend"] == world.homes(OLD)[user]
    return given


@pytest.mark.parametrize("policy", ["ring_hash", "maglev"])
def test_users_with_the_articles_cookie_stay_while_all_pods_are_replaced(
    tmp_path: Path, policy: str
) -> None:
    configure = by_annotation(of_the_article("qotm_ring_hash.yaml", policy))
    with running_world(
        tmp_path, *OLD, *NEW, members=OLD, policy=policy, configure=configure
    ) as world:
        cookies = cookies_given(world)

        def says(user: str) -> Metadata:
            return (("cookie", f"other=1; {cookies[user]}"),)

        with StickyLoad(world.proxy.target, USERS, says=says) as load:
            load.round_after(0.0)
            load.settle(world.homes(OLD))
            replace_all(world, load)
            assert load.failures() == []
            note(f"{policy} by cookie: {len(load.since(0.0))} calls, none failed")


def test_users_with_the_articles_header_stay_while_all_pods_are_replaced(tmp_path: Path) -> None:
    module = of_the_article("module_header.yaml")
    configure = by_annotation(module, plain_mapping())
    with (
        running_world(
            tmp_path, *OLD, *NEW, members=OLD, policy="ring_hash", configure=configure
        ) as world,
        StickyLoad(world.proxy.target, USERS) as load,
    ):
        load.round_after(0.0)
        load.settle(world.homes(OLD))
        replace_all(world, load)
        assert load.failures() == []
        note(f"ring_hash by header: {len(load.since(0.0))} calls, none failed")


def test_round_robin_shares_out_evenly_among_those_who_are_there(tmp_path: Path) -> None:
    configure = by_annotation(of_the_article("qotm_round_robin.yaml"))
    with (
        running_world(tmp_path, *OLD, *NEW, members=OLD, configure=configure) as world,
        StickyLoad(world.proxy.target, USERS) as load,
    ):
        members = list(OLD)
        load.spreads_evenly(members)
        for leaving, coming in zip(OLD, NEW, strict=True):
            starting = world.pod(coming, ready=False)
            load.round_after(starting)
            assert coming not in {call.backend for call in load.since(starting)}

            world.pod(coming)
            load.spreads_evenly([*members, coming])
            told = world.pod(leaving, ready=False, serving=True, terminating=True)
            members = [*(one for one in members if one != leaving), coming]
            load.spreads_evenly(members)
            late = [call.began - told for call in load.since(told) if call.backend == leaving]
            note(
                f"{leaving} removed: its last call began after {max(late, default=0) * 1e3:.1f} ms"
            )
            world.fleet[leaving].finish()
            load.round_after(world.kube.gone(leaving))
        assert members == NEW
        assert load.failures() == []
        note(f"round_robin: {len(load.since(0.0))} calls, none failed")


def test_what_happened_while_the_api_server_was_away_is_caught_up_with(tmp_path: Path) -> None:
    """A pod came and one went, unseen."""
    members = ["a1", "b1", "c1"]
    configure = by_annotation(plain_mapping(), of_the_article("module_header.yaml", "maglev"))
    with (
        running_world(
            tmp_path, *members, "a2", members=members, policy="maglev", configure=configure
        ) as world,
        StickyLoad(world.proxy.target, USERS) as load,
    ):
        homes = world.homes(members)
        load.round_after(0.0)
        load.settle(homes)
        moment = time.perf_counter()
        with world.kube.unseen():
            world.pod("a2")
            unnoticed = world.kube.gone("a1")
            load.round_after(unnoticed, rounds=5)
            assert all(call.backend == homes[call.user] for call in load.since(moment))
        back = time.perf_counter()
        caught_up = load.settle(world.homes(["a2", "b1", "c1"])) - back
        note(f"caught up {max(caught_up, 0):.1f} s after the API server said it was ready")
        relists = Exposed(world.proxy).total("stickyproxy_kube_relists_total")
        note(f"lists that had to be read again: {relists:.0f}")
        assert load.failures() == []
